"""Baselines outside the package: they learn, hand in predictions, and are scored as anybody's are."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim.muon import zeropower_via_newtonschulz

from benchmarks.baselines import hand_in, masks_as_text, specialist
from benchmarks.baselines.hand_in import asked, line, open_benchmark, write
from benchmarks.baselines.masks_as_text import Described, centred, masks_of, placed, read_runs, write_runs
from benchmarks.baselines.specialist import MIX, expressions
from geopix.data.scenes import Scenes
from tests.commands import ROOT, geopix
from tests.commands import tiny as run_tiny

SCENES = {"level": "easy", "split": "train", "size": 64, "count": 4, "dialogues": 3, "mix": MIX}
grids = st.integers(1, 12).flatmap(lambda side: st.lists(st.lists(st.booleans(), min_size=side, max_size=side), min_size=side, max_size=side))


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A benchmark of the four scenes that a baseline may learn by heart."""
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump({"data": {"test": {"class_path": "geopix.data.scenes.Scenes", "init_args": SCENES}}}))
    return path


def scored(predictions: Path, benchmark: Path) -> dict[str, float]:
    said = geopix("score", predictions, "--benchmark", benchmark, "--family", "segment", "--pictures", 0, "--resamples", 10)
    assert said.code == 0, said.err
    metrics: dict[str, float] = json.loads((predictions.with_suffix("") / "metrics.json").read_text())["metrics"]
    return metrics


def learn(folder: Path, few: Path, *options: object) -> Path:
    out = folder / "predictions.jsonl"
    words = ["--level", "easy", "--size", 64, "--scenes", 4, "--dialogues", 3, "--batch", 4, "--texts", 5, "--benchmark", few, "--out", out, *options]
    specialist.main([str(word) for word in words])
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon in float32: in bfloat16, as timm has it, it takes many times as long on a CPU without instructions for it (benchmarks/muon_precision.py)."""
    monkeypatch.setattr("timm.optim.muon.zeropower_via_newtonschulz", partial(zeropower_via_newtonschulz, dtype=torch.float32))


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore:(?s).*does not have many workers", "ignore:(?s).*but have no `validation_step`")
def test_the_specialist_learns_four_scenes_by_heart_and_is_scored(few: Path, tmp_path: Path) -> None:
    out = learn(tmp_path, few, "--steps", 30)
    metrics = scored(out, few)
    assert metrics["segment/giou"] > 0.7
    assert metrics["absent/n_acc"] == metrics["absent/t_acc"] == 1
    again = out.read_bytes()
    learn(tmp_path, few, "--ckpt", out.with_suffix(".pt"))
    assert out.read_bytes() == again
    refused = learn(tmp_path, few, "--ckpt", out.with_suffix(".pt"), "--presence", 1.1)
    assert scored(refused, few)["absent/t_acc"] == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore:(?s).*does not have many workers", "ignore:(?s).*but have no `validation_step`")
def test_the_specialist_follows_from_its_seed(few: Path, tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        weights[name] = torch.load(learn(tmp_path / name, few, "--steps", 2, "--seed", seed).with_suffix(".pt"), weights_only=True)
    assert all(torch.equal(value, weights["same"][key]) for key, value in weights["one"].items())
    assert not torch.equal(weights["one"]["head.weight"], weights["other"]["head.weight"])


@pytest.mark.parametrize("level", ["easy", "standard", "hard"])
def test_every_question_of_the_scenes_splits_into_as_many_expressions_as_it_has_masks(level: str) -> None:
    source = Scenes(level, size=64, dialogues=10, mix=MIX)
    for index in range(20):
        for said in source.spoken(source.scene(index), index):
            found = expressions([turn.prompt for turn in said.turns])
            assert len(found) == max(len(said.targets), 1), said.turns
            assert not any("[" in each or "?" in each or "mask" in each for each in found), found


def test_a_question_in_other_words_is_one_expression() -> None:
    assert expressions(["[segment] vehicles parked near the hangar"]) == ["vehicles parked near the hangar"]


@settings(deadline=None)
@given(grids, st.integers(1, 3), st.integers(1, 3))
def test_a_mask_of_whole_cells_comes_back(cells: list[list[bool]], tall: int, wide: int) -> None:
    grid = torch.tensor(cells)
    mask = grid.repeat_interleave(tall, 0).repeat_interleave(wide, 1)
    text = write_runs(mask, len(grid))
    assert torch.equal(read_runs(text, (mask.shape[0], mask.shape[1]), len(grid)), mask)
    assert write_runs(mask, len(grid)) == text


def test_a_mask_is_as_close_as_its_grid() -> None:
    mask = torch.rand(37, 50, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(read_runs(write_runs(mask, 8), (8, 8), 8), F.adaptive_avg_pool2d(mask.double()[None], (8, 8))[0] >= 0.5)


@pytest.mark.parametrize("text", ["Sure", "1", "1:", "1:2", "1:2-", "1:2-3;", "1:3-2", "2-1:0-0", "1:2-8", "8:1-2", "1:2-3,", "1: 2-3", "9999999999:1-2"])
def test_text_that_describes_no_mask_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no 'row-row:column-column'|outside the grid"):
        read_runs(text, (8, 8), 8)


def test_true_answers_are_scored_as_their_grid_allows(few: Path, tmp_path: Path) -> None:
    source, unread, lines = open_benchmark(str(few), tmp_path), Counter[str](), []
    for number, (samples, found) in enumerate(asked(source, 1)):
        truth = Described(source, 64).sample(number)
        for question, dialogue in zip(found, truth.dialogues, strict=True):
            assert dialogue.task == "caption/masks"
            answers = [turn.answer for turn in dialogue.turns]
            lines.append(line(question, answers, masks_of(answers, samples[0].frame, 64, unread)))
    write(tmp_path / "true.jsonl", lines, str(few))
    assert unread["written"] > 4
    assert unread["unreadable"] == 0
    metrics = scored(tmp_path / "true.jsonl", few)
    assert metrics["segment/giou"] == metrics["absent/n_acc"] == 1, "as many cells as pixels"
    said = placed(tmp_path / "true" / "samples.jsonl", source)
    assert "single things with a mask: words as expected 100%; gIoU 1.000, of masks moved to the true centre 1.000, of another question's" in said
    assert float(said.split()[-1]) < 0.9
    with pytest.raises(ValueError, match="other images"):
        placed(tmp_path / "true" / "samples.jsonl", Scenes("easy", "val", size=64, count=4))
    coarse = masks_of(["It is {0-1:0-1} and {no mask}."], samples[0].frame, 4, unread)
    assert [int(mask.sum()) for mask in coarse] == [32 * 32, 0]
    assert unread["unreadable"] == 1


@pytest.mark.parametrize(("down", "right"), [(3, -2), (-3, 2), (0, 0)])
def test_a_mask_of_the_right_shape_fits_once_it_is_moved(down: int, right: int) -> None:
    mask = torch.zeros(12, 14, dtype=torch.bool)
    mask[4:7, 5:7] = mask[4, 7] = True
    other = mask.roll((down, right), (0, 1))
    assert torch.equal(centred(other, mask), mask)
    corner = torch.zeros_like(mask)
    corner[0, 0] = True
    assert centred(mask, corner).sum() == 2, "what leaves the image is lost, and comes back nowhere"


def test_masks_as_text_are_learnt_and_scored(few: Path, tmp_path: Path) -> None:
    said = yaml.safe_load((ROOT / "benchmarks" / "baselines" / "masks_as_text.yaml").read_text())
    net = said["model"]["net"]
    described = said["data"]["train"]
    described["init_args"]["source"]["init_args"] = {"level": "easy", "size": 64, "dialogues": 2}
    net["llm"]["init_args"]["tokenizer"]["init_args"] |= {"vocab_size": 520}
    net["llm"]["init_args"]["tokenizer"]["init_args"]["corpus"]["init_args"] = {"scenes": 3, "source": described}
    net["llm"]["init_args"]["source"] |= {"hidden_size": 32, "n_layer": 1, "n_head": 2}
    for stage in said["trainer"]["callbacks"][0]["init_args"]["stages"]:
        stage["samples"] = 4
    del said["trainer"]["default_root_dir"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(said))
    run_tiny("fit", tmp_path / "run", "--config", tmp_path / "small.yaml")
    masks_as_text.main([str(tmp_path / "run" / "checkpoints" / "last.ckpt"), "--benchmark", str(few), "--longest", "12"])
    assert scored(tmp_path / "run" / "predictions.jsonl", few)["single/giou"] < 0.5


def test_what_a_test_of_geopix_drew_is_scored_and_compared_as_any_program_s(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.yaml"
    mixed.write_text("data: {test: {class_path: geopix.data.scenes.Scenes, init_args: {level: easy, split: test, size: 64, count: 2}}}\n")
    run_tiny("test", tmp_path / "run", "--allow_random", "true", "--results.pictures", 0, "--results.resamples", 10, "--benchmark", mixed)
    samples = tmp_path / "run" / "mixed" / "samples.jsonl"
    hand_in.main([str(samples), str(tmp_path / "ours.jsonl"), "--benchmark", str(mixed)])
    assert 0 < len((tmp_path / "ours.jsonl").read_text().splitlines()) < len(samples.read_text().splitlines())
    ours, tested = scored(tmp_path / "ours.jsonl", mixed), json.loads((tmp_path / "run" / "mixed" / "metrics.json").read_text())["metrics"]
    assert ours["single/giou"] == tested["single/giou"]
    write(
        tmp_path / "nothing.jsonl",
        (line(each, [""] * len(each.prompts), []) for _, found in asked(open_benchmark(str(mixed), tmp_path), 2) for each in found),
        "mixed",
    )
    assert scored(tmp_path / "nothing.jsonl", mixed)["absent/n_acc"] == 1
    said = geopix("compare", tmp_path / "ours", tmp_path / "nothing", "--resamples", 10)
    assert said.code == 0, said.err


def test_the_bound_is_printed_for_every_grid() -> None:
    said = masks_as_text.bound("easy", 3).splitlines()
    assert [row.split()[0] for row in said[2:]] == ["16", "32", "64", "16"]
    iou = [float(row[20:28]) for row in said[2:]]
    assert iou[0] == iou[3] < iou[1] < iou[2] < 1


def test_a_benchmark_of_scenes_has_the_size_that_models_are_trained_at() -> None:
    assert open_benchmark(str(ROOT / "benchmarks" / "scenes_standard.yaml"), Path()).title == Scenes("standard", "test", 128, 300, dialogues=8).title
