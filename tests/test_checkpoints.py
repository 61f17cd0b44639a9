"""Checkpoints: what is in them, what is refused, and that a killed run ends as one that was not killed."""

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from geopix.checkpoint import CheckpointError, read_checkpoint, use_own_options
from geopix.llms.hf import HFLanguageModel, LoRA
from geopix.task import GeoPixTask
from tests import tiny as parts
from tests.commands import ROOT, TINY, geopix, message, tiny

KILLER = """
from lightning.pytorch import Callback

class Killed(RuntimeError):
    pass

class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == self.step:
            raise Killed("the power is gone")
"""


def last(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of an uninterrupted training: 8 steps, a change of stage after 4, validation after 3 and 6."""
    folder = tmp_path_factory.mktemp("whole")
    tiny("fit", folder)
    return folder


def killed(folder: Path, step: int, *args: object) -> None:
    """A training that dies at the start of a step."""
    (folder / "killer.py").write_text(KILLER, encoding="utf-8")
    (folder / "kill.yaml").write_text(f"trainer: {{callbacks+: [{{class_path: killer.Kill, init_args: {{step: {step}}}}}]}}\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="the power is gone"):
        tiny("fit", folder, "--config", folder / "kill.yaml", *args)


@pytest.mark.parametrize(
    ("step", "saved", "args"),
    [
        pytest.param(2, 2, ["--checkpoint.every_n_train_steps", 1], id="first stage"),
        pytest.param(4, 4, ["--checkpoint.every_n_train_steps", 2], id="between stages"),
        pytest.param(7, 6, [], id="second stage, saved by a validation"),
        pytest.param(5, 5, ["--checkpoint.every_n_train_steps", 5], id="second stage, saved before a validation"),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(step: int, saved: int, args: list[object], trained: Path, tmp_path: Path) -> None:
    killed(tmp_path, step, *args)
    assert last(tmp_path)["global_step"] == saved
    tiny("fit", tmp_path, "--ckpt_path", "last", *args)
    expect_same(last(tmp_path), last(trained))


def test_the_best_by_a_validation_score_is_kept_by_lightning(tmp_path: Path) -> None:
    monitor = ("monitor=val/single/giou", "mode=max", f"dirpath={tmp_path / 'best'}", "filename=best")
    keep = ("--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", *(f"--trainer.callbacks.{each}" for each in monitor))
    tiny("fit", tmp_path, *keep)
    best = read_checkpoint(tmp_path / "best" / "best.ckpt")
    assert best["geopix"]["samples"] == 6, "the first of equal scores: that after 3 steps of 2 images"
    assert last(tmp_path)["geopix"]["samples"] == 16
    tiny("test", tmp_path, "--ckpt_path", tmp_path / "best" / "best.ckpt")


SUDDEN_DEATH = """
import os, signal
from lightning.pytorch import Callback

class Kill(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 4:
            os.replace = self.die

    def die(self, part, whole) -> None:
        os.truncate(part, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_killed_outright_while_it_saves_ends_as_one_that_was_not(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(SUDDEN_DEATH, encoding="utf-8")
    (tmp_path / "kill.yaml").write_text("trainer: {callbacks+: [{class_path: killer.Kill}]}\n", encoding="utf-8")
    often = ["--checkpoint.every_n_train_steps", "1"]
    command = ["fit", "--config", TINY, "--config", tmp_path / "kill.yaml", "--trainer.default_root_dir", tmp_path, *often]
    died = subprocess.run([sys.executable, "-m", "geopix", *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert last(tmp_path)["global_step"] == 4
    tiny("fit", tmp_path, "--ckpt_path", "last", *often)
    expect_same(last(tmp_path), last(trained))


def test_a_run_stopped_by_its_own_limit_goes_on(trained: Path, tmp_path: Path) -> None:
    tiny("fit", tmp_path, "--trainer.max_steps", 5)
    assert last(tmp_path)["global_step"] == 5
    tiny("fit", tmp_path, "--ckpt_path", "last")
    expect_same(last(tmp_path), last(trained))


def expect_same(one: dict, other: dict) -> None:
    assert one["global_step"] == other["global_step"] == 8
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other["state_dict"][name], rtol=0, atol=1e-6, msg=name)
    for mine, its in zip(one["optimizer_states"][0]["state"].values(), other["optimizer_states"][0]["state"].values(), strict=True):
        torch.testing.assert_close(mine["exp_avg"], its["exp_avg"], rtol=0, atol=1e-6)
    assert one["geopix"] == other["geopix"]


def test_the_manifest_says_what_it_is(trained: Path) -> None:
    said = last(trained)["geopix"]
    assert said["samples"] == 16
    assert said["stage"] == "segment"
    assert said["classes"] == ["ship", "plane", "building"]
    assert (said["bands"], said["seg_tokens"], said["size"]) == (3, 6, 64)
    assert any(name.startswith("net.decoder.") for name in said["trained"])
    assert set(said["trained"]) <= set(last(trained)["state_dict"])


def test_what_is_frozen_is_named_and_not_stored(tmp_path: Path) -> None:
    tiny("fit", tmp_path, "--model.net.encoder.freeze", "true", "--trainer.max_steps", 1)
    checkpoint = last(tmp_path)
    assert not any(name.endswith("conv1.weight") and name.startswith("net.encoder") for name in checkpoint["state_dict"])
    assert checkpoint["geopix"]["needs"]["encoder"]["init_args"]["name"] == "resnet18"


def test_a_task_is_rebuilt_from_its_checkpoint_alone(trained: Path) -> None:
    task = GeoPixTask.load_from_checkpoint(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert task.max_new_tokens == 8
    for name, value in task.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, last(trained)["state_dict"][name], msg=name)


def test_a_missing_trained_parameter_is_named(trained: Path, tmp_path: Path) -> None:
    checkpoint = last(trained)
    name = next(name for name in checkpoint["geopix"]["trained"] if name.startswith("net.connector."))
    del checkpoint["state_dict"][name]
    torch.save(checkpoint, tmp_path / "less.ckpt")
    for verb in ("test", "fit"):
        said = message(verb, "--config", TINY, "--trainer.default_root_dir", tmp_path, "--ckpt_path", tmp_path / "less.ckpt", code=5)
        assert name in said
        assert "less.ckpt" in said


def test_another_shape_and_another_vocabulary_are_refused(trained: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    base = ("--config", TINY, "--trainer.default_root_dir", trained, "--ckpt_path", path)
    assert "net.decoder." in message("test", *base, "--model.net.decoder.dim", 4, code=5)
    assert "classes" in message("test", *base, "--model.net.memory.classes", "[ship, plane, harbour]", code=5)


def test_another_class_in_a_slot_is_refused(trained: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    base = ("--config", TINY, "--trainer.default_root_dir", trained, "--ckpt_path", path)
    said = message("test", *base, "--model.net.decoder", "geopix.decoders.multi_scale.MultiScaleDecoder", code=5)
    assert "geopix.decoders.dot.DotDecoder" in said
    assert "MultiScaleDecoder" in said
    assert "model.net.memory" in message("test", *base, "--model.net.memory", "null", code=5)
    assert "model.optimizer.class_path" in message("fit", *base, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.1, code=5)


@pytest.mark.parametrize("form", ["flag", "file", "last"])
def test_the_users_value_wins_over_the_checkpoints(form: str, trained: Path, tmp_path: Path) -> None:
    given = ["--model.max_new_tokens", 5]
    if form == "file":
        (tmp_path / "mine.yaml").write_text("model: {max_new_tokens: 5}\n", encoding="utf-8")
        given = ["--config", tmp_path / "mine.yaml"]
    path = "last" if form == "last" else trained / "checkpoints" / "last.ckpt"
    (tmp_path / "spy.py").write_text(SPY, encoding="utf-8")
    (tmp_path / "spy.yaml").write_text("trainer: {callbacks+: [{class_path: spy.Spy}]}\n", encoding="utf-8")
    said = tiny("test", trained, "--config", tmp_path / "spy.yaml", "--ckpt_path", path, *given)
    assert "runs with 5" in said.out
    row = next(line for line in said.err.splitlines() if "model.max_new_tokens" in line)
    assert row.split() == ["model.max_new_tokens", "8", "5"]


def test_another_size_than_in_training_is_told(trained: Path) -> None:
    said = tiny("test", trained, "--ckpt_path", "last", "--data.test.size", 96)
    row = next(line for line in said.err.splitlines() if "data.test.size" in line)
    assert row.split() == ["data.test.size", "64", "96"]


def test_another_range_of_stored_values_than_in_training_is_told(tmp_path: Path) -> None:
    talk = {"task": "vqa/count", "turns": [{"prompt": "[vqa] how many ships?", "answer": "One."}]}
    for split in ("train", "test"):
        Image.new("RGB", (64, 64), "blue" if split == "test" else "green").save(tmp_path / f"{split}.png")
    lines = [json.dumps({"image": f"{split}.png", "key": split, "split": split, "dialogues": [talk]}) for split in ("train", "test")]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def real(split: str, low: float, high: float) -> list[object]:
        words = {"path": tmp_path / "records.jsonl", "size": 64, "split": split, "low": low, "high": high}
        return [f"--data.{split}", "geopix.data.instruct.RealImages", *(each for name, value in words.items() for each in (f"--data.{split}.{name}", value))]

    one = ("--data.val", "null", "--data.samples", 6, "--trainer.callbacks", "null", "--model.net.memory", "null")
    tiny("fit", tmp_path / "run", *one, *real("train", 10, 200))
    assert last(tmp_path / "run")["geopix"]["reading"] == {"bands": None, "low": 10, "high": 200}
    said = tiny("test", tmp_path / "run", *one, "--ckpt_path", "last", *real("test", 10, 255))
    rows = [line.split() for line in said.err.splitlines() if "data.test." in line]
    assert rows == [["data.test.high", "200", "255"]]
    said = tiny("fit", tmp_path / "run", *one, "--ckpt_path", "last", *real("train", 0, 200))
    row = next(line.split() for line in said.err.splitlines() if "data.train." in line)
    assert (row[0], float(row[1]), float(row[2])) == ("data.train.low", 10, 0), "a training that goes on"


SPY = """
from lightning.pytorch import Callback

class Spy(Callback):
    def on_test_start(self, trainer, pl_module) -> None:
        print("runs with", pl_module.max_new_tokens)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        print("rates", [group["initial_lr"] for group in trainer.optimizers[0].param_groups])
"""


def test_a_resumed_run_learns_at_the_users_rate(tmp_path: Path) -> None:
    tiny("fit", tmp_path, "--trainer.max_steps", 6)
    (tmp_path / "spy.py").write_text(SPY, encoding="utf-8")
    (tmp_path / "spy.yaml").write_text("trainer: {callbacks+: [{class_path: spy.Spy}]}\n", encoding="utf-8")
    said = tiny("fit", tmp_path, "--config", tmp_path / "spy.yaml", "--ckpt_path", "last", "--model.optimizer.lr", 0.5, "--trainer.max_steps", 7)
    assert "rates [0.5, 0.5, 0.5]" in said.out
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert saved["model"]["optimizer"]["init_args"]["lr"] == 0.5


def test_a_schedules_rates_are_scaled_with_the_base_rate() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    old = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(old, 0.5)
    old.step()
    schedule.step()
    checkpoint = {"optimizer_states": [old.state_dict()], "lr_schedulers": [schedule.state_dict()]}
    use_own_options(checkpoint, torch.optim.AdamW([weight], lr=0.1, weight_decay=0.3))
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (0.05, 0.1, 0.3)
    assert checkpoint["lr_schedulers"][0]["base_lrs"] == [0.1]


def test_init_from_starts_anew_with_the_weights(trained: Path, tmp_path: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    tiny("fit", tmp_path, "--init_from", path, "--trainer.max_steps", 1, "--model.optimizer.lr", 0.0)
    checkpoint = last(tmp_path)
    assert checkpoint["global_step"] == 1
    assert checkpoint["geopix"]["stage"] == "read"
    for name in checkpoint["geopix"]["trained"]:
        torch.testing.assert_close(checkpoint["state_dict"][name], last(trained)["state_dict"][name])
    said = message("fit", "--config", TINY, "--trainer.default_root_dir", tmp_path, "--init_from", path, "--ckpt_path", path)
    assert "--init_from" in said


def test_a_run_that_trains_other_parameters_is_not_resumed(trained: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    base = ("fit", "--config", TINY, "--trainer.default_root_dir", trained, "--ckpt_path", path)
    assert "--init_from" in message(*base, "--model.net.encoder.freeze", "true", code=5)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    tiny("fit", tmp_path, "--trainer.max_steps", 1)
    said = tiny("fit", tmp_path, "--trainer.max_steps", 2)
    assert "checkpoints-1" in said.err
    assert read_checkpoint(tmp_path / "checkpoints-1" / "last.ckpt")["global_step"] == 1
    assert last(tmp_path)["global_step"] == 2
    assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))["trainer"]["max_steps"] == 2
    assert len(list((tmp_path / "logs" / "csv").glob("*/metrics.csv"))) == 2


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_nothing_is_measured_on_random_weights(verb: str, tmp_path: Path) -> None:
    assert "--allow_random" in message(verb, "--config", TINY, "--trainer.default_root_dir", tmp_path, code=5)


def test_chance_is_measured_when_asked_for(tmp_path: Path) -> None:
    assert "single/giou" in tiny("validate", tmp_path, "--allow_random", "true").out


def test_no_last_checkpoint(tmp_path: Path) -> None:
    said = message("test", "--config", TINY, "--trainer.default_root_dir", tmp_path, "--ckpt_path", "last", code=5)
    assert str(tmp_path / "checkpoints" / "last.ckpt") in said


def test_files_that_are_no_checkpoint(trained: Path, tmp_path: Path) -> None:
    whole = (trained / "checkpoints" / "last.ckpt").read_bytes()
    files = {
        "pointer.ckpt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 346000000\n", "git-lfs pointer"),
        "page.ckpt": (b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", "web page"),
        "cut.ckpt": (whole[: len(whole) // 2], "end too early or are damaged"),
        "empty.ckpt": (b"", "empty"),
        "words.ckpt": (b"hello, I am a text file", "cannot be read"),
        "foreign.ckpt": (pickle.dumps(Path("x")), "holds Python objects"),
    }
    for name, (content, expected) in files.items():
        (tmp_path / name).write_bytes(content)
        assert expected in message("test", "--config", TINY, "--ckpt_path", tmp_path / name, code=5), name
    torch.save({"state_dict": {}, "hyper_parameters": {"loss": Path("x")}}, tmp_path / "objects.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="pathlib"):
        read_checkpoint(tmp_path / "objects.ckpt")
    with pytest.raises(CheckpointError, match="no geopix checkpoint"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"did you mean .*cut\.ckpt"):
        read_checkpoint(tmp_path / "cutt.ckpt")


def test_a_saved_configuration_serves_every_verb(trained: Path) -> None:
    said = geopix("test", "--config", trained / "config.yaml", "--ckpt_path", "last")
    assert said.code == 0, said.err
    assert "single/giou" in said.out


def test_a_checkpoint_holds_no_frozen_matrix_under_a_second_name() -> None:
    net = parts.model()
    net.llm = HFLanguageModel({**parts.LLAMA, "tie_word_embeddings": True}, tokenizer=parts.tokenizer(), lora=LoRA(targets=("q_proj",), rank=2))
    task = GeoPixTask(net)
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    rows = net.llm.lm.get_input_embeddings().weight.shape
    assert not [name for name, value in checkpoint["state_dict"].items() if getattr(value, "shape", None) == rows]
