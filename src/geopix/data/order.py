"""In which order a source with an end is read: every epoch all of its images once, each time in another order that anybody can compute anew."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from geopix.data.source import Source

TOGETHER = 8
"""Blocks of a source whose images are shuffled among each other; the blocks themselves come in random order."""

FrozenMix = tuple[tuple[str, float], ...]


def position(source: Source, number: int, mix: Mapping[str, float] | None, seed: int = 0) -> tuple[int, int]:
    """The image of a source that a training sample shows, and the epoch: how often it was shown before.

    Of a source with an end, every epoch shows each image once, in an order of its own; images without a dialogue that the mix allows are passed over.
    Where a source says which images lie together (``blocks``), the order stays among few of them at a time.

    Args:
        number: of the training sample, from 0 without end.
        mix: weights by task, see :meth:`geopix.data.source.Source.sample`.
        seed: of all orders.

    Raises:
        ValueError: when the mix leaves nothing.
    """
    if source.count is None:
        return number, 0
    frozen = frozen_mix(mix)
    count = len(_allowed(source, frozen))
    if not count:
        raise ValueError(f"the mix {dict(mix or {})} leaves none of the dialogues of {source.title}, whose tasks are {sorted(source.kinds)}.")
    epoch = number // count
    return int(_epoch(source, frozen, epoch, seed)[number % count]), epoch


def frozen_mix(mix: Mapping[str, float] | None) -> FrozenMix | None:
    """A mix that can be a key."""
    return None if mix is None else tuple(sorted(mix.items()))


def weight_for(mix: Mapping[str, float], kind: str) -> float:
    """What a mix gives a task: its own weight (``family/kind``) if it names it, else that of its family, else 0.

    >>> weight_for({"vqa": 2.0, "vqa/count": 0.5}, "vqa/count"), weight_for({"vqa": 2.0}, "vqa/colour"), weight_for({"vqa": 2.0}, "caption/scene")
    (0.5, 2.0, 0.0)
    """
    return mix.get(kind, mix.get(kind.split("/")[0], 0.0))


@lru_cache(maxsize=32)
def _allowed(source: Source, mix: FrozenMix | None) -> Int[np.ndarray, " n"]:
    having = None if mix is None else source.having(dict(mix))
    return np.arange(source.count or 0) if having is None else np.asarray(having, dtype=np.int64)


@lru_cache(maxsize=32)
def _epoch(source: Source, mix: FrozenMix | None, epoch: int, seed: int) -> Int[np.ndarray, " n"]:
    allowed = _allowed(source, mix)
    rng = np.random.default_rng([seed, epoch, len(allowed)])
    if source.blocks is None:
        return rng.permutation(allowed)
    ends = np.cumsum(source.blocks)
    places = rng.permutation(len(ends)) // TOGETHER
    return allowed[np.lexsort((rng.random(len(allowed)), places[np.searchsorted(ends, allowed, side="right")]))]
