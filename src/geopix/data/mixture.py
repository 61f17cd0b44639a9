"""Several data sets as one: how often each task is asked, and from which set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from geopix.data.order import FrozenMix, frozen_mix, position
from geopix.data.source import Source
from geopix.types import Sample

BLOCK = 1000
"""Samples in which every share is kept to within one; rare parts get longer blocks."""


class _Stream(NamedTuple):
    """Samples of one source for one task of the mix (None: any of its dialogues)."""

    source: str
    task: str | None
    share: float


class Mixture(Source):
    """Images from several sources, without end, in shares that hold exactly.

    Where a stage of the curriculum gives a mix of tasks, a sample's task is drawn by that mix among the tasks that any source has, then its source by
    weight among those that have it; the sample asks that task only. Without a mix, images come by weight alone. What a sample shows follows from its
    number: epochs repeat nothing before a source is used up, ranks never share a sample, and a resumed run goes on where it stopped.

    Args:
        sources: by name; the name becomes the first part of every key.
        weights: how much of a task each source gives, relative to the others that have it. The number of images unless given; sources without end need one.
        seed: of the draw and of all orders.

    Raises:
        ValueError: without sources, for weights of unknown sources, and where a source without end has none.
    """

    count = None

    def __init__(self, sources: dict[str, Source], weights: dict[str, float] | None = None, seed: int = 0) -> None:
        given = weights or {}
        if not sources:
            raise ValueError("a mixture needs at least one source; found none.")
        if unknown := sorted(set(given) - set(sources)):
            raise ValueError(f"weights name {unknown}, which the mixture does not hold; its sources are {sorted(sources)}.")
        if bad := {name: weight for name, weight in given.items() if not weight >= 0}:
            raise ValueError(f"weights of a mixture are numbers of at least 0; found {bad}.")
        self.sources, self._given, self.seed = sources, given, seed

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each source: as given, else its number of images.

        Raises:
            ValueError: where a source has neither.
        """
        if endless := [name for name, source in self.sources.items() if name not in self._given and source.count is None]:
            raise ValueError(f"the sources {endless} have no end, so a mixture needs their weights; give weights for {sorted(self.sources)}.")
        return {name: self._given.get(name, float(source.count or 0)) for name, source in self.sources.items()}

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Image bands of every sample; :meth:`check` finds sources that differ."""
        return next(iter(self.sources.values())).bands

    @property
    def title(self) -> str:  # type: ignore[override]
        """The titles of all sources with their weights."""
        return "; ".join(f"{weight:g} of {self.sources[name].title}" for name, weight in self.weights.items()) + f"; seed {self.seed}"

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """The tasks of all sources."""
        return frozenset().union(*(source.kinds for source in self.sources.values()))

    def check(self) -> None:
        """Check every source, and that all read the same bands.

        Raises:
            ValueError: naming the source.
        """
        for name, source in self.sources.items():
            try:
                source.check()
            except ValueError as error:
                raise ValueError(f"in the source {name!r} of the mixture: {error}") from error
        if len(bands := {name: source.bands for name, source in self.sources.items()}) and len(set(bands.values())) > 1:
            raise ValueError(f"the sources of a mixture differ in bands: {bands}; name the same bands in each.")

    def shares(self, mix: Mapping[str, float] | None) -> dict[tuple[str, str | None], float]:
        """Share of the samples that each source gives for each task of a mix.

        Raises:
            ValueError: when no source has a task of the mix.
        """
        return {(stream.source, stream.task): stream.share for stream in self._streams(frozen_mix(mix))}

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """The sample of a number; see :meth:`geopix.data.source.Source.sample`."""
        streams = self._streams(frozen_mix(mix))
        stream, ordinal = _draw(tuple(stream.share for stream in streams), index, self.seed)
        name, task, _ = streams[stream]
        source = self.sources[name]
        asked = None if task is None else {task: 1.0}
        if task is not None and mix is not None and "/" not in task:  # a kind that the mix names by itself is a stream of its own
            asked = {task: 1.0} | {other: 0.0 for other in mix if other.startswith(f"{task}/")}
        image, epoch = position(source, ordinal, asked, self.seed)
        sample = source.sample(image, asked, truth=truth, epoch=epoch)
        return Sample(**{**vars(sample), "key": f"{name}/{sample.key}"})

    @lru_cache(maxsize=32)  # noqa: B019 (a mixture lives as long as its process)
    def _streams(self, mix: FrozenMix | None) -> tuple[_Stream, ...]:
        weights = self.weights
        parts: dict[tuple[str, str | None], float] = {}
        if mix is None:
            parts = {(name, None): weight for name, weight in weights.items()}
        else:
            wanted = dict(mix)
            holders: defaultdict[str, dict[str, float]] = defaultdict(dict)
            if silent := [name for name, source in self.sources.items() if not source.kinds and weights[name] > 0]:
                raise ValueError(f"the sources {silent} do not say which tasks they have (kinds), so no mix of tasks would ever read them.")
            for name, source in self.sources.items():
                for kind in source.kinds:
                    task = kind if kind in wanted else kind.split("/")[0]
                    if wanted.get(task, 0) > 0 and weights[name] > 0:
                        holders[task][name] = weights[name]
            for task in sorted(holders):
                total = sum(holders[task].values())
                parts |= {(name, task): wanted[task] * weight / total for name, weight in holders[task].items()}
        total = sum(parts.values())
        if not total > 0:
            raise ValueError(f"no source of the mixture has a task of the mix {dict(mix or ())} and a weight above 0; its tasks are {sorted(self.kinds)}.")
        return tuple(_Stream(name, task, part / total) for (name, task), part in sorted(parts.items(), key=str) if part > 0)


def _draw(shares: tuple[float, ...], index: int, seed: int) -> tuple[int, int]:
    """Which stream a number belongs to, and how many samples of that stream come before it."""
    size = max(BLOCK, int(np.ceil(2 / min(shares))))
    block, place = divmod(index, size)
    bounds = np.rint(np.cumsum([0.0, *shares]) * block * size).astype(np.int64)
    after = np.rint(np.cumsum([0.0, *shares]) * (block + 1) * size).astype(np.int64)
    before, counts = np.diff(bounds), np.diff(after) - np.diff(bounds)
    slot = int(_places(size, block, seed)[place])
    ends = np.cumsum(counts)
    stream = int(np.searchsorted(ends, slot, side="right"))
    return stream, int(before[stream] + slot - (ends[stream] - counts[stream]))


@lru_cache(maxsize=8)
def _places(size: int, block: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, size, block]).permutation(size)
