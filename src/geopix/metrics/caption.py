"""Captions against references: ROUGE-L, in pure Python."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words that are compared: runs of letters and digits of any script, in lower case; punctuation and underscores part them.

    Example:
        >>> words("A ground-track field, 2 ships.")
        ['a', 'ground', 'track', 'field', '2', 'ships']
    """
    return _WORD.findall(text.lower())


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words can be kept of both texts, in order, so that they are the same.

    One bit per word of ``one`` in a whole number, one addition per word of ``other``: the recurrence of
    Hyyrö, "Bit-parallel LCS-length computation revisited" (2004).

    Example:
        >>> longest_common_subsequence("a ship in the harbour".split(), "the ship is in a harbour".split())
        3
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(one)) - 1
    unmatched = full
    for word in other:
        met = unmatched & places.get(word, 0)
        unmatched = ((unmatched + met) | (unmatched - met)) & full
    return len(one) - unmatched.bit_count()


def rouge_l(candidate: str, references: str | Sequence[str], *, beta: float = 1.2) -> float:
    """ROUGE-L of one caption, in [0, 1]: F-measure of the longest common subsequence of :func:`words`.

    With precision P = LCS / words of the candidate and recall R = LCS / words of the reference, it is ``(1 + beta^2) P R / (R + beta^2 P)``.
    With several references P and R are the best of each, possibly of different references, as in pycocoevalcap, whose beta of 1.2 is the default.
    Words are split as by :func:`words`, not by the PTB tokeniser of pycocoevalcap (which needs Java), so hyphens and apostrophes part words here.

    A candidate without words scores 0.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries" (2004, https://aclanthology.org/W04-1013), equations 2 to 4;
    beta and the handling of several references from github.com/tylin/coco-caption.

    Args:
        references: one true caption, or several.
        beta: how many times as much recall weighs as precision; 1 gives the measure of the ``rouge_score`` package.

    Raises:
        ValueError: when there is no reference, or one without words.

    Example:
        >>> round(rouge_l("a ship in the harbour", "two ships in the harbour", beta=1.0), 3)
        0.6
    """
    given = words(candidate)
    true = [words(reference) for reference in ([references] if isinstance(references, str) else references)]
    if not true or not all(true):
        raise ValueError(f"a caption needs at least one reference, each with words; found {references!r}. Leave such captions out of the data.")
    if not given:
        return 0.0
    common = [longest_common_subsequence(given, reference) for reference in true]
    precision = max(common) / len(given)
    recall = max(length / len(reference) for length, reference in zip(common, true, strict=True))
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if precision else 0.0


def _rouge_update(candidates: Sequence[str], references: Sequence[str | Sequence[str]], beta: float) -> Tensor:
    """The sum of the scores."""
    if len(candidates) != len(references):
        raise ValueError(f"one reference, or group of references, per caption is needed; found {len(candidates)} captions and {len(references)} references.")
    total = sum(rouge_l(candidate, reference, beta=beta) for candidate, reference in zip(candidates, references, strict=True))
    return torch.tensor(total, dtype=torch.float64)


class RougeL(Metric):
    """Mean of :func:`rouge_l` over captions, in [0, 1].

    - ``rouge_l``: the mean; NaN without captions;
    - ``count``: how many captions were scored.

    Example:
        >>> metric = RougeL()
        >>> metric.update(["two ships", "a bridge"], ["two ships", ["a road", "some houses"]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'rouge_l': 0.75, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, *, beta: float = 1.2) -> None:
        super().__init__()
        self.beta = beta
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, candidates: Sequence[str], references: Sequence[str | Sequence[str]]) -> None:
        """Count captions against their references: for each caption one text, or several.

        Raises:
            ValueError: when the lengths differ, or a caption has no reference with words.
        """
        self.total += _rouge_update(candidates, references, self.beta).to(self.total.device)
        self.count += len(candidates)

    def compute(self) -> dict[str, Tensor]:
        """The score so far, over all processes."""
        return {"rouge_l": self.total / self.count.double(), "count": self.count.double()}
