"""Scores of everything that was counted, how far chance may have moved them, and how two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from geopix.evaluation.groups import Group, Table
from geopix.evaluation.names import is_count, is_detail
from geopix.evaluation.protocols import Protocol

RESAMPLES = 1000
LEVEL = 0.95
Interval = tuple[float, float]
_CHUNK = 100


def numbers(table: Table, protocol: Protocol) -> dict[str, float]:
    """Every score, as ``group/score``. A score about nothing is left out."""
    found: dict[str, float] = {}
    for group in table.groups:
        found |= {name: float(value) for name, value in _scores(group, group.sums.sum(0), protocol).items()}
    return {name: value for name, value in found.items() if value == value and not (value == 0 and name.endswith("_num"))}


def intervals(table: Table, protocol: Protocol, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The middle 95 % of each score when images are drawn anew, with replacement (percentile bootstrap; Efron and Tibshirani 1993, chapter 13).

    Images are drawn and not dialogues, since questions about one image succeed or fail together. A resample in which a score is about nothing is left
    out of that score's interval. Counts have none.
    """
    found: dict[str, Interval] = {}
    for name, values in _resampled([table], protocol, resamples, seed).items():
        found[name] = _middle(values)
    return {name: interval for name, interval in found.items() if interval[0] == interval[0]}


def mean_numbers(tables: Sequence[Table], protocol: Protocol) -> dict[str, float]:
    """The mean of every score over trainings that differ in their seeds; a score that one of them lacks is left out."""
    each = [numbers(table, protocol) for table in tables]
    return {name: sum(found[name] for found in each) / len(each) for name in each[0] if all(name in found for found in each)}


def differences(first: Sequence[Table], second: Sequence[Table], protocol: Protocol, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The middle 95 % of ``second - first`` when both are scored on the same drawn images, and are means over the same drawn seeds.

    Args:
        first, second: a test for each seed, in the same order of seeds; one each for the luck of the images alone.

    Raises:
        ValueError: unless all are about the same images, and both have the same number of seeds.
    """
    if len(first) != len(second):
        raise ValueError(f"trainings are compared seed by seed, but there are {len(first)} on one side and {len(second)} on the other.")
    images = first[0].images
    before, after = (_resampled([_ordered(table, images) for table in tables], protocol, resamples, seed) for tables in (first, second))
    return {name: _middle(after[name] - before[name]) for name in before if name in after}


def _ordered(table: Table, images: tuple[str, ...]) -> Table:
    """The table with its rows in the order of ``images``."""
    if strange := set(table.images) ^ set(images):
        raise ValueError(f"two runs are compared on the same images, but {len(strange)} were scored in one of them only; test both on the same data.")
    order = {image: row for row, image in enumerate(table.images)}
    rows = [order[image] for image in images]
    return Table(images, tuple(Group(group.name, group.sums[rows], group.scores) for group in table.groups))


def weights(num: int, resamples: int, seed: int) -> Iterator[Float64[Tensor, "r n"]]:
    """How often each of ``num`` things is drawn in each resample, some resamples at a time."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = torch.randint(num, (count, num), generator=generator)
        yield torch.zeros(count, num, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(count, num, dtype=torch.float64))


def _resampled(tables: Sequence[Table], protocol: Protocol, resamples: int, seed: int) -> dict[str, Float64[Tensor, " r"]]:
    """Each score in each resample, as the mean over drawn tables; all tables are about the same images in the same order."""
    parts: dict[str, list[Tensor]] = {}
    images = tables[0].images
    for drawn, often in zip(weights(len(images), resamples, seed), weights(len(tables), resamples, seed + 1), strict=True) if images else ():
        means: dict[str, list[Tensor]] = {}
        for table in tables:
            for group in table.groups:
                for name, values in _scores(group, drawn @ group.sums, protocol).items():
                    if not is_count(name):
                        means.setdefault(name, []).append(values)
        for name, each in means.items():
            if len(each) == len(tables):
                parts.setdefault(name, []).append((torch.stack(each, dim=1) * often).sum(1) / len(tables))
    return {name: torch.cat(values) for name, values in parts.items()}


def _scores(group: Group, sums: Float64[Tensor, "... k"], protocol: Protocol) -> Mapping[str, Tensor]:
    """The scores of a group under their full names. Controls keep their gIoU alone."""
    found = {protocol.names.get(name, name): value for name, value in group.scores(sums).items()}
    if group.name.startswith("control/"):
        mean = protocol.names.get("giou", "giou")
        return {f"{group.name}_{mean}": found[mean]}
    return {f"{group.name}/{name}": value for name, value in found.items()}


def _middle(values: Float64[Tensor, " r"]) -> Interval:
    kept = values[~values.isnan()]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = torch.quantile(kept, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return low, high


def table_of(metrics: Mapping[str, float], ranges: Mapping[str, Sequence[float]] | None = None) -> str:
    """Metrics as aligned lines, with their intervals; counts and scores by class and size are left out."""
    shown = {name: value for name, value in metrics.items() if not is_count(name) and not is_detail(name)}
    width = max(map(len, shown), default=0)
    return "\n".join(f"  {name:<{width}}  {value:7.3f}{_range(name, ranges)}" for name, value in shown.items())


def _range(name: str, ranges: Mapping[str, Sequence[float]] | None) -> str:
    return f"   {ranges[name][0]:.3f} to {ranges[name][1]:.3f}" if ranges and name in ranges else ""
