"""Pictures a person looks at: masks on images with a legend, asked against truth against drawn, and curves of a run.

Everything here takes numpy arrays and gives numpy arrays or a file; nothing knows a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from geopix.typeset import INK, LINE, MUTED, PAPER, Colour, Sheet, chip, chip_width, colours

RGB = UInt8[np.ndarray, "_ _ 3"]

SMALLEST, LARGEST = 384, 1600
COLUMN = 400
"""Longest side of one image of a :func:`panel`, in pixels."""


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Bool[np.ndarray, "m h w"],
    labels: Sequence[str],
    dialogues: Sequence[tuple[str, str]] = (),
) -> RGB:
    """The image with its masks, numbered, above (or, for a tall image, left of) a panel that names them.

    The panel holds the dialogues, in whose answers each ``[SEG]`` becomes the numbered chip of its mask, and one line per
    mask with its colour, label and area. Images under 384 pixels are enlarged by whole factors, those over 1600 reduced.

    Args:
        labels: one per mask.
        dialogues: prompt and answer of each question; the ``[SEG]`` of all answers count through the masks, in order.

    Raises:
        ValueError: when masks and image, or masks and labels, do not go together.
    """
    _check(image, masks, "masks")
    if len(labels) != len(masks):
        raise ValueError(f"{len(labels)} labels for {len(masks)} masks; give one label per mask.")
    shown = _paint(image, masks, SMALLEST, LARGEST)
    beside = shown.height > 1.6 * shown.width
    size = min(24, max(13, round(max(shown.size) / 52)))
    sheet = Sheet(max(shown.width, SMALLEST), size)
    numbers = count(1)
    for prompt, answer in dialogues:
        sheet.paragraph(prompt, bold=True)
        sheet.paragraph(answer, numbers=numbers)
        sheet.space(0.5)
    sheet.legend([(number, label, _area(mask)) for number, (label, mask) in enumerate(zip(labels, masks, strict=True), 1)])
    return np.asarray(_join([shown, sheet.image()], across=beside))


def panel(
    image: UInt8[np.ndarray, "h w 3"],
    question: str,
    truth: Bool[np.ndarray, "t h w"],
    drawn: Bool[np.ndarray, "m h w"],
    answer: str,
    true_answer: str,
) -> RGB:
    """Asked, truth and drawn side by side, with the IoU of each pair of masks in their order.

    A mask that was not drawn has IoU 0, empty against empty 1; a mask beyond the truth is listed as extra.
    """
    _check(image, truth, "true masks")
    _check(image, drawn, "drawn masks")
    notes = [f"IoU {_iou(t, d):.2f}" for t, d in zip(truth, drawn, strict=False)]
    pairs = [(i, "drawn mask", note) for i, note in enumerate(notes, 1)]
    pairs += [(i, "not drawn", "IoU 0.00") for i in range(len(drawn) + 1, len(truth) + 1)]
    pairs += [(i, "extra mask", "in no pair") for i in range(len(truth) + 1, len(drawn) + 1)]
    none = np.zeros((0, *image.shape[:2]), dtype=bool)
    columns = []
    for title, masks, text, rows in (
        ("asked", none, question, None),
        ("truth", truth, true_answer, [(i, "true mask", _area(mask)) for i, mask in enumerate(truth, 1)]),
        ("drawn", drawn, answer, pairs),
    ):
        shown = _paint(image, masks, COLUMN, COLUMN)
        head = Sheet(max(shown.width, 320), 14)
        head.paragraph(title, colour=MUTED, bold=True)
        sheet = Sheet(head.width, 14)
        sheet.paragraph(text or "(no words)", bold=rows is None, numbers=count(1), colour=INK if text else MUTED)
        if rows is not None:
            sheet.space(0.35)
            sheet.legend(rows)
        columns.append(_join([head.image(foot=0.0), shown, sheet.image()], across=False))
    return np.asarray(_join(columns, across=True, gap=12))


def contact_sheet(panels: Sequence[RGB], columns: int = 1) -> RGB:
    """Pictures of any sizes in rows of ``columns``, each in a cell as wide as its column and as high as its row."""
    if not panels or columns < 1:
        raise ValueError(f"a contact sheet needs at least one picture and one column; found {len(panels)} pictures, {columns} columns.")
    gap = 12
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(len(rows[0]))]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), sum(widths) + gap * (len(widths) + 1), 3), LINE, dtype=np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for cell, width in zip(row, widths, strict=False):
            sheet[top : top + height, left : left + width] = PAPER
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
            left += width + gap
        top += height + gap
    return sheet


def to_rgb(
    image: Float[np.ndarray, "c h w"] | Float[Tensor, "c h w"],
    bands: Sequence[int] | None = None,
    *,
    stretch: tuple[float | int, float | int] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """An image of any number of bands in 0..1 as 8-bit colour.

    Args:
        bands: three bands for red, green and blue, or one for grey, counted from 0. By default the first three, or the first where there are fewer.
        stretch: two percentiles between which each shown band is stretched; by default nothing is stretched, so pictures can be compared.

    Raises:
        ValueError: when a band does not exist.
    """
    values = image.detach().float().cpu().numpy() if isinstance(image, Tensor) else image
    available = len(values)
    chosen = list(bands) if bands is not None else [0, 1, 2] if available >= 3 else [0]
    if len(chosen) not in (1, 3) or not all(0 <= band < available for band in chosen):
        raise ValueError(f"cannot show bands {chosen} of an image with {available} bands; give one or three numbers from 0 to {available - 1}.")
    shown = np.nan_to_num(values[chosen].astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    if stretch is not None:
        low, high = (np.percentile(shown, q, axis=(1, 2), keepdims=True) for q in stretch)
        shown = (shown - low) / np.maximum(high - low, 1e-6)
    picture = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0))


def curves(history: Mapping[str, Sequence[tuple[int, float | int]]], path: Path, marks: Sequence[tuple[int, str]] = ()) -> None:
    """Writes a PNG with one small plot per quantity: those of training first, then those whose name starts with ``val/``.

    Args:
        history: pairs of step and value by name; values that are not finite are left out.
        marks: steps at which a stage begins, with its name, drawn as vertical lines.
    """
    known = {name: [(s, v) for s, v in points if math.isfinite(v)] for name, points in history.items()}
    known = {name: points for name, points in known.items() if points}
    groups = [("training", [n for n in known if not n.startswith("val/")]), ("validation", [n for n in known if n.startswith("val/")])]
    groups = [(title, names) for title, names in groups if names] or [("nothing was logged", [])]
    across = min(4, max(2, *(len(names) for _, names in groups)))
    rows = [max(1, math.ceil(len(names) / across)) for _, names in groups]
    heights = [0.45 + 2.1 * each for each in rows]
    width = 3.3 * across
    figure = Figure(figsize=(width, sum(heights)), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    last = max((points[-1][0] for points in known.values()), default=1)
    parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)
    for part, height, down, (title, names) in zip(parts[:, 0], heights, rows, groups, strict=True):
        part.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold", color=_hex(INK))
        # Margins in inches: a layout that measures every text takes many times as long as the drawing.
        margins = {"left": 0.5 / width, "right": 1 - 0.12 / width, "top": 1 - 0.6 / height, "bottom": 0.3 / height, "wspace": 0.22, "hspace": 0.42}
        cells = part.subplots(down, across, squeeze=False, gridspec_kw=margins).flat
        for cell, name in zip(cells, [*names, *[""] * across], strict=False):
            if name:
                _curve(cell, name.removeprefix("val/").removeprefix("train/"), known[name], marks, last)
            else:
                cell.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _curve(axes: Axes, name: str, points: Sequence[tuple[int, float | int]], marks: Sequence[tuple[int, str]], last: int) -> None:
    steps, values = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    blue = "#2457d6"
    if len(values) > 40:
        window = max(3, len(values) // 40)
        weights = np.ones(window)
        smooth = np.convolve(values, weights, "same") / np.convolve(np.ones_like(values), weights, "same")
        axes.plot(steps, values, color=blue, alpha=0.22, linewidth=0.8)
        axes.plot(steps, smooth, color=blue, linewidth=1.5)
    else:
        axes.plot(steps, values, color=blue, linewidth=1.5, marker="o", markersize=2.6)
    for step, label in marks:
        axes.axvline(step, color=_hex(MUTED), linewidth=0.8, linestyle=(0, (3, 2)))
        axes.text(step + 0.012 * last, 0.975, label, transform=axes.get_xaxis_transform(), va="top", fontsize=7, color=_hex(MUTED), clip_on=True)
    axes.set_title(name if len(name) <= 34 else name[:33] + "…", loc="left", fontsize=9, color=_hex(INK))
    axes.set_title(f"{values[-1]:.3g}", loc="right", fontsize=9, color=blue)
    axes.set_xlim(-0.01 * max(last, 1), max(last, 1) * 1.02)
    axes.margins(y=0.08)
    bottom, top = axes.get_ylim()
    bottom = 0.0 if values.min() >= 0 else bottom
    axes.set_ylim(bottom, top + (0.12 * (top - bottom) if marks else 0))  # a free band for the names of the marks
    axes.tick_params(labelsize=7, colors=_hex(MUTED), length=2)
    axes.grid(color=_hex(LINE), linewidth=0.6)
    for side in axes.spines.values():
        side.set_color(_hex(LINE))


def _paint(image: np.ndarray, masks: np.ndarray, smallest: int, largest: int) -> Image.Image:
    """The image at a legible size with masks over it: the large ones first, so that none hides a smaller one."""
    longest = max(image.shape[:2])
    factor = math.ceil(smallest / longest) if longest < smallest else 1
    scale = largest / longest if longest > largest else min(factor, largest // longest)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    nearest = scale >= 1
    canvas = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST if nearest else Image.Resampling.BOX)).copy()
    shapes = [_resize(mask, size, nearest) for mask in masks]
    half = max(1, round(max(size) / 900))
    for index in sorted(range(len(shapes)), key=lambda i: -int(shapes[i].sum())):
        _stain(canvas, shapes[index], colours()[index % len(colours())], half)
    shown = Image.fromarray(canvas)
    _number(shown, shapes, min(24, max(12, round(max(size) / 58))))
    return shown


def _resize(mask: np.ndarray, size: tuple[int, int], nearest: bool) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    if nearest:
        return np.asarray(picture.resize(size, Image.Resampling.NEAREST)) > 0
    covered = np.asarray(picture.resize(size, Image.Resampling.BOX))
    # what is thinner than a pixel of the smaller picture would vanish at one half
    return covered > 127 if (covered > 127).any() else covered > 0


def _stain(canvas: np.ndarray, mask: np.ndarray, colour: Colour, half: int) -> None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    margin = half + 2
    crop = (slice(max(rows[0] - margin, 0), rows[-1] + margin + 1), slice(max(columns[0] - margin, 0), columns[-1] + margin + 1))
    inside, region = mask[crop].astype(np.uint8), canvas[crop]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    outer = cv2.dilate(inside, cross, iterations=half)
    ring = (outer - cv2.erode(inside, cross, iterations=half, borderValue=0)).astype(bool)
    halo = (cv2.dilate(outer, cross) - outer).astype(bool)
    for where, shade, strength in ((inside > 0, colour, 0.38), (halo, (0, 0, 0), 0.6), (ring, colour, 1.0)):
        region[where] = np.rint(region[where] * (1 - strength) + np.array(shade) * strength).astype(np.uint8)


def _number(shown: Image.Image, shapes: Sequence[np.ndarray], size: int) -> None:
    """Sets each mask's number into its widest place, or beside it where it, or its largest part, is too small, clear of other masks and numbers."""
    draw = ImageDraw.Draw(shown)
    taken = np.zeros((shown.height, shown.width), np.float32)
    topmost = np.zeros((shown.height, shown.width), np.int32)
    order = sorted(enumerate(shapes, 1), key=lambda item: -int(item[1].sum()))
    for number, shape in order:
        taken[shape], topmost[shape] = 1, number
    for number, shape in order:
        rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        if not len(rows):
            continue
        wide, high = chip_width(number, size), round(1.25 * size)
        visible = np.pad(topmost[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == number, 1).astype(np.uint8)
        depth = cv2.distanceTransform(visible, cv2.DIST_L2, 5)[1:-1, 1:-1]
        if depth.max() >= 0.75 * wide:
            # of the equally deep places of a long shape, the one nearest to its middle
            ys, xs = np.nonzero(depth >= 0.97 * depth.max())
            nearest = np.argmin((2 * ys - depth.shape[0]) ** 2 + (2 * xs - depth.shape[1]) ** 2)
            left, top = int(columns[0] + xs[nearest]) - wide // 2, int(rows[0] + ys[nearest]) - high // 2
        else:
            _, _, parts, _ = cv2.connectedComponentsWithStats(shape.astype(np.uint8))
            x, y, across, down, _ = parts[1 + int(parts[1:, cv2.CC_STAT_AREA].argmax())].tolist()
            left, top = _beside(taken, (x, y, x + across - 1, y + down - 1), wide, high)
        left, top = min(max(left, 0), max(shown.width - wide - 1, 0)), min(max(top, 0), max(shown.height - high - 1, 0))
        chip(draw, number, left, top + high / 2, size, edge=(20, 20, 20))
        taken[top : top + high, left : left + wide] = 9


def _beside(taken: np.ndarray, box: tuple[int, int, int, int], wide: int, high: int) -> tuple[int, int]:
    x0, y0, x1, y1 = box
    best, place = math.inf, (x0, y0)
    for gap in (3, 3 + high // 2, 3 + high):
        middle, centre = (x0 + x1 - wide) // 2, (y0 + y1 - high) // 2
        right, left, above, below = x1 + gap, x0 - wide - gap, y0 - high - gap, y1 + gap
        for x, y in ((right, above), (right, centre), (middle, above), (left, above), (right, below), (middle, below), (left, centre), (left, below)):
            if 0 <= x < taken.shape[1] - wide and 0 <= y < taken.shape[0] - high:
                cost = float(taken[y : y + high, x : x + wide].sum()) + 2 * gap
                if cost < best:
                    best, place = cost, (x, y)
    return place


def _join(parts: Sequence[Image.Image], *, across: bool, gap: int = 0) -> Image.Image:
    """Parts beside one another from the top, or below one another and centred."""
    room = gap * (len(parts) - 1)
    widths, heights = [part.width for part in parts], [part.height for part in parts]
    size = (sum(widths) + room, max(heights)) if across else (max(widths), sum(heights) + room)
    sheet = Image.new("RGB", size, PAPER)
    start = 0
    for part in parts:
        sheet.paste(part, (start, 0) if across else ((sheet.width - part.width) // 2, start))
        start += gap + (part.width if across else part.height)
    return sheet


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _area(mask: np.ndarray) -> str:
    area = int(mask.sum())
    return f"{area:,} px".replace(",", "\N{NARROW NO-BREAK SPACE}") if area else "empty"


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _check(image: np.ndarray, masks: np.ndarray, name: str) -> None:
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(f"{name} of {masks.shape[1:]} rows and columns do not fit an image of {image.shape[:2]}; bring them to the image's own size.")
