"""From answers to numbers: masks at the image's own size, grouped by what was asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from geopix.data.frame import to_own_frame
from geopix.metrics.boxes import BoxAccuracy
from geopix.metrics.caption import RougeL
from geopix.metrics.masks import MaskIoU, Refusal, drew_something, score_dialogue
from geopix.metrics.vqa import VQAAccuracy
from geopix.rle import decode_rle
from geopix.types import RLE, Batch, Prediction

SEGMENT_KINDS = ("single", "multi", "group", "followup")
FAMILIES = ("segment", "refer", "caption", "vqa")
VQA_KINDS = (
    "presence", "count", "compare", "colour", "area", "rural_urban", "position", "category", "shape", "size", "direction", "scene", "reasoning", "open",
)  # fmt: skip


class Scores(nn.Module):
    """Every score of free answers, summed over ranks. Names are ``kind/score``; what was never asked is left out.

    - ``single``, ``multi``, ``group``, ``followup``: masks (:class:`geopix.metrics.masks.MaskIoU`).
    - ``absent``: ``n_acc`` over questions about what is not there, ``t_acc`` over all that ask for masks (:class:`geopix.metrics.masks.Refusal`).
    - ``vqa``, ``box``, ``caption``: words and boxes in text.
    - ``control``: gIoU of single references when the question is asked about another image, and of the union of the target's class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.masks = nn.ModuleDict({kind: MaskIoU() for kind in SEGMENT_KINDS})
        self.absent = Refusal()
        self.vqa = VQAAccuracy(VQA_KINDS)
        self.boxes = BoxAccuracy()
        self.captions = RougeL()
        self.shuffled = MaskIoU()
        self.unions = MaskIoU()

    def reset(self) -> None:
        """Forget everything counted so far."""
        for metric in self._metrics().values():
            metric.reset()

    def _metrics(self) -> dict[str, MaskIoU | Refusal | VQAAccuracy | BoxAccuracy | RougeL]:
        masks = {kind: self.masks[kind] for kind in SEGMENT_KINDS}
        rest = {"absent": self.absent, "vqa": self.vqa, "box": self.boxes, "caption": self.captions}
        return {**masks, **rest, "control/shuffled": self.shuffled, "control/class_union": self.unions}  # type: ignore[dict-item]

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Count the answers to a batch.

        Raises:
            ValueError: for a task that has no score here, rather than leaving it out without a word.
        """
        truth = own_truth(batch, batch.truth)
        for row, (task, drawn) in enumerate(zip(batch.tasks, own_masks(batch, prediction), strict=True)):
            family, _, kind = task.partition("/")
            if family not in FAMILIES or (family == "segment" and kind not in (*SEGMENT_KINDS, "absent")):
                raise ValueError(
                    f"the task {task!r} of {batch.keys[int(batch.image_index[row])]} has no score; expected segment/({', '.join((*SEGMENT_KINDS, 'absent'))}), "
                    "or a kind of refer, caption or vqa. Rename it in the data."
                )
            given, expected = prediction.answers[row][-1], batch.dialogues[row][-1].answer
            if family == "segment":
                self.absent.update(torch.tensor([bool(truth[row])]), torch.tensor([drew_something(drawn)]))
                if kind != "absent":
                    masks = self.masks[kind]
                    assert isinstance(masks, MaskIoU)
                    masks.update(*score_dialogue(drawn, truth[row]))
            elif family == "vqa":
                self.vqa.update([kind], [given], [expected])
            elif family == "refer":
                self.boxes.update([given], [expected])
            elif family == "caption":
                self.captions.update([given], [expected])
        if batch.unions is not None:
            for row, unions in enumerate(own_truth(batch, batch.unions)):
                if batch.tasks[row] == "segment/single":
                    self.unions.update(*score_dialogue(unions, truth[row]))

    def update_shuffled(self, batch: Batch, prediction: Prediction) -> None:
        """Count the masks of single references that were asked about another image."""
        truth = own_truth(batch, batch.truth)
        for row, drawn in enumerate(own_masks(batch, prediction)):
            if batch.tasks[row] == "segment/single":
                self.shuffled.update(*score_dialogue(drawn, truth[row]))

    def compute(self) -> dict[str, float]:
        """The scores of all ranks; a score without anything to count is left out."""
        scores: dict[str, float] = {}
        for family, metric in self._metrics().items():
            computed = metric.compute()
            for name, value in computed.items():
                full = f"{family}_{name}" if family.startswith("control/") else f"{family}/{name}"
                scores[full] = float(value)
        kept = {name: value for name, value in scores.items() if value == value and not (value == 0 and name.endswith("_num"))}
        return {name: value for name, value in kept.items() if not name.startswith("control/") or name.endswith("_giou")}


def own_masks(batch: Batch, prediction: Prediction) -> list[list[Bool[Tensor, "_ _"]]]:
    """The masks drawn in each dialogue, at its image's own size, on the CPU."""
    drawing = prediction.drawing
    logits, owners = drawing.mask_logits.float().cpu(), drawing.dialogue_index.tolist()
    masks: list[list[Tensor]] = [[] for _ in batch.dialogues]
    for row in sorted(set(owners)):
        frame = batch.frames[int(batch.image_index[row])]
        own = to_own_frame(logits[[index for index, owner in enumerate(owners) if owner == row]], frame)
        masks[row] = list(own > 0)
    return masks


def own_truth(batch: Batch, encoded: Sequence[RLE] | None) -> list[list[Bool[Tensor, "_ _"]]]:
    """The true masks of each dialogue at its image's own size.

    Raises:
        ValueError: for a batch that was not prepared for evaluation.
    """
    if encoded is None:
        raise ValueError(f"the batch {batch.keys[:3]} has no true masks at the images' own size, so it cannot be scored; read it with truth=True.")
    masks: list[list[Tensor]] = [[] for _ in batch.dialogues]
    for owner, mask in zip(batch.dialogue_index.tolist(), encoded, strict=True):
        masks[owner].append(decode_rle(mask))
    return masks
