"""What the command line adds to every training: the last checkpoint, and the configuration that was run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import SaveConfigCallback

from geopix.curriculum import Curriculum
from geopix.data.module import GeoPixData


class LastCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt`` in the run folder: after each validation, where a training stops, and every so many steps.

    A fit that does not resume from this folder's own checkpoints first moves them to ``checkpoints-1`` (or the next free number).

    Args:
        every_n_train_steps: also save after every so many optimizer steps.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        self.every_n_train_steps = every_n_train_steps
        self.reading: Mapping[str, Any] | None = None
        """What the configuration says of how the training images are read: bands, and the values that mean 0 and 1."""
        self._saved = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put what another run left out of the way.

        Raises:
            ValueError: when validations, and with them checkpoints, would fall between the batches of one optimizer step: no resumed run would equal this one.
        """
        batches, together = trainer.val_check_batch or float("inf"), trainer.accumulate_grad_batches
        if batches < trainer.num_training_batches and batches % together and trainer.enable_validation and sum(trainer.num_val_batches):
            fits = min(max(1, round(batches / together)), trainer.num_training_batches // together) * together
            raise ValueError(
                f"trainer.val_check_interval {trainer.val_check_interval} is {batches} batches, no whole number of optimizer steps of {together} "
                f"(accumulate_grad_batches); the checkpoint after a validation would hold half a step. Take {fits or 1.0}."
            )
        self._saved, folder = trainer.global_step, self._folder(trainer)
        resumed = trainer.ckpt_path is not None and folder.resolve() in Path(trainer.ckpt_path).resolve().parents
        if trainer.is_global_zero and not trainer.fast_dev_run and not resumed and folder.is_dir() and any(folder.iterdir()):
            number = next(number for number in range(1, 10_000) if not folder.with_name(f"checkpoints-{number}").exists())
            kept = folder.rename(folder.with_name(f"checkpoints-{number}"))
            print(f"geopix: the checkpoints of the run before in this folder are now in {kept}", file=sys.stderr)
        trainer.strategy.barrier("checkpoints")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save when it is time, and before a training stops short of its epoch's end."""
        due = bool(self.every_n_train_steps) and trainer.global_step % (self.every_n_train_steps or 1) == 0
        if due or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how far the training is (samples seen over all ranks, stage of the curriculum), and the size and reading of its images."""
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, GeoPixData):
            return
        samples = trainer.fit_loop.epoch_loop.batch_progress.total.processed * data.batch_size * trainer.world_size
        led = [each for each in trainer.callbacks if isinstance(each, Curriculum)]  # type: ignore[attr-defined]
        stage = led[0].stages[led[0].where(samples)[0]].name if led else None
        size = getattr(data.sources["train"], "size", None)
        said = {"samples": samples, "stage": stage, "batch_size": data.batch_size, "size": size, "reading": self.reading}
        checkpoint["geopix"] = {**said, **checkpoint.get("geopix", {})}

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved and not trainer.fast_dev_run:
            whole, part = self._folder(trainer) / "last.ckpt", self._folder(trainer) / "last.ckpt.part"
            trainer.save_checkpoint(part, weights_only=False)
            if trainer.is_global_zero:
                os.replace(part, whole)  # Lightning copies from the temporary folder; a run killed meanwhile keeps the checkpoint before
            self._saved = trainer.global_step

    def _folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"


class SaveConfig(SaveConfigCallback):
    """``config.yaml`` of a training in its run folder: everything expanded; a later training overwrites it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it."""
        if stage == "fit" and trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / "config.yaml", skip_none=False, overwrite=True, multifile=False)
