"""From a public layout to a training step and to scores: one YAML, by the command that stands in its first lines."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from geopix.data.sources.reader import Reader
from geopix.data.sources.wording import VQA_KINDS
from geopix.evaluation.groups import VQA_KINDS as SCORED
from tests.commands import ROOT, geopix
from tests.sources.layouts import LAYOUTS

PARTS = sorted(path for path in (ROOT / "configs" / "data").glob("*.yaml") if "PublicSet" in path.read_text(encoding="utf-8"))
CHEAP = ["--model.net.llm.tokenizer.corpus.scenes", 3, "--data.batch_size", 1, "--data.num_workers", 0, "--trainer.limit_train_batches", 1]
CHEAP += ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", 1, "--trainer.limit_test_batches", 1]
CHEAP += ["--model.max_new_tokens", 4]


def reader_of(path: Path) -> str:
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["init_args"]["reader"]["class_path"])


def command_of(path: Path) -> list[str]:
    """The command in a file's header."""
    (line,) = re.findall(r"^#   geopix (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return shlex.split(line)


def test_every_reader_has_a_configuration() -> None:
    assert {reader_of(path) for path in PARTS} == {f"{reader.__module__}.{reader.__name__}" for reader in LAYOUTS}


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_a_configuration_says_how_it_is_used(path: Path) -> None:
    command = command_of(path)
    assert command[0] in ("fit", "test")
    given = dict(zip(command[1::2], command[2::2], strict=True))
    slot = "--data.train" if command[0] == "fit" else "--data.test"
    assert given[slot] == path.relative_to(ROOT).as_posix()
    assert given[f"{slot}.init_args.reader.init_args.root"] == "FOLDER"
    assert (ROOT / given["--config"]).is_file()


@pytest.mark.parametrize("name", ["rrsis_d"])
def test_a_training_step_on_a_public_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "configs" / "data" / f"{name}.yaml"
    reader: type[Reader] = next(each for each in LAYOUTS if reader_of(path).endswith(f".{each.__name__}"))
    LAYOUTS[reader](tmp_path / "set")
    command = [str(tmp_path / "set") if word == "FOLDER" else word for word in command_of(path)]
    said = geopix(*command, *CHEAP, "--trainer.default_root_dir", tmp_path / "run", "--data.train.init_args.cache", tmp_path / "cache")
    assert said.code == 0, said.err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    (report,) = (tmp_path / "cache").glob("*.report.json")
    assert "missing picture" in report.read_text(encoding="utf-8")


def test_every_kind_of_question_has_a_score() -> None:
    assert {*VQA_KINDS.values(), "open"} <= set(SCORED)
