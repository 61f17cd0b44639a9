"""What became of one dialogue: the answer, and for each mask the pixels that it shares with the truth. All scores are counted from these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from geopix.evaluation.protocols import Protocol
from geopix.metrics.grounded import assigned_ious, matched_at_half
from geopix.metrics.pixels import boundary_iou, drew_something, score_dialogue, score_matched
from geopix.rle import decode_rle, encode_rle
from geopix.types import RLE, SEG, Batch

FAMILIES = ("segment", "refer", "caption", "vqa")
SEGMENT_KINDS = ("single", "multi", "group", "followup", "grounded")
Counts = tuple[tuple[int, int], ...]
"""Pixels of intersection and union, pair by pair."""


@dataclass(frozen=True)
class Question:
    """One dialogue as a benchmark asks it, with its truth.

    Args:
        key: unique; the image's key, ``#``, and the number of the dialogue, from 0.
        image: the image's key.
        task: ``family/kind``.
        size: rows and columns of the image.
        prompts, expected: questions and true answers, turn by turn.
        references: all true answers to the last turn.
        truth: true masks at the image's own size.
        names: their classes, as far as they are known.
        unions: for each mask, everything of its class in the image; empty where that is not known.
        encoded: the true masks as counts of COCO RLE, where they came so.
    """

    key: str
    image: str
    task: str
    size: tuple[int, int]
    prompts: tuple[str, ...]
    expected: tuple[str, ...]
    references: tuple[str, ...]
    truth: tuple[Bool[Tensor, "h w"], ...]
    names: tuple[str | None, ...]
    unions: tuple[Bool[Tensor, "h w"], ...] = ()
    encoded: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of all that is asked and true."""
        masks = self.encoded or [encode_rle(mask)["counts"] for mask in self.truth]
        return hashlib.sha256(json.dumps([self.task, self.size, self.prompts, self.expected, self.references, masks]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pair:
    """A mask that was drawn and the true one in its place, or either of them alone.

    Args:
        intersection, union: pixels, as :func:`geopix.metrics.pixels.score_dialogue` counts them.
        area: pixels of the true mask; None for a mask that nobody asked for.
        boundary: intersection and union of the pixels near an outline.
        name: class of the true thing, where the data says so.
        quality: the IoU that the decoder expects of the mask it drew.
    """

    intersection: int
    union: int
    area: int | None
    boundary: tuple[int, int]
    name: str | None = None
    quality: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A question and what was made of it; fields beside those of :class:`Question` are

    Args:
        answers: turn by turn.
        digest: of the question with its truth.
        drew: whether a pixel was drawn.
        targets: true masks.
        written: ``[SEG]`` in the answers; None where a program drew masks without writing any.
        pairs: masks in the order of the question.
        matched: pixels of intersection and union by the best assignment, where there are several masks.
        grounded: the IoU of each mask that was drawn with the true one assigned to it, for grounded conversations.
        hits: which of them AP50 counts as found.
        presence: probability of each mask, by the decoder, that its thing is there.
        shuffled, union: controls, see :class:`geopix.evaluation.scores.Scores`.
        drawn: the masks at the image's own size, where they are kept.
        position: of the image in its source; -1 where it is not known.
    """

    key: str
    image: str
    task: str
    size: tuple[int, int]
    prompts: tuple[str, ...]
    expected: tuple[str, ...]
    references: tuple[str, ...]
    digest: str
    answers: tuple[str, ...]
    drew: bool
    targets: int
    written: int | None
    pairs: tuple[Pair, ...]
    matched: Counts = ()
    grounded: tuple[float, ...] = ()
    hits: tuple[bool, ...] = ()
    presence: tuple[float, ...] = ()
    shuffled: Counts = ()
    union: Counts = ()
    drawn: tuple[RLE, ...] = ()
    position: int = -1

    @property
    def family(self) -> str:
        """The task's first part."""
        return self.task.partition("/")[0]

    @property
    def kind(self) -> str:
        """The task's second part."""
        return self.task.partition("/")[2]

    def as_json(self) -> dict[str, Any]:
        """For a line of JSON; :func:`from_json` reads it."""
        return asdict(self)


def from_json(given: Mapping[str, Any]) -> Outcome:
    """An outcome from its line."""
    lists = {name: tuple(given[name]) for name in ("size", "prompts", "answers", "expected", "references", "grounded", "hits", "presence", "drawn")}
    counts = {name: tuple((int(one), int(other)) for one, other in given[name]) for name in ("matched", "shuffled", "union")}
    pairs = tuple(Pair(**{**pair, "boundary": tuple(pair["boundary"])}) for pair in given["pairs"])
    return Outcome(**{**given, **lists, **counts, "pairs": pairs})


def questions(batch: Batch) -> list[Question]:
    """The dialogues of a batch with their truth at the images' own size.

    Raises:
        ValueError: for a batch that was not prepared for evaluation, or a task that has no score here, rather than leaving it out without a word.
    """
    truth, unions = own_truth(batch, batch.truth), own_truth(batch, batch.unions) if batch.unions is not None else [[]] * len(batch.dialogues)
    names: list[list[str | None]] = [[] for _ in batch.dialogues]
    codes: list[list[str]] = [[] for _ in batch.dialogues]
    for owner, name, mask in zip(batch.dialogue_index.tolist(), batch.classes, batch.truth or (), strict=True):
        names[owner].append(name)
        codes[owner].append(mask["counts"])
    asked, counted = [], dict.fromkeys(batch.keys, 0)
    for row, (task, turns) in enumerate(zip(batch.tasks, batch.dialogues, strict=True)):
        image, frame = batch.keys[int(batch.image_index[row])], batch.frames[int(batch.image_index[row])]
        family, _, kind = task.partition("/")
        if family not in FAMILIES or (family == "segment" and kind not in (*SEGMENT_KINDS, "absent")):
            raise ValueError(
                f"the task {task!r} of {image} has no score; expected segment/({', '.join((*SEGMENT_KINDS, 'absent'))}), "
                "or a kind of refer, caption or vqa. Rename it in the data."
            )
        prompts, expected = tuple(turn.prompt for turn in turns), tuple(turn.answer for turn in turns)
        references = (batch.references[row] if batch.references else ()) or (expected[-1],)
        size = (frame.height, frame.width)
        key = f"{image}#{counted[image]}"
        counted[image] += 1
        given = tuple(truth[row]), tuple(names[row]), tuple(unions[row]), tuple(codes[row])
        asked.append(Question(key, image, task, size, prompts, expected, references, *given))
    return asked


def judge(
    question: Question,
    answers: Sequence[str],
    logits: Float[Tensor, "m h w"],
    protocol: Protocol,
    *,
    quality: Sequence[float] = (),
    presence: Sequence[float] = (),
    writes: bool = True,
    keep: bool = False,
) -> Outcome:
    """Compare an answer and its masks with the truth.

    Args:
        logits: of each mask at the image's own size; inside is above 0.
        quality, presence: by the decoder, for each mask; empty where it does not say.
        writes: whether the answers hold a ``[SEG]`` for each mask.
        keep: keep the masks.
    """
    own = list(logits > 0)
    drawn, truth = _resized(logits, protocol), _true_at(question, protocol)
    pairs, several, absent = [], max(len(drawn), len(truth)) > 1, question.task == "segment/absent"
    if question.task.startswith("segment/") and not absent:
        for place, (shared, joined) in enumerate(zip(*(counts.tolist() for counts in score_dialogue(drawn, truth)), strict=True)):
            asked = place < len(truth)
            outline = boundary_iou(drawn[place] if place < len(drawn) else None, truth[place] if asked else None)
            expected = quality[place] if place < len(quality) and asked else None
            name = question.names[place] if place < len(question.names) else None
            pairs.append(Pair(shared, joined, int(question.truth[place].sum()) if asked else None, outline, name, expected))
    grounded = question.task == "segment/grounded"
    return Outcome(
        key=question.key,
        image=question.image,
        task=question.task,
        size=question.size,
        prompts=question.prompts,
        expected=question.expected,
        references=question.references,
        digest=question.digest,
        answers=tuple(answers),
        drew=drew_something(own),
        targets=len(question.truth),
        written=sum(answer.count(SEG) for answer in answers) if writes else None,
        pairs=tuple(pairs),
        matched=pixel_counts(*score_matched(drawn, truth)) if pairs and several else (),
        grounded=tuple(assigned_ious(drawn, truth).tolist()) if grounded else (),
        hits=tuple(matched_at_half(drawn, truth).tolist()) if grounded else (),
        presence=tuple(presence),
        union=pixel_counts(*score_dialogue(list(question.unions), list(question.truth))) if question.unions and question.task == "segment/single" else (),
        drawn=tuple(encode_rle(mask) for mask in own) if keep else (),
    )


def pixel_counts(intersection: Tensor, union: Tensor) -> Counts:
    """Pixels pair by pair, as whole numbers."""
    return tuple(zip(intersection.tolist(), union.tolist(), strict=True))


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


def _resized(logits: Float[Tensor, "m h w"], protocol: Protocol) -> list[Bool[Tensor, "_ _"]]:
    """Masks in the square of a protocol, or as they are."""
    if protocol.size is None or not len(logits):
        return list(logits > 0)
    size = _size_at(logits.shape[1:], protocol)
    return list(functional.interpolate(logits[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0] > 0)


def _true_at(question: Question, protocol: Protocol) -> list[Bool[Tensor, "_ _"]]:
    """True masks in the square of a protocol, by the nearest pixel as its code does, or as they are."""
    if protocol.size is None or not question.truth:
        return list(question.truth)
    masks = torch.stack(question.truth)[:, None].float()
    return list(functional.interpolate(masks, _size_at(question.size, protocol), mode="nearest")[:, 0] > 0)


def _size_at(own: Sequence[int], protocol: Protocol) -> tuple[int, int]:
    assert protocol.size is not None
    if protocol.stretched:
        return protocol.size, protocol.size
    scale = protocol.size / max(own)
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))
