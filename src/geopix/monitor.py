"""What a run leaves for a person to look at: pictures of answers, and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from geopix.curriculum import Curriculum
from geopix.data.module import GeoPixData
from geopix.evaluation.names import is_count
from geopix.evaluation.outcome import own_truth
from geopix.evaluation.scores import own_masks
from geopix.pictures import contact_sheet, curves, panel, to_rgb
from geopix.types import Batch, Prediction


class AnswerPictures(Callback):
    """Pictures of asked, truth and drawn: the first dialogues of each validation and test, as PNG in the run folder and in TensorBoard.

    Args:
        count: how many dialogues to show.
        every: of all dialogues about an image, show every so many, so that tasks vary.
    """

    def __init__(self, count: int = 12, every: int = 3) -> None:
        self.count, self.every = count, every
        self._panels: list[np.ndarray] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw what is still wanted."""
        self._draw(batch, outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Draw what is still wanted."""
        self._draw(batch, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the sheet of this validation."""
        self._write(trainer, f"val-{trainer.global_step:06d}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the sheet of this test."""
        self._write(trainer, "test")

    def _draw(self, batch: Batch, prediction: Prediction) -> None:
        wanted = self.count - len(self._panels)
        if wanted <= 0:
            return
        drawn, truth = own_masks(batch, prediction), own_truth(batch, batch.truth)
        for row in range(0, len(batch.dialogues), self.every)[:wanted]:
            image = int(batch.image_index[row])
            frame = batch.frames[image]
            rgb = to_rgb(_own_image(batch, image))
            question = " / ".join(turn.prompt for turn in batch.dialogues[row])
            expected = " / ".join(turn.answer for turn in batch.dialogues[row])
            masks = [np.stack([mask.numpy() for mask in each]) if each else np.zeros((0, frame.height, frame.width), bool) for each in (truth[row], drawn[row])]
            self._panels.append(panel(rgb, question, masks[0], masks[1], " / ".join(prediction.answers[row]), expected))

    def _write(self, trainer: Trainer, name: str) -> None:
        panels, self._panels = self._panels, []
        if not panels or not trainer.is_global_zero or trainer.sanity_checking:
            return
        sheet = contact_sheet(panels, columns=2)
        path = Path(trainer.default_root_dir) / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        from PIL import Image

        Image.fromarray(sheet).save(path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("answers", sheet, trainer.global_step, dataformats="HWC")


def _own_image(batch: Batch, index: int) -> np.ndarray:
    """The image without its letterbox, on the CPU, at the canvas's resolution brought to the image's own size."""
    frame = batch.frames[index]
    rows, columns = max(1, round(frame.height * frame.scale)), max(1, round(frame.width * frame.scale))
    image = batch.images[index].float().cpu()[None, :, frame.top : frame.top + rows, frame.left : frame.left + columns]
    if (rows, columns) != (frame.height, frame.width):
        image = torch.nn.functional.interpolate(image, (frame.height, frame.width), mode="bilinear", align_corners=False)
    return image[0].numpy()


class Curves(Callback):
    """Losses and validation scores over the training, as one PNG in the run folder. Its history is in the checkpoint, so a resumed run goes on.

    Args:
        every: steps between two points of a training curve.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self.history: dict[str, list[tuple[int, float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The points so far."""
        return {"history": {name: [list(point) for point in points] for name, points in self.history.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the points of a checkpoint."""
        self.history = {name: [(int(step), float(value)) for step, value in points] for name, points in state_dict["history"].items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the losses."""
        if trainer.global_step % self.every == 0 and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._note(trainer, "train/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the scores and draw."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._note(trainer, "val/")
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the whole."""
        self._draw(trainer)

    def _note(self, trainer: Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix) and not is_count(name):
                self.history.setdefault(name, []).append((trainer.global_step, float(value)))

    def _draw(self, trainer: Trainer) -> None:
        if not self.history or not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "curves.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        curves(self.history, path, marks=_stage_marks(trainer))


def _stage_marks(trainer: Trainer) -> list[tuple[int, str]]:
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, GeoPixData):
        return []
    step = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    return [
        (start // step, stage.name)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, Curriculum)
        for start, stage in zip(callback.starts, callback.stages, strict=True)
    ]
