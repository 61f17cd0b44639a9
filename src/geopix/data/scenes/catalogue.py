"""What the scenes are made of: classes with their true sizes in metres, colours, grounds, and the levels of difficulty."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "white": (246, 246, 242),
    "grey": (147, 149, 153),
    "black": (30, 30, 34),
    "red": (192, 38, 34),
    "orange": (236, 128, 30),
    "yellow": (240, 212, 48),
    "green": (44, 138, 66),
    "blue": (38, 92, 196),
    "brown": (130, 82, 46),
}
"""Colour words and the paint that each stands for; things are painted with small jitter around it."""


@dataclass(frozen=True)
class Kind:
    """A class of things as seen from above.

    Args:
        lengths: range of the longer side in metres.
        aspects: range of width over length.
        height: range in metres; sets the length of the shadow. 0 is painted on the ground.
        layer: painter's order: 0 on the ground, 1 in the water, 2 bridges, 3 vehicles and aircraft, 4 buildings and tanks.
        colours: words that it may be painted in; empty where it has no clear colour.
    """

    lengths: tuple[float, float]
    aspects: tuple[float, float]
    height: tuple[float, float]
    layer: int
    colours: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "baseball diamond": Kind((55.0, 85.0), (1.0, 1.0), (0.0, 0.0), 0),
    "basketball court": Kind((26.0, 32.0), (0.53, 0.58), (0.0, 0.0), 0, ("orange", "blue", "green", "red", "grey", "brown")),
    "bridge": Kind((35.0, 120.0), (0.12, 0.2), (7.0, 10.0), 2),
    "building": Kind((9.0, 45.0), (0.45, 0.95), (4.0, 11.0), 4, ("red", "brown", "grey", "white", "blue", "orange", "green")),
    "ground track field": Kind((150.0, 178.0), (0.5, 0.55), (0.0, 0.0), 0),
    "harbour": Kind((35.0, 90.0), (0.09, 0.16), (2.0, 3.0), 1, ("grey", "brown", "white")),
    "helicopter": Kind((12.0, 19.0), (0.8, 0.85), (3.0, 4.0), 3, ("red", "yellow", "white", "blue", "orange", "green", "black")),
    "helipad": Kind((18.0, 26.0), (1.0, 1.0), (0.0, 0.0), 0, ("grey", "blue", "red", "green")),
    "large vehicle": Kind((9.0, 17.0), (0.19, 0.26), (3.0, 4.0), 3, ("white", "red", "blue", "yellow", "green", "orange")),
    "plane": Kind((22.0, 55.0), (0.88, 1.0), (5.0, 8.0), 3, ("white", "white", "grey", "red", "blue", "yellow")),
    "roundabout": Kind((34.0, 54.0), (1.0, 1.0), (0.0, 0.0), 0),
    "ship": Kind((9.0, 90.0), (0.2, 0.32), (2.0, 6.0), 1, ("white", "grey", "red", "orange", "yellow", "blue", "brown", "green", "black")),
    "small vehicle": Kind((4.2, 5.4), (0.4, 0.46), (1.5, 2.0), 3, ("white", "grey", "black", "red", "blue", "yellow", "green", "orange")),
    "soccer field": Kind((80.0, 108.0), (0.6, 0.68), (0.0, 0.0), 0),
    "storage tank": Kind((11.0, 38.0), (1.0, 1.0), (7.0, 13.0), 4, ("white", "white", "grey", "brown", "green", "red")),
    "swimming pool": Kind((8.0, 22.0), (0.45, 0.65), (0.0, 0.0), 0, ("blue",)),
    "tennis court": Kind((33.0, 37.0), (0.47, 0.52), (0.0, 0.0), 0, ("blue", "green", "red", "orange")),
}

CLASSES: tuple[str, ...] = tuple(sorted(KINDS))
"""Names of all classes, sorted."""

PAINTS: dict[tuple[str, str], RGB] = {
    ("swimming pool", "blue"): (52, 158, 222),
    ("building", "red"): (172, 66, 52),
    ("building", "green"): (70, 130, 88),
    ("building", "blue"): (62, 104, 176),
    ("building", "orange"): (222, 136, 66),
    ("basketball court", "green"): (40, 120, 84),
    ("basketball court", "orange"): (226, 130, 52),
    ("tennis court", "green"): (36, 122, 84),
    ("tennis court", "orange"): (222, 122, 54),
    ("tennis court", "blue"): (48, 98, 178),
    ("storage tank", "brown"): (124, 82, 56),
}
"""Paint of a class where it is not that of the word alone."""


@dataclass(frozen=True)
class Ground:
    """What the ground is made of.

    Args:
        colour: mean colour.
        spread: how far its brightness differs between scenes.
        texture: index of its noise tile (see ``paint``).
        grain: amplitude of that noise in grey levels.
    """

    colour: RGB
    spread: int
    texture: int
    grain: float


GROUNDS: dict[str, Ground] = {
    "grass": Ground((98, 122, 64), 12, 0, 11.0),
    "dry grass": Ground((150, 146, 96), 12, 0, 12.0),
    "lawn": Ground((84, 116, 56), 8, 0, 8.0),
    "soil": Ground((168, 142, 108), 12, 1, 11.0),
    "asphalt": Ground((88, 89, 93), 10, 2, 5.0),
    "concrete": Ground((176, 172, 162), 9, 2, 6.0),
    "water": Ground((34, 68, 88), 9, 3, 7.0),
    "sand": Ground((206, 188, 146), 8, 1, 6.0),
}


@dataclass(frozen=True)
class Level:
    """How hard the scenes are.

    Args:
        count: fewest and most things in a scene.
        zoom: factor on the ground that an image covers; more ground means smaller things.
        smallest: things shorter than this many pixels (of a 128 px image) are left out.
        small: largest share of things shorter than 13 such pixels.
        lean: how much larger things are preferred: a thing's chance goes with its length to this power.
        contrast: least distance in RGB between a thing's paint and its ground.
        canopy: chance that a tree may stand where it hides a part of a thing; a quarter of it is the chance that a thing gets such a tree.
        trees: factor on the number of trees.
        edge: chance that a thing may reach over the border of the image.
        haze: largest share of the contrast that is lost to haze.
        noise: standard deviation of the sensor's noise in grey levels.
    """

    count: tuple[int, int]
    zoom: tuple[float, float]
    smallest: float
    small: float
    lean: float
    contrast: float
    canopy: float
    trees: float
    edge: float
    haze: float
    noise: float


LEVELS: dict[str, Level] = {
    "easy": Level(
        count=(3, 6), zoom=(0.6, 0.8), smallest=10.0, small=0.3, lean=1.2, contrast=110.0, canopy=0.02, trees=0.6, edge=0.15, haze=0.0, noise=1.5,
    ),
    "standard": Level(
        count=(6, 13), zoom=(0.62, 1.0), smallest=4.0, small=0.34, lean=1.6, contrast=95.0, canopy=0.2, trees=1.0, edge=0.35, haze=0.1, noise=2.5,
    ),
    "hard": Level(
        count=(12, 26), zoom=(0.85, 1.35), smallest=4.0, small=0.55, lean=1.0, contrast=60.0, canopy=0.7, trees=1.5, edge=0.5, haze=0.35, noise=4.5,
    ),
}
"""``easy`` (few, large, little hidden), ``standard`` (the median scene has 8 things), ``hard`` (crowds of small things, haze, canopies)."""
