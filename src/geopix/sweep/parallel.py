"""A sweep as one picture: a vertical line for each axis and each metric, and every trial a line across them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geopix.sweep.plan import labels, short
from geopix.sweep.table import Gathered

_CURVE = 24


def draw(found: Gathered, metrics: Sequence[str], path: Path) -> None:
    """Write the parallel coordinates of all trials that ended as PNG, coloured by the first metric.

    Values of an axis stand in the order of the sweep, from below; metrics are scaled from their lowest to their highest value. A trial that lacks a metric
    has a gap there.
    """
    known = [trial for trial in found.trials if found.state(trial) == "done"]
    names = [*labels(found.keys), *metrics]
    columns: list[list[float | None]] = []
    marks: list[list[tuple[float, str]]] = []
    for key in found.keys:
        values = list(dict.fromkeys(trial.values[key] for trial in known))
        columns.append([(values.index(trial.values[key]) + 0.5) / len(values) for trial in known])
        marks.append([((at + 0.5) / len(values), short(value)) for at, value in enumerate(values)])
    for metric in metrics:
        numbers = [found.results[trial.name]["metrics"].get(metric) for trial in known]
        low, high = (edge((each for each in numbers if each is not None), default=0.0) for edge in (min, max))
        columns.append([None if each is None else (each - low) / (high - low) if high > low else 0.5 for each in numbers])
        marks.append([(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if high > low else [(0.5, f"{low:.3g}")])
    figure = Figure(figsize=(max(5.0, 1.7 * len(names)), 4.2), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = columns[len(found.keys)]
    for row in range(len(known)):
        heights = [column[row] for column in columns]
        shade = colours[row]
        for at, (left, right) in enumerate(pairwise(heights)):
            if left is not None and right is not None:
                axes.plot(*_bend(at, left, right), color=colormaps["viridis"](shade if shade is not None else 0.5), alpha=0.8, linewidth=1.6)
    for at, ticks in enumerate(marks):
        axes.axvline(at, color="0.35", linewidth=0.9, zorder=0)
        for height, text in ticks:
            axes.text(at + 0.03, height, text, fontsize=7.5, va="center", bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})
    axes.set_xticks(range(len(names)), names, fontsize=9, rotation=20 if len(names) > 5 else 0)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlim(-0.15, len(names) - 0.5)
    axes.set_yticks([])
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})


def _bend(at: int, left: float, right: float) -> tuple[list[float], list[float]]:
    """A line that leaves one axis and meets the next at a right angle, so that lines through the same point can be told apart."""
    shares = [step / _CURVE for step in range(_CURVE + 1)]
    return [at + share for share in shares], [left + (right - left) * share * share * (3 - 2 * share) for share in shares]
