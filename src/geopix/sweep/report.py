"""How a trial's training goes, in two small files of its folder that the sweep reads."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from geopix import __version__
from geopix.sweep.folder import FITTED, VALIDATIONS, read_validations, replace


class TrialReport(Callback):
    """``validations.jsonl`` with the scores of each validation, and ``fitted.json`` when a training has come to its end.

    Both hold the step and the seconds of training so far; those up to the checkpoint that a training was resumed from are counted. ``fitted.json`` also
    says how many parameters there are and are trained, on which kind of device, and the versions.
    """

    def __init__(self) -> None:
        self._before, self._since = 0.0, 0.0

    def state_dict(self) -> dict[str, float]:
        """The seconds so far, which a checkpoint holds."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from the seconds of a checkpoint."""
        self._before = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on where the checkpoint stands; what was noted after it is forgotten."""
        self._since = time.monotonic()
        if not trainer.is_global_zero:
            return
        folder = _folder(trainer)
        (folder / FITTED).unlink(missing_ok=True)
        kept = [line for line in read_validations(folder) if line["step"] <= trainer.global_step]
        replace(folder / VALIDATIONS, "".join(json.dumps(line) + "\n" for line in kept))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the scores."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        scores = {name: round(float(value), 5) for name, value in sorted(trainer.callback_metrics.items()) if name.startswith("val/")}
        with (_folder(trainer) / VALIDATIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": trainer.global_step, "seconds": self._seconds(), "metrics": scores}) + "\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the training is whole, and what it was."""
        if not trainer.is_global_zero:
            return
        sizes = [parameter.numel() for parameter in pl_module.parameters()]
        trained = [parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad]
        said: dict[str, Any] = {
            "step": trainer.global_step,
            "seconds": self._seconds(),
            "parameters": sum(sizes),
            "trained": sum(trained),
            "device": f"{trainer.world_size} x {trainer.strategy.root_device.type}",
            "versions": {"geopix": __version__, "python": platform.python_version(), **{name: version(name) for name in ("torch", "lightning")}},
        }
        replace(_folder(trainer) / FITTED, json.dumps(said, indent=2) + "\n")

    def _seconds(self) -> float:
        return round(self._before + time.monotonic() - self._since, 1)


def _folder(trainer: Trainer) -> Path:
    folder = Path(trainer.default_root_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
