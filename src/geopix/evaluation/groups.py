"""Outcomes as sums image by image: whatever is printed, and how sure it is, is a function of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor

from geopix.evaluation.outcome import SEGMENT_KINDS, Outcome
from geopix.evaluation.protocols import Protocol
from geopix.metrics.boxes import box_scores, box_sums
from geopix.metrics.calibration import presence_scores, presence_sums, quality_scores, quality_sums
from geopix.metrics.caption import bleu_scores, bleu_sums, rouge_scores, rouge_sums
from geopix.metrics.cider import cider_scores, cider_sums, document_frequencies
from geopix.metrics.grounded import equal_ap50_scores, equal_ap50_sums, grounded_scores, grounded_sums
from geopix.metrics.masks import mask_iou_each, mask_iou_scores, refusal_scores, refusal_sums, size_bucket
from geopix.metrics.vqa import hallucination_scores, hallucination_sums, normalise, takes_for_granted, vqa_scores, vqa_sums

VQA_KINDS = (
    "presence", "count", "compare", "colour", "area", "rural_urban", "position", "category", "shape", "size", "direction", "scene", "reasoning", "open",
)  # fmt: skip
WORDS = ("yes", "no")
WRITTEN = ("no_seg", "fewer", "more", "empty_mask", "as_asked")
Score = Callable[[Float64[Tensor, "... k"]], dict[str, Tensor]]


@dataclass(frozen=True)
class Group:
    """Sums of one metric over the dialogues of each image, for a part of the questions.

    Args:
        name: stands before the names of its scores, with a slash.
        sums: one row per image.
        scores: scores from any sum of rows.
    """

    name: str
    sums: Float64[Tensor, "n k"]
    scores: Score


@dataclass(frozen=True)
class Table:
    """Everything that was counted.

    Args:
        images: keys, in the order of the rows of each group.
        groups: by metric and part of the questions.
    """

    images: tuple[str, ...]
    groups: tuple[Group, ...]


def tabulate(outcomes: Sequence[Outcome], protocol: Protocol) -> Table:
    """Count outcomes, image by image.

    - ``single``, ``multi``, ``group``, ``followup``, ``grounded``: masks in the order of the question; ``multi_matched``: several masks by the best
      assignment; ``segment``: all of them together.
    - ``boundary``: the same for outlines; ``class/...``, ``size/...``: masks by the class and by the size of the true thing.
    - ``absent``: whether what is there is drawn, and what is not is refused; ``answers``: what answers that should have masks lack.
    - ``vqa``, ``box`` (and ``box/unique`` ...), ``caption``: words and boxes in text.
    - ``false_premise``: how often something that is not there is taken for granted.
    - ``quality``, ``presence``: what the decoder expects of its masks, against what they are.
    - ``control``: masks of single references asked about another image, and the union of the target's class as the answer.

    A protocol that gives the true answer has no score of words.
    """
    rows = {image: row for row, image in enumerate(dict.fromkeys(outcome.image for outcome in outcomes))}
    sums: dict[str, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    rules: dict[str, Score] = {}
    pairs_of: dict[str, list[tuple[int, int, int]]] = defaultdict(list)

    def add(name: str, scores: Score, counted: Tensor, image: str) -> None:
        rules[name] = scores
        sums[name][rows[image]].append(counted)

    def masks(name: str, outcome: Outcome, pairs: Iterable[tuple[int, int]]) -> None:
        pairs_of[name] += [(rows[outcome.image], *pair) for pair in pairs]

    for outcome in outcomes:
        if outcome.family == "segment":
            _count_masks(outcome, masks)
            if not protocol.forced:
                add("absent", refusal_scores, refusal_sums(torch.tensor([outcome.targets > 0]), torch.tensor([outcome.drew])), outcome.image)
                if outcome.targets and outcome.written is not None:
                    add("answers", _written_scores, _written_sums(outcome), outcome.image)
            _count_confidence(outcome, add)
        elif not protocol.forced:
            _count_words(outcome, protocol, add)
        if not protocol.forced and (outcome.task == "segment/absent" or (outcome.task == "vqa/presence" and normalise(outcome.expected[-1]) == "no")):
            taken = takes_for_granted(outcome.answers[-1], outcome.drew)
            add("false_premise", hallucination_scores, hallucination_sums([taken]), outcome.image)
    _count_captions([outcome for outcome in outcomes if outcome.family == "caption" and not protocol.forced], add)
    groups = [Group(name, _by_image(sums[name], len(rows)), rule) for name, rule in rules.items()]
    groups += [Group(name, _masks_by_image(pairs, len(rows), protocol), mask_iou_scores) for name, pairs in pairs_of.items() if pairs]
    return Table(tuple(rows), tuple(sorted(groups, key=lambda group: group.name)))


def _count_masks(outcome: Outcome, masks: Callable[[str, Outcome, Iterable[tuple[int, int]]], None]) -> None:
    pairs = [(pair.intersection, pair.union) for pair in outcome.pairs]
    if outcome.kind in SEGMENT_KINDS:
        masks(outcome.kind, outcome, pairs)
        masks("segment", outcome, pairs)
        masks("boundary", outcome, (pair.boundary for pair in outcome.pairs))
    for pair in outcome.pairs:
        if pair.area is not None:
            masks(f"size/{size_bucket(pair.area)}", outcome, [(pair.intersection, pair.union)])
            if pair.name is not None:
                masks(f"class/{pair.name}", outcome, [(pair.intersection, pair.union)])
    masks("multi_matched", outcome, outcome.matched)
    masks("control/shuffled", outcome, outcome.shuffled)
    masks("control/class_union", outcome, outcome.union)


def _count_confidence(outcome: Outcome, add: Callable[[str, Score, Tensor, str], None]) -> None:
    expected = [(pair.quality, pair.intersection / pair.union if pair.union else 1.0) for pair in outcome.pairs if pair.quality is not None]
    if expected:
        stated, true = torch.tensor(expected, dtype=torch.float64).unbind(1)
        add("quality", quality_scores, quality_sums(stated, true), outcome.image)
    if outcome.presence:
        there = torch.arange(len(outcome.presence)) < outcome.targets  # a mask beyond those asked for is of nothing
        add("presence", presence_scores, presence_sums(torch.tensor(outcome.presence, dtype=torch.float64), there), outcome.image)
    if outcome.kind == "grounded":
        ious = torch.tensor(outcome.grounded, dtype=torch.float64)
        hits = torch.tensor(outcome.hits, dtype=torch.bool)
        counted = torch.cat([grounded_sums(ious, outcome.targets), equal_ap50_sums(hits, outcome.targets)])
        add("grounded_conversation", _grounded_scores, counted, outcome.image)


def _count_words(outcome: Outcome, protocol: Protocol, add: Callable[[str, Score, Tensor, str], None]) -> None:
    given, expected = outcome.answers[-1], outcome.expected[-1]
    if outcome.family == "vqa":
        known = [kind for kind in VQA_KINDS if kind not in protocol.left_out]
        counted = vqa_sums([outcome.kind], [given], [expected], known, WORDS, left_out=protocol.left_out, read=protocol.read)
        add("vqa", partial(vqa_scores, known=known), counted, outcome.image)
    elif outcome.family == "refer":
        counted = box_sums([given], [expected])
        add("box", box_scores, counted, outcome.image)
        if outcome.kind != "box":
            add(f"box/{outcome.kind}", box_scores, counted, outcome.image)


def _count_captions(outcomes: Sequence[Outcome], add: Callable[[str, Score, Tensor, str], None]) -> None:
    references = [outcome.references or outcome.expected[-1:] for outcome in outcomes]
    frequencies = document_frequencies(references)
    for outcome, true in zip(outcomes, references, strict=True):
        given = outcome.answers[-1]
        add("caption", _caption_scores, torch.cat([rouge_sums(given, true), bleu_sums(given, true), cider_sums(given, true, frequencies)]), outcome.image)


def _caption_scores(sums: Float64[Tensor, "... k"]) -> dict[str, Tensor]:
    """ROUGE-L, BLEU and CIDEr-D of sums that stand one behind the other."""
    rouge, cider = 2, 2
    return {
        **rouge_scores(sums[..., :rouge]),
        **bleu_scores(sums[..., rouge:-cider]),
        **cider_scores(sums[..., -cider:]),
    }


def _grounded_scores(sums: Float64[Tensor, "... k"]) -> dict[str, Tensor]:
    """Mean IoU, recall and AP50 of sums that stand one behind the other."""
    ap50 = 3
    return {**grounded_scores(sums[..., :-ap50]), **equal_ap50_scores(sums[..., -ap50:])}


def _written_sums(outcome: Outcome) -> Float64[Tensor, " k"]:
    """Which of :data:`WRITTEN` an answer is that should have masks."""
    assert outcome.written is not None
    wrong = (outcome.written == 0, 0 < outcome.written < outcome.targets, outcome.written > outcome.targets, outcome.written > 0 and not outcome.drew)
    first = next((place for place, each in enumerate(wrong) if each), len(wrong))
    return torch.nn.functional.one_hot(torch.tensor(first), len(WRITTEN)).double()


def _written_scores(sums: Float64[Tensor, "... k"]) -> dict[str, Tensor]:
    """Shares of answers: without ``[SEG]``, with fewer or more than asked for, with as many of which none shows a pixel, or as asked."""
    return {name: sums[..., place] / sums.sum(-1) for place, name in enumerate(WRITTEN)} | {"count": sums.sum(-1)}


def _by_image(rows: dict[int, list[Tensor]], num: int) -> Float64[Tensor, "n k"]:
    width = len(next(iter(rows.values()))[0])
    table = torch.zeros(num, width, dtype=torch.float64)
    for row, counted in rows.items():
        table[row] = torch.stack(counted).sum(0)
    return table


def _masks_by_image(pairs: Sequence[tuple[int, int, int]], num: int, protocol: Protocol) -> Float64[Tensor, "n k"]:
    """The same for masks, all at once: many small sums are what counting would spend its time on."""
    row, intersection, union = torch.tensor(pairs, dtype=torch.int64).unbind(1)
    each = mask_iou_each(intersection, union, empty=protocol.empty, strict=protocol.strict)
    return torch.zeros(num, each.shape[1], dtype=torch.float64).index_add_(0, row, each)
