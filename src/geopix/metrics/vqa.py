"""Short answers to questions: exact match by type of question, what always giving the commonest answer would score, and false premises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torchmetrics import Metric

_TRAILING = " \t\n.,;:!?"
_OVERALL = ("oa", "aa", "num_questions", "num_left_out")
YES_NO = ("yes", "no")


def normalise(text: str) -> str:
    """An answer as it is compared: lower case, runs of white space as one space, no white space around it, no punctuation at its end.

    Nothing else is forgiven: "2" is not "two", "a ship" is not "ship".

    Example:
        >>> normalise("  Yes. "), normalise("Light   Blue!")
        ('yes', 'light blue')
    """
    return " ".join(text.lower().split()).rstrip(_TRAILING)


def lower(text: str) -> str:
    """An answer in lower case, without white space around it, and nothing else forgiven: "Yes." is not "yes".

    Example:
        >>> lower(" Yes. ")
        'yes.'
    """
    return text.strip().lower()


@dataclass(frozen=True)
class VQAProtocol:
    """Which kinds of questions of a benchmark count, and how answers are compared.

    Args:
        kinds: those that count.
        left_out: those that the benchmark has, and that do not.
        read: what is done to an answer and to the truth before they are compared.
    """

    kinds: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    read: Callable[[str], str] = normalise


VQA_PROTOCOLS = {
    "rsvqa_lr": VQAProtocol(("presence", "compare", "rural_urban", "count")),
    "rsvqa_hr": VQAProtocol(("presence", "compare", "area", "count")),
    "geochat_lr": VQAProtocol(("presence", "compare", "rural_urban"), ("count",), lower),
    "geochat_hr": VQAProtocol(("presence", "compare"), ("area", "count"), lower),
}
"""RSVQA (https://arxiv.org/abs/2003.07333) scores all of its kinds, and their mean, ``aa``. GeoChat (https://arxiv.org/abs/2311.15826) leaves out the kinds
that ask for numbers, and its "average accuracy" is the one over questions, ``oa``."""


def vqa_sums(
    kinds: Sequence[str],
    answers: Sequence[str],
    truths: Sequence[str],
    known: Sequence[str],
    vocabulary: Sequence[str] = YES_NO,
    *,
    left_out: Sequence[str] = (),
    read: Callable[[str], str] = normalise,
) -> Float64[Tensor, " k"]:
    """Of questions: by kind how many were answered right, how many there are, and how often each word of the vocabulary is the truth; how many are left out.

    Args:
        kinds: of each question.
        answers, truths: given and true answer to each.
        known: every kind that counts, in the order of the sums.
        vocabulary: the true answers that are counted for ``<kind>_majority``.
        left_out: kinds that do not count.
        read: what is done to answers, truths and vocabulary before they are compared.

    Raises:
        ValueError: when the lengths differ, a kind is neither known nor left out, or a true answer is empty.
    """
    if not len(kinds) == len(answers) == len(truths):
        raise ValueError(f"one kind, answer and truth per question are needed; found {len(kinds)}, {len(answers)} and {len(truths)}.")
    rows = {kind: row for row, kind in enumerate(known)}
    columns = {read(word): column for column, word in enumerate(vocabulary)}
    correct, total = [0] * len(rows), [0] * len(rows)
    truth_counts, others = [[0] * len(vocabulary) for _ in rows], 0
    for kind, answer, truth in zip(kinds, answers, truths, strict=True):
        if kind in left_out:
            others += 1
            continue
        if kind not in rows:
            raise ValueError(f"a question of kind {kind!r}, but this metric was built for {list(rows)}; name every kind when it is built.")
        right = read(truth)
        if not right:
            raise ValueError(f"a question of kind {kind!r} has {truth!r} as its true answer, which no answer can equal; leave such questions out of the data.")
        correct[rows[kind]] += read(answer) == right
        total[rows[kind]] += 1
        if right in columns:
            truth_counts[rows[kind]][columns[right]] += 1
    return torch.tensor([*correct, *total, *(count for row in truth_counts for count in row), others], dtype=torch.float64)


def vqa_scores(sums: Float64[Tensor, "*s k"], known: Sequence[str]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`VQAAccuracy` from :func:`vqa_sums`.

    Args:
        known: the same kinds in the same order.
    """
    num = len(known)
    correct, total, counted = sums[..., :num], sums[..., num : 2 * num], sums[..., 2 * num : -1]
    truths = counted.reshape(*sums.shape[:-1], num, counted.shape[-1] // max(num, 1))
    accuracy = correct / total
    questions = total.sum(-1)
    scores = {"oa": correct.sum(-1) / questions, "aa": accuracy.nanmean(-1), "num_questions": questions, "num_left_out": sums[..., -1]}
    most = truths.amax(-1) if truths.shape[-1] else torch.zeros_like(total)
    # A truth outside the vocabulary could be the commonest only if more lie outside than the commonest inside has.
    majority = torch.where(most >= total - truths.sum(-1), most / total, torch.nan)
    for row, kind in enumerate(known):
        scores |= {kind: accuracy[..., row], f"{kind}_majority": majority[..., row], f"{kind}_num": total[..., row]}
    return scores


def vqa_accuracy(kinds: Sequence[str], answers: Sequence[str], truths: Sequence[str], *, vocabulary: Sequence[str] = YES_NO) -> dict[str, Float64[Tensor, ""]]:
    """:class:`VQAAccuracy` of all questions at once; its kinds are those that occur.

    Example:
        >>> scores = vqa_accuracy(["presence", "presence", "count"], ["Yes.", "no", "two"], ["yes", "yes", "2"])
        >>> scores["presence"].item(), scores["presence_majority"].item(), scores["count"].item(), scores["aa"].item()
        (0.5, 1.0, 0.0, 0.25)
    """
    known = sorted(set(kinds))
    return vqa_scores(vqa_sums(kinds, answers, truths, known, vocabulary), known)


class VQAAccuracy(Metric):
    """Share of questions answered exactly right after :func:`normalise`, in [0, 1].

    - one key per kind of question, such as ``presence``: the accuracy of that kind;
    - ``<kind>_majority``: the accuracy of always giving the commonest true answer of that kind, the score to beat. Counted over
      ``vocabulary``; NaN where an answer outside it may be commoner;
    - ``<kind>_num``: how many questions of that kind were scored;
    - ``oa``: overall accuracy, over questions; ``aa``: average accuracy, the mean over the kinds that were asked;
    - ``num_questions``: how many questions were scored; ``num_left_out``: how many were of kinds that do not count.

    Degenerate cases: an empty answer, or one of punctuation alone, is wrong; a kind that was never asked is NaN and stays out of ``aa``;
    without questions every rate is NaN.

    Source: OA and AA of RSVQA (https://arxiv.org/abs/2003.07333); exact match in lower case as GeoChat (https://arxiv.org/abs/2311.15826).
    :data:`VQA_PROTOCOLS` holds their choice of kinds.

    Args:
        kinds: every kind that may occur, such as ``("presence", "count")``.
        vocabulary: the true answers that are counted for ``<kind>_majority``.
        left_out, read: see :func:`vqa_sums`.

    Raises:
        ValueError: when kinds are missing, repeat, are left out as well, or would hide another key of the result.

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

    sums: Tensor

    def __init__(
        self, kinds: Sequence[str], *, vocabulary: Sequence[str] = YES_NO, left_out: Sequence[str] = (), read: Callable[[str], str] = normalise
    ) -> None:
        super().__init__()
        keys = [*_OVERALL, *(f"{kind}{ending}" for kind in kinds for ending in ("", "_majority", "_num"))]
        if not kinds or len(keys) != len(set(keys)) or set(kinds) & set(left_out):
            raise ValueError(
                f"kinds of questions must be given, differ, not be left out at once, and not read like {_OVERALL}, <kind>_majority or <kind>_num; "
                f"found {list(kinds)} and left out {list(left_out)}."
            )
        self.kinds, self.vocabulary, self.left_out, self.read = tuple(kinds), tuple(vocabulary), tuple(left_out), read
        self.add_state("sums", vqa_sums([], [], [], self.kinds, self.vocabulary), dist_reduce_fx="sum")

    def update(self, kinds: Sequence[str], answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count questions by their kind, the answer given and the true answer.

        Raises:
            ValueError: when the lengths differ, a kind is unknown, or a true answer is empty.
        """
        self.sums += vqa_sums(kinds, answers, truths, self.kinds, self.vocabulary, left_out=self.left_out, read=self.read).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return vqa_scores(self.sums, self.kinds)


def takes_for_granted(answer: str, drew: bool) -> bool:
    """Whether an answer to a question with a false premise takes it for true: it draws something, or its first word is "yes".

    Example:
        >>> takes_for_granted("Yes, two ships.", False), takes_for_granted("There are none.", False), takes_for_granted("There are none.", True)
        (True, False, True)
    """
    return drew or [normalise(word) for word in answer.split()[:1]] == ["yes"]


def hallucination_sums(taken: Sequence[bool]) -> Float64[Tensor, " k"]:
    """Of questions with a false premise: how many, and how many answers took it for true (:func:`takes_for_granted`)."""
    return torch.tensor([len(taken), sum(taken)], dtype=torch.float64)


def hallucination_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`Hallucination` from :func:`hallucination_sums`."""
    count, taken = sums.unbind(-1)
    return {"rate": taken / count, "count": count}


class Hallucination(Metric):
    """How often something that is not there is taken for granted, in [0, 1]; 0 is best.

    - ``rate``: share of the questions with a false premise (segment, count or confirm what is not in the image) whose answer draws at least one pixel or
      begins with "yes";
    - ``count``: how many such questions were scored; without any the rate is NaN.

    A model that always refuses has 0: read it beside ``t_acc`` of :class:`geopix.metrics.masks.Refusal`.

    Source: the false-premise questions of GRES (https://arxiv.org/abs/2306.00968), where it is 1 - N-acc, and of POPE
    (https://arxiv.org/abs/2305.10355), where it is the share of false "yes".

    Example:
        >>> metric = Hallucination()
        >>> metric.update([True, False, False, False])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'rate': 0.25, 'count': 4.0}
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, taken: Sequence[bool]) -> None:
        """Count questions with a false premise, and whether each answer took it for true (:func:`takes_for_granted`)."""
        self.sums += hallucination_sums(taken).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return hallucination_scores(self.sums)
