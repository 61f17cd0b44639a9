"""Things that were scored twice: a sampler that pads its last batch for several processes hands some samples out again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def unique_by_key(keys: Sequence[Hashable]) -> list[int]:
    """The position of the first occurrence of each key, in order.

    Sums cannot be taken back, so duplicates are removed before anything is counted: gather keys and outcomes of all processes, keep these positions.

    Example:
        >>> unique_by_key(["a", "b", "a", "c"])
        [0, 1, 3]
    """
    first: dict[Hashable, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    return list(first.values())
