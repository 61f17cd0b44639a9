"""What a scene is: an image, the things in it, and what is true of each. Drawn by ``render``, talked about by ``dialogues``."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from numpy import ndarray


@dataclass(frozen=True)
class Instance:
    """One object as seen from above.

    Args:
        name: class name, such as "storage tank".
        colour: the word for its colour where it has a clear one, else None.
        box: visible extent in pixels, ``x1 y1 x2 y2``, x2 and y2 exclusive.
        mask: visible pixels.
        length, width: true footprint in metres, length the longer.
        heading: direction of the long axis in degrees, 0 along the rows, counter-clockwise, in [0, 180).
        visible: share of the footprint inside the image and not hidden, in (0, 1].
        truncated: the footprint crosses the image border.
        distractor_only: never a target: too little of it is seen, or it is part of something else; it still counts against uniqueness.
    """

    name: str
    colour: str | None
    box: tuple[int, int, int, int]
    mask: Bool[ndarray, "h w"]
    length: float
    width: float
    heading: float
    visible: float
    truncated: bool
    distractor_only: bool

    @property
    def area(self) -> int:
        """Visible area in pixels."""
        return int(self.mask.sum())

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box, ``x y`` in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """An overhead image with everything that is known about it.

    Args:
        image: RGB.
        setting: what kind of place it is, such as "harbour" or "residential area".
        gsd: ground sampling distance in metres per pixel.
    """

    image: UInt8[ndarray, "h w 3"]
    instances: tuple[Instance, ...]
    setting: str
    gsd: float
