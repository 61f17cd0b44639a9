"""What ``geopix data stats`` and ``geopix data show`` draw: plots, one page that holds them, and records as pictures."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from geopix.data.images import read_image
from geopix.data.instances import InstanceMasks
from geopix.data.instruct import InstructRecords
from geopix.data.quality.pictures import remarks_and_range
from geopix.data.quality.stats import COLUMNS, ROWS, Statistics, table
from geopix.data.records import Record
from geopix.pictures import overlay, to_rgb
from geopix.types import SEG

BARS = 25
"""Bars of a plot; rarer things are left to the numbers."""

STYLE = "body{font-family:sans-serif;max-width:60em;margin:2em auto;color:#1b1f24}img{max-width:100%}pre{background:#f3f4f6;padding:1em;overflow-x:auto}"


def write_page(statistics: Statistics, title: str, folder: Path) -> Path:
    """Writes the plots as PNG, the numbers as JSON, and one HTML page that holds both and needs nothing else.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"<h1>{html.escape(title)}</h1><pre>{html.escape(table(statistics))}</pre>"]
    for name, figure in plots(statistics).items():
        stored = BytesIO()
        FigureCanvasAgg(figure).print_png(stored, metadata={"Software": None})
        (folder / f"{name.replace(' ', '_')}.png").write_bytes(stored.getvalue())
        parts.append(f'<h2>{html.escape(name)}</h2><img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}">')
    (folder / "stats.json").write_text(json.dumps(statistics.as_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    page = folder / "stats.html"
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head>'
    page.write_text(f"{head}<body>{''.join(parts)}</body></html>\n", encoding="utf-8")
    return page


def plots(statistics: Statistics) -> dict[str, Figure]:
    """A figure for each thing that the file holds."""
    counted = {
        "instances per class": statistics.classes, "dialogues per task": statistics.tasks, "image sizes": statistics.sizes,
        "records per split": statistics.splits, "colour words": statistics.colours, "place words": statistics.place_words,
    }  # fmt: skip
    figures = {name: _bars(name, dict(counts.most_common(BARS))) for name, counts in counted.items() if counts}
    areas = statistics.all_areas()
    spread: dict[str, Sequence[float | int]] = {
        "side of an instance in pixels": np.sqrt(areas).tolist(), "side of an instance in metres": statistics.sides,
    }  # fmt: skip
    figures |= {name: _histogram(name, values, logarithmic=True) for name, values in spread.items() if values}
    lengths = {"instances per image": statistics.per_image, "words per prompt": statistics.prompts, "words per answer": statistics.answers}
    figures |= {name: _histogram(name, values) for name, values in lengths.items() if values}
    if statistics.places:
        figures["where instances are"] = _places(statistics)
    return figures


def show_records(path: Path, folder: Path, *, count: int = 8, key: str | None = None, dialogues: int = 6) -> tuple[list[Path], list[str]]:
    """Draws records, spread over the file, each into a PNG that is named by its line and key.

    Returns:
        The pictures, and what went wrong with records that could not be drawn.

    Raises:
        ValueError: when no record has the key.
    """
    records = InstructRecords(path, size=1)
    if key is not None:
        chosen = records.positions(key)
        if not chosen:
            raise ValueError(f"no record of {path} has the key {key!r}; a record without a key has its image's path as key.")
    else:
        chosen = sorted(set(np.linspace(0, len(records) - 1, min(count, len(records))).astype(int).tolist())) if len(records) else []
    folder.mkdir(parents=True, exist_ok=True)
    written, troubles = [], []
    for index in chosen:
        line = records.line(index)
        try:
            record = records.record(index)
            picture = _drawn(record, records.root, dialogues)
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            troubles.append(f"line {line} cannot be shown: {error}")
            continue
        name = re.sub(r"[^\w.-]+", "_", str(record.get("key", Path(record["image"]).stem)))[:80]
        written.append(folder / f"{line:06d}_{name}.png")
        Image.fromarray(picture).save(written[-1])
    return written, troubles


def _drawn(record: Record, root: Path, most: int) -> np.ndarray:
    path = root / record["image"]
    _, scale = remarks_and_range(path)
    values, _ = read_image(path, None, scale, record.get("window"))
    rgb = to_rgb(values, stretch=None if scale.high is None else (2, 98))
    height, width = rgb.shape[:2]
    reader = InstanceMasks(record, lambda name: root / name, height, width)
    entries = record.get("dialogues", [])
    masks: list[Bool[np.ndarray, "h w"]] = []
    labels: list[str] = []
    said: list[tuple[str, str]] = []
    for entry in entries[:most]:
        turns, drawn, classes = reader.dialogue(entry)
        said += [(turn.prompt, turn.answer) for turn in turns]
        masks += list(drawn.numpy())
        labels += [name or "no class" for name in classes]
    if not entries:
        shown = [entry for entry in record.get("instances", []) if "mask" in entry]
        masks = [reader.mask(entry["id"]).numpy() for entry in shown]
        labels = [f"{entry.get('class') or 'no class'} ({entry['id']})" for entry in shown]
        said = [("no dialogue; all instances:", " ".join([SEG] * len(masks)))]
    said += [(f"... and {len(entries) - most} dialogues more", "")] if len(entries) > most else []
    return overlay(rgb, np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool), labels, said)


def _axes(name: str, height: float | int = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(name, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(name: str, counts: Mapping[str, int]) -> Figure:
    figure, axes = _axes(name, 1 + 0.25 * len(counts))
    bars = axes.barh([label[:40] for label in counts], list(counts.values()), color="#2f6f9f")
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    return figure


def _histogram(name: str, values: Sequence[float | int], *, logarithmic: bool = False) -> Figure:
    figure, axes = _axes(name)
    low, high = float(min(values)), float(max(values))
    bins: Any = np.geomspace(low, high * 1.001, 40) if logarithmic and low > 0 else np.linspace(low - 0.5, high + 0.5, int(min(high - low + 2, 41)))
    axes.hist(values, bins=bins, color="#2f6f9f")
    if logarithmic:
        axes.set_xscale("log")
    axes.set_ylabel("count")
    return figure


def _places(statistics: Statistics) -> Figure:
    figure, axes = _axes("where instances are")
    counts = np.array([[statistics.places[f"{row} {column}"] for column in COLUMNS] for row in ROWS])
    axes.imshow(counts, cmap="Blues", vmin=0)
    for row, column in np.ndindex(3, 3):
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color="white" if counts[row, column] > counts.max() / 2 else "black")
    axes.set_xticks(range(3), COLUMNS)
    axes.set_yticks(range(3), ROWS)
    return figure
