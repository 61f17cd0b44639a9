"""A sweep of two tiny trainings with their tests, through the real command line."""

import csv
import itertools
import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from geopix.sweep import report
from geopix.sweep.folder import read_validations
from tests.commands import TINY, geopix


class Line(LightningModule):
    """A training that takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        return self.line(batch).sum()

    def validation_step(self, batch):
        self.log("val/score", self.line(batch).sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.ones(8, 1))

    def val_dataloader(self):
        return DataLoader(torch.ones(1, 1))


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*resuming from a checkpoint", "ignore:.*Checkpoint directory")
def test_a_resumed_training_counts_the_time_before_and_forgets_what_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10.0)
    monkeypatch.setattr(report.time, "monotonic", lambda: next(clock))
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}

    def train(steps: int, resumed: Path | None = None) -> Trainer:
        trainer = Trainer(max_steps=steps, val_check_interval=2, num_sanity_val_steps=0, default_root_dir=tmp_path, callbacks=[report.TrialReport()], **quiet)
        trainer.fit(Line(), ckpt_path=resumed, weights_only=True)
        return trainer

    train(2).save_checkpoint(tmp_path / "early.ckpt")
    before = json.loads((tmp_path / "fitted.json").read_text())["seconds"]
    assert before > 0
    train(6, tmp_path / "early.ckpt")
    assert [line["step"] for line in read_validations(tmp_path)] == [2, 4, 6]
    train(4, tmp_path / "early.ckpt")
    fitted = json.loads((tmp_path / "fitted.json").read_text())
    assert [line["step"] for line in read_validations(tmp_path)] == [2, 4], "steps 5 and 6 are of another attempt"
    assert (fitted["step"], fitted["parameters"], fitted["trained"], fitted["device"]) == (4, 2, 2, "1 x cpu")
    assert fitted["seconds"] > before + 10


def test_a_sweep_trains_tests_and_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    args = ["sweep", "--config", TINY, "--vary", "model.net.memory", "null", "geopix.memory.classwise.ClasswiseMemory", "--output", tmp_path, "--jobs", 2]
    said = geopix(*args, "--max_steps", 4)
    assert said.code == 0, said.err
    with (tmp_path / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["memory"], row["state"], row["steps"]) for row in rows] == [("null", "done", "4"), ("ClasswiseMemory", "done", "4")]
    assert int(rows[0]["parameters"]) < int(rows[1]["parameters"])
    assert "2 of 2 trials ended. Measured: test." in said.out
    for name in ("memory=null", "memory=ClasswiseMemory"):
        folder, result = tmp_path / name, json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        tested = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        assert tested
        assert result["metrics"] == tested
        assert [line["step"] for line in result["validations"]] == [3]
        assert result["versions"].keys() == {"geopix", "python", "torch", "lightning"}
        trial, saved = (yaml.safe_load((folder / file).read_text(encoding="utf-8")) for file in ("trial.yaml", "config.yaml"))
        assert trial == saved, "fit runs what the sweep wrote, and saves it"
    assert "0 of 2 trials are to be run" in geopix(*args, "--max_steps", 4).out
