"""Scores of free answers over all ranks, batch by batch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geopix.data.frame import to_own_frame
from geopix.evaluation.groups import Table, tabulate
from geopix.evaluation.names import is_detail
from geopix.evaluation.numbers import numbers
from geopix.evaluation.outcome import Outcome, Question, judge, pixel_counts, questions
from geopix.evaluation.protocols import PROTOCOLS, ProtocolName
from geopix.evaluation.ranks import everywhere
from geopix.metrics.pixels import score_dialogue
from geopix.types import Batch, Prediction


class Scores:
    """Outcomes of every dialogue so far, and their scores over all ranks (:func:`geopix.evaluation.groups.tabulate`).

    Two controls stand beside the masks of single references: ``control/shuffled_giou``, the same question asked about another image, and
    ``control/class_union_giou``, the union of everything of the target's class as the answer.

    Args:
        protocol: the rule.
        keep: keep the masks that were drawn.

    Attributes:
        outcomes: of this rank.
        gathered, table: of all ranks, and what was counted, as :meth:`compute` left them.
    """

    def __init__(self, protocol: ProtocolName = "generate", *, keep: bool = False) -> None:
        self.protocol, self.keep = PROTOCOLS[protocol], keep
        self.outcomes: list[Outcome] = []
        self.gathered: list[Outcome] = []
        self.table: Table | None = None
        self.latest = 0
        self._asked: list[Question] = []

    def reset(self) -> None:
        """Forget everything counted so far."""
        self.outcomes, self.gathered, self.table, self.latest = [], [], None, 0

    @property
    def fresh(self) -> list[Outcome]:
        """Outcomes of the last batch."""
        return self.outcomes[len(self.outcomes) - self.latest :]

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Count the answers to a batch.

        Raises:
            ValueError: for a task that has no score, rather than leaving it out without a word.
        """
        self._asked = asked = questions(batch)
        drawn = own_logits(batch, prediction)
        drawing = prediction.drawing
        for row, question in enumerate(asked):
            here = (drawing.dialogue_index == row).cpu()
            quality = drawing.quality.float().cpu()[here].tolist() if drawing.quality is not None else ()
            presence = drawing.presence.float().sigmoid().cpu()[here].tolist() if drawing.presence is not None else ()
            answers = prediction.answers[row]
            self.outcomes.append(judge(question, answers, drawn[row], self.protocol, quality=quality, presence=presence, keep=self.keep))
        self.latest = len(asked)

    def update_shuffled(self, batch: Batch, prediction: Prediction) -> None:
        """Add to the last batch the masks of single references that were asked about another image."""
        drawn = own_logits(batch, prediction)
        start = len(self.outcomes) - self.latest
        for row, question in enumerate(self._asked):
            if question.task == "segment/single":
                counts = pixel_counts(*score_dialogue(list(drawn[row] > 0), list(question.truth)))
                self.outcomes[start + row] = replace(self.outcomes[start + row], shuffled=counts)

    def place(self, positions: Mapping[str, int]) -> None:
        """Add to the last batch where in its source each image stands, by its key."""
        start = len(self.outcomes) - self.latest
        self.outcomes[start:] = [replace(outcome, position=positions[outcome.image]) for outcome in self.fresh]

    def compute(self) -> dict[str, float]:
        """The scores of all ranks; a score without anything to count is left out, and so are those by class and size, which a test writes down."""
        self.gathered = gathered(self.outcomes)
        self.table = tabulate(self.gathered, self.protocol)
        found = numbers(self.table, self.protocol)
        return {name: value for name, value in found.items() if not is_detail(name)}


def gathered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes of all ranks in one order that no cutting into ranks and batches changes; what was scored twice is kept once."""
    found = {outcome.key: outcome for part in everywhere(list(outcomes)) for outcome in part}
    return sorted(found.values(), key=lambda outcome: [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", outcome.key)])


def own_logits(batch: Batch, prediction: Prediction) -> list[Float[Tensor, "m h w"]]:
    """The mask logits of each dialogue, at its image's own size, on the CPU."""
    drawing = prediction.drawing
    logits, owners = drawing.mask_logits.float().cpu(), drawing.dialogue_index.tolist()
    frames = [batch.frames[image] for image in batch.image_index.tolist()]
    masks: list[Tensor] = [torch.zeros(0, frame.height, frame.width) for frame in frames]
    for row in sorted(set(owners)):
        masks[row] = to_own_frame(logits[[index for index, owner in enumerate(owners) if owner == row]], frames[row])
    return masks


def own_masks(batch: Batch, prediction: Prediction) -> list[list[Bool[Tensor, "_ _"]]]:
    """The masks drawn in each dialogue, at its image's own size, on the CPU."""
    return [list(logits > 0) for logits in own_logits(batch, prediction)]
