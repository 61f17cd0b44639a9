"""Text on paper for pictures: wrapped paragraphs, legends, and the numbered chips that stand for masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geopix.types import SEG

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (27, 31, 36)
MUTED: Colour = (107, 114, 128)
LINE: Colour = (222, 226, 231)


class Sheet:
    """Paper of fixed width on which text and legend entries are set from top to bottom; it grows as needed."""

    def __init__(self, width: int, size: int) -> None:
        self.width, self.size = width, size
        self.line, self.pad = round(size * 1.45), size
        self.y = float(round(size * 0.7))
        self._paper = Image.new("RGB", (width, 8 * self.line), PAPER)

    def image(self, foot: float | int = 0.7) -> Image.Image:
        """What was written so far, cut below the last line."""
        return self._paper.crop((0, 0, self.width, round(self.y + foot * self.size)))

    def space(self, lines: float | int) -> None:
        """Leaves lines blank."""
        self.y += lines * self.line

    def paragraph(self, text: str, *, bold: bool = False, colour: Colour = INK, numbers: Iterator[int] | None = None) -> None:
        """Wraps text to the width; each ``[SEG]`` becomes the chip of the next of ``numbers``."""
        self.y = self._text(text, self.pad, self.width - 2 * self.pad, bold=bold, colour=colour, numbers=numbers)

    def legend(self, rows: Sequence[tuple[int, str, str]]) -> None:
        """One entry per mask, number and label and note, in as many columns as are legible."""
        if not rows:
            self.paragraph("no mask", colour=MUTED)
            return
        inner = self.width - 2 * self.pad
        columns = max(1, min(len(rows), inner // (self.size * 19)))
        cell = inner // columns
        font = _font(self.size, False)
        notch = round(max(chip_width(number, self.size) for number, _, _ in rows) + 0.6 * self.size)
        for start in range(0, len(rows), columns):
            bottoms = []
            for place, (number, label, note) in enumerate(rows[start : start + columns]):
                left = self.pad + place * cell
                end = font.getlength(note) + self.size * (2.4 if columns > 1 else 0.8)
                bottoms.append(self._text(label, left + notch, cell - notch - end, lines=3))
                draw = ImageDraw.Draw(self._paper)
                chip(draw, number, left, self.y + self.line / 2, self.size)
                draw.text((left + cell - end + 0.8 * self.size, self.y + self.line / 2), note, MUTED, font, anchor="lm")
            self.y = max(bottoms) + 0.3 * self.size

    def _text(
        self,
        text: str,
        left: float | int,
        width: float | int,
        *,
        bold: bool = False,
        colour: Colour = INK,
        numbers: Iterator[int] | None = None,
        lines: int = 0,
    ) -> float | int:
        font = _font(self.size, bold)
        wrapped = _wrap(_clean(text), font, max(width, 4 * self.size), numbers, self.size)
        if lines and len(wrapped) > lines:
            wrapped = [*wrapped[: lines - 1], [*wrapped[lines - 1], "…"]]
        y = self.y
        for words in wrapped:
            self._reach(y + self.line)
            draw, x = ImageDraw.Draw(self._paper), left
            for word in words:
                if isinstance(word, int):
                    chip(draw, word, x, y + self.line / 2, self.size)
                else:
                    draw.text((x, y + self.line / 2), word, colour, font, anchor="lm")
                x += _length(word, font, self.size)
            y += self.line
        return y

    def _reach(self, bottom: float) -> None:
        if bottom + self.line > self._paper.height:
            taller = Image.new("RGB", (self.width, round(2 * bottom + self.line)), PAPER)
            taller.paste(self._paper, (0, 0))
            self._paper = taller


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float | int, numbers: Iterator[int] | None, size: int) -> list[list[str | int]]:
    lines: list[list[str | int]] = [[]]
    room = width
    for word in re.findall(r"\S+\s?", text):
        parts: list[str | int] = []
        for part in re.split(f"({re.escape(SEG)})", word):
            if part:
                parts.append(next(numbers) if part == SEG and numbers is not None else part)
        need = sum(_length(part, font, size) for part in parts)
        if need > width:
            parts = [letter for part in parts for letter in ([part] if isinstance(part, int) else part)]
        for group in [parts] if need <= width else [[part] for part in parts]:
            need = sum(_length(part, font, size) for part in group)
            if need > room and lines[-1]:
                lines.append([])
                room = width
            lines[-1] += group
            room -= need
    return lines


def _length(part: str | int, font: ImageFont.FreeTypeFont, size: int) -> float | int:
    return chip_width(part, size) + 0.15 * size if isinstance(part, int) else font.getlength(part)


def chip_width(number: int, size: int) -> int:
    """Pixels that the chip of a number takes beside text of ``size`` pixels; it is ``1.25 * size`` high."""
    return max(round(1.25 * size), round(_font(round(0.85 * size), True).getlength(str(number)) + 0.7 * size))


def chip(draw: ImageDraw.ImageDraw, number: int, left: float | int, middle: float | int, size: int, edge: Colour | None = None) -> None:
    """Draws a mask's number, counted from 1, on its colour; ``middle`` is the chip's vertical centre."""
    colour, half = colours()[(number - 1) % len(colours())], 0.625 * size
    right = left + chip_width(number, size)
    draw.rounded_rectangle((left, middle - half, right, middle + half), radius=round(0.4 * size), fill=colour, outline=edge)
    ink = INK if np.dot(colour, (0.299, 0.587, 0.114)) > 125 else PAPER
    draw.text(((left + right) / 2, middle), str(number), ink, _font(round(0.85 * size), True), anchor="mm")


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def colours(number: int = 32) -> tuple[Colour, ...]:
    """Bright colours, each as far as possible from all before it in CIELAB; far from the grey, green and brown of the ground."""
    levels = np.array(list(np.ndindex(9, 9, 9)), np.float32)[:, None] / 8
    lab = cv2.cvtColor(levels, cv2.COLOR_RGB2LAB)[:, 0]
    vivid = (np.hypot(lab[:, 1], lab[:, 2]) > 45) & (lab[:, 0] > 42)
    levels, lab = levels[vivid, 0], lab[vivid]
    start = np.array([[1, 0.13, 0.25]], np.float32)
    avoid = np.concatenate([cv2.cvtColor(start[:, None], cv2.COLOR_RGB2LAB)[:, 0], np.array([[35, -12, 14], [50, 5, 15], [60, 0, 0]], np.float32)])
    distance = np.linalg.norm(lab[:, None] - avoid[None], axis=-1).min(1)
    chosen: list[np.ndarray] = [start[0]]
    while len(chosen) < number:
        best = int(distance.argmax())
        chosen.append(levels[best])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=-1))
    return tuple((int(r), int(g), int(b)) for r, g, b in np.rint(np.array(chosen) * 255))
