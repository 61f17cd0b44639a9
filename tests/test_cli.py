"""The command line: what it accepts, and that each mistake is one message with its place, the nearest name and the next step."""

import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from geopix.cli_errors import tell
from tests.commands import ROOT, TINY, geopix, message

MEAN = '''
from collections.abc import Sequence

import torch
from geopix.contracts import Connector

class MeanConnector(Connector):
    """One visual token: the mean of the map."""

    def __init__(self, channels: Sequence[int], out_dim: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.linear = torch.nn.Linear(channels[-1], out_dim)

    def forward(self, features):
        return self.linear(features[-1].mean((2, 3)))[:, None] * self.scale
'''


def parsed(*args: object) -> dict:
    """The merged configuration of a fit."""
    said = geopix("fit", "--config", TINY, *args, "--print_config")
    assert said.code == 0, said.err
    return yaml.safe_load(said.out)


def test_help_comes_at_once() -> None:
    start = time.perf_counter()
    said = subprocess.run([sys.executable, "-m", "geopix", "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 1.5
    assert "geopix fit --config" in said.stdout


def test_the_help_of_a_part_is_its_docstring() -> None:
    said = geopix("fit", "--model.net.connector.help", "geopix.connectors.mlp.MLPConnector")
    assert said.code == 0
    assert "--model.net.connector.hidden" in said.out
    assert "--model.net.connector.out_dim" not in said.out


def test_an_option_of_a_part_merges_into_it() -> None:
    connector = parsed("--model.net.connector.hidden", 32)["model"]["net"]["connector"]
    assert connector["class_path"].endswith("MLPConnector")
    assert connector["init_args"]["hidden"] == 32
    assert parsed("--model.net.memory", "null")["model"]["net"]["memory"] is None
    assert parsed("--model.optimizer.lr", "1e-5")["model"]["optimizer"]["init_args"]["lr"] == 1e-5


def test_callbacks_of_a_second_file_are_appended(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("trainer: {callbacks+: [{class_path: geopix.monitor.Curves}]}\n", encoding="utf-8")
    names = [each["class_path"].rsplit(".", 1)[-1] for each in parsed("--config", tmp_path / "more.yaml")["trainer"]["callbacks"]]
    assert names == ["Curriculum", "Curves"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.net.decoder.dmi", 4], ["dmi", "DotDecoder", "did you mean  dim", "command line"]),
        (["--data.batchsize", 4], ["--data.batchsize", "did you mean  --data.batch_size"]),
        (["--trainer.max_e", 4], ["--trainer.max_e", "did you mean  --trainer.max_epochs"]),
        (["--trainer.max_epochs", "many"], ["trainer.max_epochs", "many", "int"]),
        (["--model.protocol", "peers/rmsn"], ['model.protocol cannot be "peers/rmsn"', "generate_named, ", "did you mean  peers/rmsin", "command line"]),
        (["--trainer.precision", "33"], ['trainer.precision cannot be "33"', "bf16-mixed", "null"]),
        (["--model.net.memory", "null", "--model.net.memory.slots", 8], ['model.net.memory has no option "slots", for no part', "choose the part first"]),
        (["--model.net.decoder.dim", "wide"], ["model.net.decoder.dim has a value of another type", "found     wide\n", "expected  int"]),
        (["--model.net.connector", "geopix.decoders.dot.DotDecoder"], ["model.net.connector expects a Connector", "geopix.decoders.dot.DotDecoder"]),
        (["--model.net.connector", ROOT / "configs/decoder/dot.yaml"], ["model.net.connector expects a Connector", "dot.yaml:2"]),
        (["--model.net.connector", "geopix.connectors.mlp.MLPConector"], ['has no "MLPConector"', "did you mean  MLPConnector"]),
        (["--model.net.connector", "nowhere.MLPConnector"], ['no module named "nowhere"', "did you mean  geopix.connectors.mlp.MLPConnector"]),
        (["--model.net.connector", ROOT / "configs/connector/mpl.yaml"], ["does not exist", "configs/connector/mlp.yaml"]),
        (["--model.net.connector.out_dim", 4], ["out_dim", "MLPConnector"]),
        (["--config", ROOT / "configs/quikstart.yaml"], ["does not exist", "did you mean", "quickstart.yaml"]),
    ],
    ids=lambda value: str(value[0]).strip("-") if isinstance(value, list) else None,
)
def test_a_mistake_on_the_command_line(args: list[object], said: list[str]) -> None:
    told = message("fit", "--config", TINY, *args)
    assert [part for part in said if part not in told] == [], told


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  batch_size: 2", "  batchsize: 2", ["data.batchsize", "did you mean  data.batch_size", "broken.yaml:"]),
        ("levels: [1, 2]", "level: [1, 2]", ['"level" for TimmEncoder', "did you mean  levels", "broken.yaml:"]),
        ("split: val, size: 64, count: 2", "split: val, size: 64, cuont: 2", ['"cuont" for Scenes', "did you mean  count", "broken.yaml:"]),
        ("scenes: 3", "scnes: 3", ["scnes", "did you mean  scenes", "broken.yaml:"]),
        ("{hidden: 24}", "{hidden: wide}", ["model.net.connector", "wide"]),
        ("geopix.curriculum.Curriculum", "geopix.curriculum.Curiculum", ["Curiculum", "did you mean  Curriculum"]),
        ("samples: 8, train", "sampels: 8, train", ["sampels"]),
        ("seed_everything: 0", "seed_everything: [", ["no valid YAML", "broken.yaml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_mistake_in_a_file(old: str, new: str, said: list[str], tmp_path: Path) -> None:
    text = TINY.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "broken.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    told = message("fit", "--config", tmp_path / "broken.yaml")
    assert [part for part in said if part not in told] == [], told


def test_a_mistake_in_the_file_of_a_required_part_is_told_and_not_a_loop(tmp_path: Path) -> None:
    (tmp_path / "encoder.yaml").write_text("class_path: geopix.encoders.timm.TimmEncoder\ninit_args:\n  nam: resnet18\n", encoding="utf-8")
    told = message("fit", "--config", TINY, "--model.net.encoder", tmp_path / "encoder.yaml")
    assert "loop" not in told
    for part in ('"nam" for TimmEncoder', "encoder.yaml:3", "did you mean  name"):
        assert part in told


def test_a_required_part_is_missing() -> None:
    told = message("fit")
    assert "model.net.encoder" in told
    assert "configs/quickstart.yaml" in told


def test_an_unknown_verb() -> None:
    assert "did you mean  fit" in message("fitt")


def test_a_part_beside_the_configuration_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine_beside.py").write_text(MEAN, encoding="utf-8")
    (tmp_path / "my.yaml").write_text("model: {net: {connector: {class_path: mine_beside.MeanConnector, init_args: {scale: 2.0}}}}\n", encoding="utf-8")
    connector = parsed("--config", tmp_path / "my.yaml")["model"]["net"]["connector"]
    assert connector == {"class_path": "mine_beside.MeanConnector", "init_args": {"scale": 2.0}}


def test_a_module_that_fails_tells_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "mine_broken.py").write_text("import torch\nwidth = 1 / 0\n", encoding="utf-8")
    (tmp_path / "my.yaml").write_text("model: {net: {connector: {class_path: mine_broken.MeanConnector}}}\n", encoding="utf-8")
    told = message("fit", "--config", TINY, "--config", tmp_path / "my.yaml")
    assert "ZeroDivisionError" in told
    assert "mine_broken.py:2" in told


def test_mistakes_of_data_and_model_are_told_with_their_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ("fit", "--config", TINY, "--trainer.default_root_dir", tmp_path)
    assert "data.train" in message(*base, "--data.train", "null", code=3)
    assert "is empty" in message(*base, "--data.val.count", 0, code=3)
    other = ("--model.net.decoder", "geopix.decoders.multi_scale.MultiScaleDecoder", "--model.net.decoder.heads", 2, "--model.net.decoder.levels", "[1, 0]")
    assert "seg_tokens" in message(*base, *other, "--model.net.llm.seg_tokens", 5)
    assert "val_check_interval" in message(*base, "--trainer.val_check_interval", 100)
    monkeypatch.setenv("GEOPIX_TRACE", "1")
    said = geopix(*base, "--data.train", "null")
    assert said.code == 3
    assert "Traceback" in said.err


def test_mistakes_of_a_worker_are_told_and_defects_are_not() -> None:
    inner = 'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "/x/geopix/data/images.py", line 3, in f\n'
    assert tell(ValueError(f"{inner}ValueError: a.png is no image.")) == (3, "a.png is no image.")
    assert tell(ValueError("raised by a test, not by geopix")) is None
    assert tell(RuntimeError("shapes")) is None


def test_a_list_of_problems_is_told_in_full_and_what_is_cut_is_counted(tmp_path: Path) -> None:
    lines = "".join(f'{{"image": "missing{number}.png", "key": "k{number}", "split": "train", "dialogues": []}}\n' for number in range(40))
    (tmp_path / "records.jsonl").write_text(lines, encoding="utf-8")
    real = ("--data.train", "geopix.data.instruct.RealImages", "--data.train.path", tmp_path / "records.jsonl", "--data.train.size", 64)
    said = geopix("fit", "--config", TINY, "--trainer.default_root_dir", tmp_path, *real)
    assert (said.code, said.err.count("does not exist")) == (3, 40)
    inner = 'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "/x/lightning/pytorch/a.py", line 3, in f\n'
    told = str(tell(ValueError(inner + "ValueError: first" + "\nmore" * 20)))
    assert "... and 7 more lines; GEOPIX_TRACE=1 shows all" in told


def test_answers_that_nothing_writes_are_not_computed(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    words = ["--data.predict", "geopix.data.ask.Ask", "--data.predict.images", tmp_path / "a.png", "--data.predict.prompts", "ship?"]
    words += ["--allow_random", "true", "--trainer.default_root_dir", tmp_path / "run", "--trainer.callbacks", "null"]
    told = message("predict", "--config", TINY, *words)
    assert "predict would keep none of its answers" in told
    added = told.partition("next      ")[2].split()
    assert geopix("predict", "--config", TINY, *words, *added).code == 0
    assert (tmp_path / "run" / "predictions" / "answers.jsonl").is_file()


def test_a_value_of_another_type_is_told_where_it_was_given(tmp_path: Path) -> None:
    scenes = "class_path: geopix.data.scenes.Scenes, init_args:"
    wrong = f"data:\n  train: {{{scenes} {{size: wide}}}}\n  val: {{{scenes} {{count: 2,\n    size: 64}}}}\n"
    (tmp_path / "wrong.yaml").write_text(wrong, encoding="utf-8")
    (tmp_path / "part.yaml").write_text("class_path: geopix.data.scenes.Scenes\ninit_args:\n  split: val\n  size: wide\n", encoding="utf-8")
    (tmp_path / "outer.yaml").write_text("data:\n  batch_size: 4\n  val: part.yaml\n", encoding="utf-8")
    base = ("fit", "--config", TINY)
    for args, where in (
        (("--config", tmp_path / "wrong.yaml"), f"data.train.size   {tmp_path / 'wrong.yaml'}:2"),
        (("--config", tmp_path / "wrong.yaml", "--data.batch_size", 4), f"data.train.size   {tmp_path / 'wrong.yaml'}:2"),
        (("--config", tmp_path / "outer.yaml"), f"data.val.size   {tmp_path / 'part.yaml'}:4"),
        (("--data.val", tmp_path / "part.yaml"), f"data.val.size   {tmp_path / 'part.yaml'}:4"),
        (("--data.train.size", "wide", "--data.batch_size", 4), "--data.train.size (command line)"),
    ):
        told = message(*base, *args)
        assert f"  where     {where}\n  found     wide\n  expected  int" in told, told


def test_what_a_part_keeps_from_the_part_before_is_said(tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text("class_path: geopix.llms.hf.HFLanguageModel\ninit_args: {source: nowhere/model, seg_tokens: 2}\n", encoding="utf-8")
    said = geopix("test", "--config", TINY, "--model.net.llm", tmp_path / "llm.yaml", "--model.net.decoder", ROOT / "configs/decoder/dot.yaml")
    assert "geopix: model.net.llm keeps tokenizer of the part before" in said.err
    assert "model.net.decoder keeps dim of the part before" in said.err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    program = """
import resource, torch
from geopix.cli import keep_freed_memory
def fresh_pages(megabytes=64, times=5):
    torch.ones(megabytes << 18).sum()
    taken = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
    for _ in range(times):
        torch.ones(megabytes << 18).sum()
        taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return min(after - before for before, after in zip(taken, taken[1:]))  # a system may take pages back at any time
before = fresh_pages()
keep_freed_memory()
print(before, fresh_pages())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT)
    before, after = map(int, done.stdout.split())
    assert after < 0.1 * before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trainer.precision", "bf16-true"), ["trainer.precision bf16-true is not supported", "bf16-mixed"]),
        (("--trainer.strategy", "fsdp"), ["trainer.strategy fsdp is not supported", "ddp_find_unused_parameters_true"]),
        (("--trainer.max_epochs", 2), ["trainer.max_epochs is 2, but a training is one pass"]),
        (("--trainer.accumulate_grad_batches", 2, "--trainer.val_check_interval", 1), ["val_check_interval 1 is 1 batches", "Take 2."]),
    ],
)
def test_what_would_train_otherwise_than_it_looks_is_refused(words: tuple[object, ...], said: list[str], tmp_path: Path) -> None:
    told = message("fit", "--config", TINY, "--trainer.default_root_dir", tmp_path, *words, code=3 if "epochs" in str(words[0]) else 2)
    for each in said:
        assert each in told
