"""Every benchmark file is run through the command line, on a miniature of its set, and what is handed in is scored by it."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from geopix.data.sources.reader import Report
from tests.commands import ROOT, geopix, message, tiny
from tests.sources.layouts import LAYOUTS, Miniature

FILES = sorted((ROOT / "benchmarks").glob("*.yaml"))
PUBLIC = [path for path in FILES if "reader" in yaml.safe_load(path.read_text())["data"]["test"]["init_args"]]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A miniature of every set that a benchmark names, where the benchmark looks for it; and the benchmarks, with a split that the miniature has."""
    root, files = tmp_path_factory.mktemp("sets"), []
    miniatures: dict[str, Miniature] = {}
    for path in PUBLIC:
        said = yaml.safe_load(path.read_text())
        reader = said["data"]["test"]["init_args"]["reader"]
        module, _, name = reader["class_path"].rpartition(".")
        where = reader["init_args"]["root"]
        if where not in miniatures:
            miniatures[where] = LAYOUTS[vars(importlib.import_module(module))[name]](root / where)
        given = reader["init_args"]
        of_it = [each for each in miniatures[where].readers if type(each).__name__ == name and next(each.records(Report()), None) is not None]
        nearest = max(of_it, key=lambda each: sum(vars(each).get(key) == value for key, value in given.items()))
        chosen = {key: str(value) if isinstance(value, Path) else value for key, value in vars(nearest).items() if value is not None}
        reader["init_args"] = chosen | {"root": where}
        files.append(root / path.name)
        files[-1].write_text(yaml.safe_dump(said))
    return root, files


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "few_scenes.yaml"
    path.write_text("data: {test: {class_path: geopix.data.scenes.Scenes, init_args: {level: easy, split: test, count: 3, dialogues: 3}}}\n")
    return path


def test_a_suite_of_all_public_benchmarks_is_one_call(suite: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # converted records go below the working folder
    said = tiny("test", tmp_path / "run", "--allow_random", "true", "--results.pictures", 1, "--results.resamples", 20, "--results.java", "false",
                "--benchmark_root", suite[0], "--benchmark", *suite[1])  # fmt: skip
    for path in PUBLIC:
        result = json.loads((tmp_path / "run" / path.stem / "metrics.json").read_text())
        assert result["dialogues"] > 0, path.stem
        assert result["metrics"], path.stem
        assert (tmp_path / "run" / path.stem / "report.html").is_file()
        assert result["data"] in said.out
        if path.stem == "rrsis_d":
            assert any("the publication 3481" in remark for remark in result["remarks"]), "a split of other counts than published must be told"
        asked = result["metrics"]
        expected = {
            "rsvqa": "vqa/oa",
            "captions": "caption/cider_d",
            "rsicd": "caption/cider_d",
            "dior_rsvg": "box/acc@0.5",
            "rrsis_d": "single/giou",
            "vrsbench_refer": "box/unique/acc@0.5",
        }
        for begins, score in expected.items():
            assert not path.stem.startswith(begins) or score in asked, (path.stem, sorted(asked))


@pytest.mark.parametrize("level", ["easy", "standard", "hard"])
def test_scenes_are_benchmarks_too(level: str) -> None:
    said = yaml.safe_load((ROOT / "benchmarks" / f"scenes_{level}.yaml").read_text())
    assert said["data"]["test"]["init_args"] == {"level": level, "split": "test", "count": 300}


def test_images_have_the_size_that_the_model_was_trained_with(small: Path, tmp_path: Path) -> None:
    tiny("test", tmp_path / "run", "--allow_random", "true", "--results.pictures", 0, "--benchmark", small)
    assert "3 images of 64 px" in json.loads((tmp_path / "run" / "few_scenes" / "metrics.json").read_text())["data"]
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_questions_are_handed_out_and_answers_scored_and_compared(small: Path, tmp_path: Path) -> None:
    said = geopix("score", "--benchmark", small, "--questions", tmp_path / "q.jsonl")
    assert said.code == 0, said.err
    asked = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    for name, answer in (("yes", "yes"), ("no", "no")):
        lines = [{"key": each["key"], "answers": [answer] * len(each["prompts"]), "masks": []} for each in asked]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        said = geopix("score", tmp_path / f"{name}.jsonl", "--benchmark", small, "--pictures", 1, "--resamples", 20)
        assert said.code == 0, said.err
        result = json.loads((tmp_path / name / "metrics.json").read_text())
        assert result["protocol"] == "generate"
        assert result["dialogues"] == len(asked)
    said = geopix("compare", tmp_path / "yes", tmp_path / "no", "--resamples", 20)
    assert said.code == 0, said.err
    assert "score" in said.out.splitlines()[0]
    said = geopix("compare", *[tmp_path / name for name in ("yes", "no", "no", "yes")], "--seeds", 2, "--resamples", 20, "--metric", "vqa/oa")
    assert said.code == 0, said.err
    before, after = said.out.splitlines()[1].split()[1:3]
    assert before == after, "the same two runs in another order have the same mean"
    assert "over seeds and images" in said.out
    for verb, short in (("compare", "--resample"), ("score", "--fam")):
        assert f"unrecognized arguments: {short}" in geopix(verb, tmp_path / "yes", *(("--benchmark", small) if verb == "score" else ()), short, 20).err
    assert "at least two models, of 2 runs each" in message("compare", tmp_path / "yes", tmp_path / "no", "--seeds", 2)


def test_runs_that_do_not_belong_together_are_refused(small: Path, tmp_path: Path) -> None:
    geopix("score", "--benchmark", small, "--questions", tmp_path / "q.jsonl")
    asked = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    lines = [{"key": each["key"], "answers": ["no"] * len(each["prompts"]), "masks": []} for each in asked]
    (tmp_path / "no.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert geopix("score", tmp_path / "no.jsonl", "--benchmark", small, "--pictures", 1, "--resamples", 20).code == 0
    runs = {}
    for model in "ab":
        for seed in (0, 1, 2):
            runs[f"{model}{seed}"] = shutil.copytree(tmp_path / "no", tmp_path / f"{model}{seed}")
            metrics = runs[f"{model}{seed}"] / "metrics.json"
            metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"seed": seed}))

    metrics = runs["b0"] / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"protocol": "generate_named"}))
    told = geopix("compare", runs["a0"], runs["b0"], "--resamples", 20).out.splitlines()[0]
    assert f"{runs['a0']} (generate)" in told, "only what the memory is told differs, and the table says what"
    assert f"{runs['b0']} (generate_named)" in told
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"protocol": "peers/rmsin"}))
    assert "was scored by the protocol generate" in message("compare", runs["a0"], runs["b0"])
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"protocol": "generate"}))

    def two(*names: str) -> list[object]:
        return ["compare", *(runs[name] for name in names), "--seeds", 2, "--resamples", 20]

    assert geopix(*two("a0", "a1", "b0", "b1")).code == 0
    assert "have the seeds [0, 0]" in message(*two("a0", "b0", "a1", "b1"))
    assert "have the seeds [0, 2], the first 2 runs [0, 1]" in message(*two("a0", "a1", "b0", "b2"))
    assert "have the seeds [1, 0]" in message(*two("a0", "a1", "b1", "b0"))


def test_mistakes_are_told_before_anything_is_tested(small: Path, tmp_path: Path) -> None:
    run = ("test", "--config", ROOT / "tests" / "tiny.yaml", "--allow_random", "true", "--trainer.default_root_dir", tmp_path / "run", "--benchmark")
    assert "there is no benchmark 'rsis_d'" in message(*run, "rsis_d")
    assert "rrsis_d" in message(*run, "rsis_d")
    other = tmp_path / "other.yaml"
    other.write_text("model: {}\ndata: {test: {class_path: geopix.data.scenes.Scenes}}\n")
    assert "is no benchmark" in message(*run, small, other)
    assert "does not exist" in message(*run, small, "rrsis_d", code=3)
    assert "is named twice" in message(*run, small, small)
    assert not (tmp_path / "run" / "few_scenes").exists()
    assert "there is no protocol 'lisa'" in message("score", tmp_path / "p.jsonl", "--benchmark", small, "--protocol", "lisa", code=3)
    (tmp_path / "plain").write_text("")
    assert "plain is a file; say --output FOLDER" in message("score", tmp_path / "plain", "--benchmark", small, code=3)
    assert "holds no finished test" in message("compare", tmp_path, tmp_path)
    assert "expected a whole number from 1, found '0'" in geopix("compare", tmp_path, tmp_path, "--resamples", 0).err


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "ablation").rglob("*.yaml")), ids=lambda path: path.stem)
def test_what_an_ablation_varies_is_accepted(path: Path) -> None:
    base = ["--config", ROOT / "configs" / "standard.yaml", "--config", ROOT / "benchmarks" / "ablation" / "budget.yaml"]
    said = geopix("fit", *base, "--config", path, "--print_config")
    assert said.code == 0, said.err
    config = yaml.safe_load(said.out)
    budget = 48000 if path.parent.name == "full" or path.stem == "whole_budget" else 9600
    assert sum(stage["samples"] for stage in config["trainer"]["callbacks"][0]["init_args"]["stages"]) == budget, "trials of one table have one budget"
    assert config["model"]["net"]["decoder"]["init_args"].get("evidence") is None, "every mask is drawn"
