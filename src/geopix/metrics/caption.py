"""Captions against references, in pure Python: ROUGE-L, BLEU and CIDEr-D, as pycocoevalcap counts them on the same words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor
from torchmetrics import Metric

LONGEST = 4
"""BLEU and CIDEr-D count runs of up to so many words."""

_WORD = re.compile(r"[^\W_]+")
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap adds them to numerators and denominators, so that no match gives nearly 0

References = str | Sequence[str]
Run = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words that are compared: runs of letters and digits of any script, in lower case; punctuation and underscores part them.

    Example:
        >>> words("A ground-track field, 2 ships.")
        ['a', 'ground', 'track', 'field', '2', 'ships']
    """
    return _WORD.findall(text.lower())


def words_of(references: References) -> list[list[str]]:
    found = [words(reference) for reference in ([references] if isinstance(references, str) else references)]
    if not found or not all(found):
        raise ValueError(f"a caption needs at least one reference, each with words; found {references!r}. Leave such captions out of the data.")
    return found


def require_pairs(candidates: Sequence[str], references: Sequence[References]) -> None:
    if isinstance(candidates, str) or len(candidates) != len(references):
        raise ValueError(f"one reference, or group of references, per caption is needed; found {len(candidates)} captions and {len(references)} references.")


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


def rouge_l(candidate: str, references: References, *, beta: float = 1.2) -> float:
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
    given, true = words(candidate), words_of(references)
    if not given:
        return 0.0
    common = [longest_common_subsequence(given, reference) for reference in true]
    precision = max(common) / len(given)
    recall = max(length / len(reference) for length, reference in zip(common, true, strict=True))
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if precision else 0.0


def rouge_sums(candidate: str, references: References, *, beta: float = 1.2) -> Float64[Tensor, " k"]:
    """Of one caption: 1 and its :func:`rouge_l`.

    Raises:
        ValueError: when there is no reference, or one without words.
    """
    return torch.tensor([1.0, rouge_l(candidate, references, beta=beta)], dtype=torch.float64)


def rouge_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`RougeL` from :func:`rouge_sums`."""
    count, total = sums.unbind(-1)
    return {"rouge_l": total / count, "count": count}


class RougeL(Metric):
    """Mean of :func:`rouge_l` over captions, in [0, 1].

    - ``rouge_l``: the mean; NaN without captions;
    - ``count``: how many captions were scored.

    Source: see :func:`rouge_l`.

    Example:
        >>> metric = RougeL()
        >>> metric.update(["two ships", "a bridge"], ["two ships", ["a road", "some houses"]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'rouge_l': 0.75, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor

    def __init__(self, *, beta: float = 1.2) -> None:
        super().__init__()
        self.beta = beta
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, candidates: Sequence[str], references: Sequence[References]) -> None:
        """Count captions against their references: for each caption one text, or several.

        Raises:
            ValueError: when the lengths differ, or a caption has no reference with words.
        """
        require_pairs(candidates, references)
        for candidate, true in zip(candidates, references, strict=True):
            self.sums += rouge_sums(candidate, true, beta=self.beta).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The score so far, over all processes."""
        return rouge_scores(self.sums)


def runs_of(text: Sequence[str]) -> list[Counter[Run]]:
    """How often each run of 1, 2 ... :data:`LONGEST` words occurs."""
    return [Counter(tuple(text[place : place + num]) for place in range(len(text) - num + 1)) for num in range(1, LONGEST + 1)]


def bleu_sums(candidate: str, references: References) -> Float64[Tensor, " k"]:
    """Of one caption: 1, its words, the words of the reference nearest in length (the shorter of two), and by length of run how many
    of its runs occur in a reference, each at most as often as in the one that has most of it, and how many runs it has.

    Raises:
        ValueError: when there is no reference, or one without words.
    """
    given, true = words(candidate), words_of(references)
    nearest = min((abs(len(reference) - len(given)), len(reference)) for reference in true)[1]
    most: list[Counter[Run]] = [Counter() for _ in range(LONGEST)]
    for reference in true:
        most = [one | other for one, other in zip(most, runs_of(reference), strict=True)]
    runs = runs_of(given)
    right = [(one & other).total() for one, other in zip(runs, most, strict=True)]
    return torch.tensor([1, len(given), nearest, *right, *(each.total() for each in runs)], dtype=torch.float64)


def bleu_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`Bleu` from :func:`bleu_sums`."""
    count, given, nearest = sums[..., :3].unbind(-1)
    right, runs = sums[..., 3:].unflatten(-1, (2, LONGEST)).unbind(-2)
    mean = ((right + _TINY) / (runs + _SMALL)).cumprod(-1) ** (1 / torch.arange(1, LONGEST + 1, dtype=torch.float64, device=sums.device))
    brevity = (1 - (nearest + _SMALL) / (given + _TINY)).clamp(max=0).exp()
    scores = torch.where(count[..., None] > 0, mean * brevity[..., None], torch.nan)
    return {f"bleu_{num}": score for num, score in enumerate(scores.unbind(-1), start=1)} | {"count": count}


class Bleu(Metric):
    """BLEU of all captions together, in [0, 1]: how many of their runs of words are in the references.

    - ``bleu_1`` ... ``bleu_4``: geometric mean of the precisions of runs of 1 to N words, summed over the corpus before dividing, times
      exp(1 - reference length / length) where captions are shorter than references, each time the reference nearest in length;
    - ``count``: how many captions were scored.

    Not the mean of the BLEU of each caption. As in pycocoevalcap 1e-15 is added to matches and 1e-9 to runs, so that a corpus without a common run of four
    words has a ``bleu_4`` near 0 and not exactly 0. Without captions every score is NaN.

    Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation" (2002, https://aclanthology.org/P02-1040); the two small
    numbers from github.com/tylin/coco-caption.

    Example:
        >>> metric = Bleu()
        >>> metric.update(["two ships in the harbour"], [["two ships in a harbour", "ships"]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'bleu_1': 0.8, 'bleu_2': 0.632, 'bleu_3': 0.511, 'bleu_4': 0.0, 'count': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3 + 2 * LONGEST, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, candidates: Sequence[str], references: Sequence[References]) -> None:
        """Count captions against their references: for each caption one text, or several.

        Raises:
            ValueError: when the lengths differ, or a caption has no reference with words.
        """
        require_pairs(candidates, references)
        for candidate, true in zip(candidates, references, strict=True):
            self.sums += bleu_sums(candidate, true).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return bleu_scores(self.sums)
