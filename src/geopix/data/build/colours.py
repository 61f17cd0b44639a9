"""The colour of a thing in a word, measured in CIELAB; "unsure" wherever two people could name it differently.

Each word has a box of lightness L, chroma C and hue h (CIE 1976, D65). A pixel *clearly* has the word when it lies inside by a margin, and *perhaps*
when it lies inside the box grown by the margin; the boxes of neighbouring words overlap there, so what is between two words is perhaps both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

ANY_HUE = (0.0, 360.0)
BOXES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "white": ((82.0, 110.0), (-5.0, 11.0), ANY_HUE),
    "grey": ((42.0, 72.0), (-5.0, 11.0), ANY_HUE),
    "black": ((-5.0, 31.0), (-5.0, 11.0), ANY_HUE),
    "red": ((20.0, 75.0), (32.0, 200.0), (8.0, 46.0)),
    "orange": ((48.0, 90.0), (40.0, 200.0), (46.0, 78.0)),
    "yellow": ((55.0, 110.0), (36.0, 200.0), (78.0, 112.0)),
    "green": ((18.0, 95.0), (15.0, 200.0), (128.0, 185.0)),
    "blue": ((12.0, 95.0), (15.0, 200.0), (215.0, 306.0)),
    "brown": ((14.0, 48.0), (14.0, 44.0), (40.0, 82.0)),
    "beige": ((56.0, 95.0), (12.0, 36.0), (56.0, 106.0)),
}
"""Words with their ranges of lightness, chroma and hue in degrees."""
MARGINS = (4.0, 3.0, 5.0)
LOOSE: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "white": ((73.0, 110.0), (-1.0, 16.0), ANY_HUE),
    "grey": ((28.0, 80.0), (-1.0, 16.0), ANY_HUE),
    "black": ((-1.0, 48.0), (-1.0, 16.0), ANY_HUE),
    "green": ((12.0, 100.0), (10.0, 200.0), (100.0, 190.0)),
    "red": ((15.0, 85.0), (22.0, 200.0), (0.0, 52.0)),
    "orange": ((36.0, 95.0), (22.0, 200.0), (40.0, 88.0)),
    "brown": ((8.0, 70.0), (10.0, 60.0), (34.0, 88.0)),
}
"""Where people use a word more freely than the margin allows: terracotta, dirt, what haze makes of black, leaves that hang over a roof."""
WORDS = tuple(BOXES)
NEUTRALS = 3
ALL = (1 << len(WORDS)) - 1

CLEAR_SHARE = 0.45
"""So much of a thing clearly has the colour that it is called by."""
MIXED_SHARE = 0.22
"""Another word that so much of it clearly has makes it unsure."""
NEUTRAL_SHARE = 0.06
"""The same between white, grey and black, which light and shade turn into each other."""
PERHAPS_SHARE = 0.08
"""A word that so much of it has perhaps is a possible name."""
NAMED_SHARE = 0.5
"""Where less of it lies in any word's box, any word is possible."""
FEW = 25
"""Of fewer pixels nobody can tell."""
BITS = 5


@dataclass(frozen=True)
class Colour:
    """What a thing may be called.

    Args:
        word: its colour where nobody would say otherwise, else None.
        possible: bit ``i`` is set where somebody could call it ``WORDS[i]``; never 0.
        share: of its pixels, those that clearly have the word.
    """

    word: str | None
    possible: int
    share: float = 0.0


UNSURE = Colour(None, ALL)


def name_colour(pixels: UInt8[ndarray, "n 3"]) -> Colour:
    """The colour of a thing from its pixels, red, green, blue."""
    if len(pixels) < FEW:
        return UNSURE
    patterns, clear, perhaps = _tables()
    codes = (pixels >> (8 - BITS)).astype(np.uint16)
    index = (codes[:, 0] << 2 * BITS) | (codes[:, 1] << BITS) | codes[:, 2]
    numbers = np.bincount(patterns[index], minlength=len(clear))
    clear_shares, perhaps_shares = numbers @ clear / len(pixels), numbers @ perhaps / len(pixels)
    order = np.argsort(-clear_shares, kind="stable")
    first = int(order[0])
    mixed = any(clear_shares[other] >= (NEUTRAL_SHARE if max(first, other) < NEUTRALS else MIXED_SHARE) for other in order[1:])
    named = float(numbers @ perhaps.any(axis=1)) / len(pixels)
    possible = ALL if named < NAMED_SHARE else sum(1 << word for word in range(len(WORDS)) if perhaps_shares[word] >= PERHAPS_SHARE)
    if clear_shares[first] >= CLEAR_SHARE and not mixed and named >= NAMED_SHARE:
        return Colour(WORDS[first], possible | 1 << first, round(float(clear_shares[first]), 3))
    return Colour(None, possible or ALL, round(float(clear_shares[first]), 3))


@cache
def _tables() -> tuple[UInt8[ndarray, " codes"], Int64[ndarray, "patterns words"], Int64[ndarray, "patterns words"]]:
    """For every colour of ``BITS`` bits per band its pattern of words, and for each pattern whether a colour clearly and perhaps has each word."""
    steps = (np.arange(1 << BITS, dtype=np.float32) + 0.5) / (1 << BITS)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[:, 0]
    chroma, hue = np.hypot(lab[:, 1], lab[:, 2]), np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    clear, perhaps = np.zeros(len(rgb), np.uint16), np.zeros(len(rgb), np.uint16)
    for bit, (word, box) in enumerate(BOXES.items()):
        for table, sign, bounds in ((clear, 1.0, box), (perhaps, -1.0, box), (perhaps, 0.0, LOOSE.get(word, box))):
            inside = np.ones(len(rgb), dtype=bool)
            for value, (low, high), margin in zip((lab[:, 0], chroma, hue), bounds, MARGINS, strict=True):
                if (low, high) != ANY_HUE:
                    inside &= (value >= low + sign * margin) & (value <= high - sign * margin)
            table[inside] |= np.uint16(1 << bit)
    pairs, patterns = np.unique(np.stack([clear, perhaps]), axis=1, return_inverse=True)
    has = pairs[:, :, None] >> np.arange(len(WORDS), dtype=np.uint16) & 1
    return patterns.reshape(-1).astype(np.uint8), has[0].astype(np.int64), has[1].astype(np.int64)


def words_of(possible: int) -> list[str]:
    """The words whose bits are set."""
    return [word for bit, word in enumerate(WORDS) if possible >> bit & 1]
