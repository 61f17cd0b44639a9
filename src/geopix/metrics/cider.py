"""CIDEr-D: captions against references, each run of words weighed by how rare it is among the references of all captions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from geopix.metrics.caption import LONGEST, References, Run, require_pairs, runs_of, words, words_of

_SIGMA = 6.0


@dataclass(frozen=True)
class Frequencies:
    """In how many of ``num`` captions' groups of references a run of words occurs."""

    num: int
    groups: Mapping[Run, int]


def document_frequencies(references: Sequence[References]) -> Frequencies:
    """What CIDEr-D weighs runs of words by: runs that many captions' references share say little.

    Args:
        references: those of *all* captions that are scored together, over all processes.

    Raises:
        ValueError: when a caption has no reference with words.
    """
    groups: Counter[Run] = Counter()
    for true in references:
        groups.update({run for reference in words_of(true) for runs in runs_of(reference) for run in runs})
    return Frequencies(len(references), groups)


def _weighed(text: Sequence[str], frequencies: Frequencies) -> list[dict[Run, float]]:
    most = math.log(max(frequencies.num, 1))
    return [{run: often * (most - math.log(max(frequencies.groups.get(run, 0), 1))) for run, often in runs.items()} for runs in runs_of(text)]


def cider_sums(candidate: str, references: References, frequencies: Frequencies) -> Float64[Tensor, " k"]:
    """Of one caption: 1 and its CIDEr-D (:class:`CiderD`).

    Args:
        frequencies: of the references of all captions that are scored together.

    Raises:
        ValueError: when there is no reference, or one without words.
    """
    given, true = words(candidate), words_of(references)
    ours, total = _weighed(given, frequencies), 0.0
    for reference in true:
        penalty = math.exp(-((len(given) - len(reference)) ** 2) / (2 * _SIGMA**2))
        for one, other in zip(ours, _weighed(reference, frequencies), strict=True):
            shared = sum(min(weight, other.get(run, 0.0)) * other.get(run, 0.0) for run, weight in one.items())
            size = math.hypot(*one.values()) * math.hypot(*other.values())
            total += penalty * shared / size if size else 0.0
    return torch.tensor([1.0, 10 * total / (LONGEST * len(true))], dtype=torch.float64)


def cider_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`CiderD` from :func:`cider_sums`."""
    count, total = sums.unbind(-1)
    return {"cider_d": total / count, "count": count}


class CiderD(Metric):
    """How well captions agree with what several people wrote, in [0, 10], rare words weighing more.

    - ``cider_d``: mean over captions of 10 times the mean, over references and runs of 1 to 4 words, of the clipped cosine between tf-idf vectors, times
      exp(-d² / 72) for a difference of d words in length;
    - ``count``: how many captions were scored.

    A run's weight is how often it occurs, times log(captions / captions that have it in a reference). It follows that one caption alone scores 0, and
    that the number belongs to the whole set of captions: a part of them has another. Resampled intervals keep the weights of the whole set.
    Without captions it is NaN. Papers often print it times 100.

    Source: Vedantam et al., "CIDEr: consensus-based image description evaluation" (https://arxiv.org/abs/1411.5726), section 5 for CIDEr-D; the mean over
    lengths of runs from github.com/tylin/coco-caption, which calls this CIDEr.

    Example:
        >>> metric = CiderD()
        >>> metric.update(["two ships", "a long bridge"], ["two ships", ["a long bridge", "a bridge"]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'cider_d': 4.878, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    texts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("texts", [], dist_reduce_fx="cat")

    def update(self, candidates: Sequence[str], references: Sequence[References]) -> None:
        """Keep captions and their references: for each caption one text, or several.

        Raises:
            ValueError: when the lengths differ, or a caption has no reference with words.
        """
        require_pairs(candidates, references)
        for candidate, true in zip(candidates, references, strict=True):
            words_of(true)
            line = json.dumps([candidate, true if isinstance(true, str) else list(true)]) + "\n"
            # Only tensors travel between processes; 32-bit floats, because torchmetrics gathers an empty tensor of that kind from a process without data.
            self.texts.append(torch.tensor(list(line.encode("ascii")), dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The score so far, over all processes."""
        text = bytes(dim_zero_cat(self.texts).to(torch.uint8).tolist()) if len(self.texts) else b""
        pairs = [json.loads(line) for line in text.splitlines()]
        frequencies = document_frequencies([true for _, true in pairs])
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for candidate, true in pairs:
            sums += cider_sums(candidate, true, frequencies).to(self.device)
        return cider_scores(sums)
