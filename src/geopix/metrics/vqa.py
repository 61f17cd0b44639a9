"""Short answers to questions: exact match by type of question, and what always giving the commonest answer would score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

_TRAILING = " \t\n.,;:!?"
_OVERALL = ("oa", "aa", "num_questions")


def normalise(text: str) -> str:
    """An answer as it is compared: lower case, runs of white space as one space, no white space around it, no punctuation at its end.

    Nothing else is forgiven: "2" is not "two", "a ship" is not "ship".

    Example:
        >>> normalise("  Yes. "), normalise("Light   Blue!")
        ('yes', 'light blue')
    """
    return " ".join(text.lower().split()).rstrip(_TRAILING)


def _vqa_update(
    kinds: Sequence[str], answers: Sequence[str], truths: Sequence[str], known: Sequence[str], vocabulary: Sequence[str]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, "n w"]]:
    """Per kind: right answers, questions, and how often each word of the vocabulary is the truth."""
    if not len(kinds) == len(answers) == len(truths):
        raise ValueError(f"one kind, answer and truth per question are needed; found {len(kinds)}, {len(answers)} and {len(truths)}.")
    rows = {kind: row for row, kind in enumerate(known)}
    columns = {word: column for column, word in enumerate(vocabulary)}
    correct, total = [0] * len(rows), [0] * len(rows)
    truth_counts = [[0] * len(columns) for _ in rows]
    for kind, answer, truth in zip(kinds, answers, truths, strict=True):
        if kind not in rows:
            raise ValueError(f"a question of kind {kind!r}, but this metric was built for {list(rows)}; name every kind when it is built.")
        right = normalise(truth)
        if not right:
            raise ValueError(f"a question of kind {kind!r} has {truth!r} as its true answer, which no answer can equal; leave such questions out of the data.")
        correct[rows[kind]] += normalise(answer) == right
        total[rows[kind]] += 1
        if right in columns:
            truth_counts[rows[kind]][columns[right]] += 1
    counted = torch.tensor(truth_counts, dtype=torch.int64).reshape(len(rows), len(columns))
    return torch.tensor(correct), torch.tensor(total), counted


def _vqa_compute(correct: Int[Tensor, " n"], total: Int[Tensor, " n"], truth_counts: Int[Tensor, "n w"], known: Sequence[str]) -> dict[str, Tensor]:
    accuracy = correct.double() / total.double()
    asked = total > 0
    scores = {"oa": correct.sum().double() / total.sum().double(), "aa": accuracy[asked].mean(), "num_questions": total.sum().double()}
    most = truth_counts.max(1).values if truth_counts.shape[1] else torch.zeros_like(total)
    # A truth outside the vocabulary could be the commonest only if more lie outside than the commonest inside has.
    certain = most >= total - truth_counts.sum(1)
    majority = torch.where(certain & asked, most.double() / total.double(), torch.nan)
    for row, kind in enumerate(known):
        scores |= {kind: accuracy[row], f"{kind}_majority": majority[row], f"{kind}_num": total[row].double()}
    return scores


def vqa_accuracy(kinds: Sequence[str], answers: Sequence[str], truths: Sequence[str], *, vocabulary: Sequence[str] = ("yes", "no")) -> dict[str, Tensor]:
    """:class:`VQAAccuracy` of all questions at once; its kinds are those that occur.

    Example:
        >>> scores = vqa_accuracy(["presence", "presence", "count"], ["Yes.", "no", "two"], ["yes", "yes", "2"])
        >>> scores["presence"].item(), scores["presence_majority"].item(), scores["count"].item(), scores["aa"].item()
        (0.5, 1.0, 0.0, 0.25)
    """
    known = sorted(set(kinds))
    words = tuple(normalise(word) for word in vocabulary)
    return _vqa_compute(*_vqa_update(kinds, answers, truths, known, words), known)


class VQAAccuracy(Metric):
    """Share of questions answered exactly right after :func:`normalise`, in [0, 1].

    - one key per kind of question, such as ``presence``: the accuracy of that kind;
    - ``<kind>_majority``: the accuracy of always giving the commonest true answer of that kind, the score to beat. Counted over
      ``vocabulary``; NaN where an answer outside it may be commoner;
    - ``<kind>_num``: how many questions of that kind were scored;
    - ``oa``: overall accuracy, over questions; ``aa``: average accuracy, the mean over the kinds that were asked;
    - ``num_questions``: how many questions were scored.

    Degenerate cases: an empty answer, or one of punctuation alone, is wrong; a kind that was never asked is NaN and stays out of ``aa``;
    without questions every rate is NaN.

    Source: OA and AA of RSVQA (https://arxiv.org/abs/2003.07333); exact match in lower case as GeoChat (https://arxiv.org/abs/2311.15826).

    Args:
        kinds: every kind that may occur, such as ``("presence", "count")``.
        vocabulary: the true answers that are counted for ``<kind>_majority``.

    Raises:
        ValueError: when kinds are missing, repeat, or would hide another key of the result.

    Example:
        >>> metric = VQAAccuracy(("presence", "count"))
        >>> metric.update(["presence", "count"], ["Yes.", "3"], ["yes", "4"])
        >>> scores = metric.compute()
        >>> scores["presence"].item(), scores["count"].item(), scores["oa"].item()
        (1.0, 0.0, 0.5)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    total: Tensor
    truth_counts: Tensor

    def __init__(self, kinds: Sequence[str], *, vocabulary: Sequence[str] = ("yes", "no")) -> None:
        super().__init__()
        keys = [*_OVERALL, *(f"{kind}{ending}" for kind in kinds for ending in ("", "_majority", "_num"))]
        if not kinds or len(keys) != len(set(keys)):
            raise ValueError(f"kinds of questions must be given, differ, and not read like {_OVERALL}, <kind>_majority or <kind>_num; found {list(kinds)}.")
        self.kinds = tuple(kinds)
        self.vocabulary = tuple(normalise(word) for word in vocabulary)
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros(len(self.kinds), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("truth_counts", torch.zeros(len(self.kinds), len(self.vocabulary), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, kinds: Sequence[str], answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count questions by their kind, the answer given and the true answer.

        Raises:
            ValueError: when the lengths differ, a kind is unknown, or a true answer is empty.
        """
        correct, total, truth_counts = _vqa_update(kinds, answers, truths, self.kinds, self.vocabulary)
        self.correct += correct.to(self.correct.device)
        self.total += total.to(self.total.device)
        self.truth_counts += truth_counts.to(self.truth_counts.device)

    def compute(self) -> dict[str, Tensor]:
        """The scores so far, over all processes."""
        return _vqa_compute(self.correct, self.total, self.truth_counts, self.kinds)
