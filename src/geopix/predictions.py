"""What ``geopix predict`` does with each answer: it is written to a folder at once and not kept in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from geopix.data.ask import TAG
from geopix.data.frame import to_own_frame
from geopix.data.images import Original
from geopix.data.module import GeoPixData
from geopix.evaluation.scores import own_logits
from geopix.outputs import Answered, AnswerWriter, Score, split_turns
from geopix.pictures import to_rgb
from geopix.task import GeoPixTask
from geopix.types import SEG, Batch, Drawing, Prediction


@runtime_checkable
class Originals(Protocol):
    """A source that still has its images at their own size."""

    def original(self, key: str) -> Original: ...


class WritePredictions(Callback):
    """Writes every answer of ``predict``, image by image (see :class:`geopix.outputs.AnswerWriter`), and says at the end how many drew nothing.

    Where an image has no data, nothing is drawn. Nothing is kept in memory: ``Trainer.predict`` returns None where this callback writes. With several
    ranks each writes to a folder of its own, ``rank-0``, ``rank-1`` and so on.

    Args:
        output: the folder; ``predictions`` in the run folder by default.
        overwrite: replace the answers of an earlier run in that folder.
        bands: which of the bands that the model reads are shown in pictures, as red, green and blue or as one grey, the first being 1; the first
            three, or the first, by default.
        stretch: two percentiles between which each shown band is stretched in pictures, such as [2, 98] for dark data; not stretched by default.
    """

    def __init__(
        self, output: Path | None = None, overwrite: bool = False, bands: list[int] | None = None, stretch: tuple[float | int, float | int] | None = None
    ) -> None:
        self.output, self.overwrite = output, overwrite
        self.bands, self.stretch = bands, stretch
        self._writer: AnswerWriter | None = None
        self._start()

    def _start(self) -> None:
        self._images = 0
        self._wanted: Counter[str] = Counter()
        self._emptied: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare the bands of the images with those that the model reads.

        Raises:
            ValueError: when they differ.
        """
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "predict" or not isinstance(data, GeoPixData) or not isinstance(pl_module, GeoPixTask):
            return
        source, reads = data.sources["predict"], pl_module.net.encoder.bands
        if source is not None and isinstance(source, Originals) and source.bands != reads:
            chosen = [min(band, source.bands) for band in range(1, reads + 1)]
            raise ValueError(
                f"{source.original(source.sample(0).key).path} gives {source.bands} band(s), but the model reads {reads}. "
                f"Name those that mean what it was trained with, in its order, the first being 1, such as --data.predict.bands '{chosen}'."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the folder, before anything is computed."""
        folder = self.output if self.output is not None else Path(trainer.default_root_dir) / "predictions"
        folder = folder / f"rank-{trainer.global_rank}" if trainer.world_size > 1 else folder
        self._writer = AnswerWriter(folder, overwrite=self.overwrite)
        self._start()
        trainer.predict_loop.return_predictions = False

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Write the answers to a batch."""
        assert self._writer is not None
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        source = data.sources["predict"] if isinstance(data, GeoPixData) else None
        owners = batch.image_index.tolist()
        for image, key in enumerate(batch.keys):
            rows = [row for row, owner in enumerate(owners) if owner == image]
            # One image at a time: masks at the image's own size may be large.
            drawn = _only(outputs, rows)
            logits = own_logits(batch, drawn)
            path, values, valid = self._original(source, batch, image)
            answered: list[Answered] = []
            for row in rows:
                prompts = [turn.prompt for turn in batch.dialogues[row]]
                scores = _scores(drawn.drawing, row, logits[row], valid)
                given = split_turns(prompts, outputs.answers[row], (logits[row] > 0) & valid, scores)
                answered += [replace(one, labels=_labels(one)) for one in given]
                self._wanted.update(one.status for one in given if batch.tasks[row].startswith("segment/"))
                self._emptied += [score["probability"] for one in given for mask, score in zip(one.masks, one.scores, strict=True) if not mask.any()]
            shown = to_rgb(values, None if self.bands is None else [band - 1 for band in self.bands], stretch=self.stretch)
            place = batch.georeferences[image] if batch.georeferences else None
            self._writer.write(key, shown, answered, source=path, georeference=place)
            self._images += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was written, and where."""
        assert self._writer is not None
        print("\n" + summary(self._images, self._writer.counts, self._wanted, self._emptied))
        print(f"{'answers':9}{self._writer.folder}")

    def _original(self, source: object, batch: Batch, image: int) -> tuple[Path | None, Float32[np.ndarray, "c h w"], Bool[Tensor, "h w"]]:
        """The image at its own size and where it has data: from its file, or else from what the model saw."""
        if isinstance(source, Originals):
            original = source.original(batch.keys[image])
            return original.path, original.values, torch.from_numpy(original.valid.copy())
        values = to_own_frame(batch.images[image].float().cpu(), batch.frames[image])
        return None, values.numpy(), torch.ones(values.shape[1:], dtype=torch.bool)


def summary(images: int, counts: Counter[Any], wanted: Counter[str], emptied: Sequence[float] = ()) -> str:
    """In words, how many answers there are and how many of those that should have masks have none.

    Args:
        images: how many were asked about.
        counts: all answers by status, see :class:`geopix.outputs.AnswerWriter`.
        wanted: the same for questions that ask for masks.
        emptied: the highest probability in each mask that holds no pixel.
    """
    said = f"{counts.total()} answer(s) about {images} image(s), {counts['ok']} with masks."
    if emptied:
        said += f"\n{len(emptied)} mask(s) are empty: no pixel is more likely inside than outside; the highest probability in them is {max(emptied):.3g}."
        if zero := sum(not highest for highest in emptied):
            said += f" {zero} of them with 0: emptied by the decoder's own rule (model.net.decoder.evidence), or the image has no data."
    without, asked = wanted["no_mask"] + wanted["empty_mask"], wanted.total()
    if not without:
        return said
    said += f"\n{without} of {asked} answers to questions for masks lack one: {wanted['no_mask']} without {SEG}, {wanted['empty_mask']} with an empty mask."
    if 2 * without > asked and wanted["no_mask"]:
        said += f"\nWithout {SEG} the model says that it is not there, does not know the words, or was not trained to write it; the answers' text tells which."
    return said


def _only(prediction: Prediction, rows: list[int]) -> Prediction:
    """A prediction with the masks of some of its dialogues."""
    drawing = prediction.drawing
    kept = torch.isin(drawing.dialogue_index, drawing.dialogue_index.new_tensor(rows))
    presence, quality = (None if stated is None else stated[kept] for stated in (drawing.presence, drawing.quality))
    return replace(prediction, drawing=Drawing(drawing.mask_logits[kept], drawing.dialogue_index[kept], presence=presence, quality=quality))


def _scores(drawing: Drawing, row: int, logits: Float[Tensor, "m h w"], valid: Bool[Tensor, "h w"]) -> list[Score]:
    """How sure the model is of each mask of a dialogue."""
    here = drawing.dialogue_index == row
    stated = {"probability": [float(mask[valid].max().sigmoid()) if valid.any() else 0.0 for mask in logits]}
    if drawing.presence is not None:
        stated["presence"] = drawing.presence[here].float().sigmoid().tolist()
    if drawing.quality is not None:
        stated["quality"] = drawing.quality[here].float().tolist()
    return [{name: float(f"{values[index]:.4g}") for name, values in stated.items()} for index in range(len(logits))]


def _labels(answered: Answered) -> tuple[str, ...]:
    """The prompt without its task's tag, numbered where it has several masks."""
    tag = TAG.match(answered.prompt)
    return replace(answered, prompt=answered.prompt[tag.end() if tag else 0 :].strip()).names
