"""Class names as records write them: in lower case with blanks, the same thing always under the same name.

Data sets spell one class in many ways ("storagetank", "storage-tank", "storage_tank"). A spelling is looked up by its letters and digits alone; different
words for one thing are equal only where ``ALIASES`` says so.
"""

from __future__ import annotations

import re

from geopix.data.sources.reader import Report

DIOR = (
    "airplane", "airport", "baseball field", "basketball court", "bridge", "chimney", "expressway service area", "expressway toll station", "dam",
    "golf field", "ground track field", "harbor", "overpass", "ship", "stadium", "storage tank", "tennis court", "train station", "vehicle", "windmill",
)  # fmt: skip
"""In the id order of SAMRS's SIOR."""

DOTA = (
    "large vehicle", "swimming pool", "helicopter", "bridge", "plane", "ship", "soccer ball field", "basketball court", "ground track field",
    "small vehicle", "baseball diamond", "tennis court", "roundabout", "storage tank", "harbor", "container crane", "airport", "helipad",
)  # fmt: skip
"""In the id order of SAMRS's SOTA."""

FAIR1M = (
    "a220", "a321", "a330", "a350", "arj21", "baseball field", "basketball court", "boeing 737", "boeing 747", "boeing 777", "boeing 787", "bridge",
    "bus", "c919", "cargo truck", "dry cargo ship", "dump truck", "engineering ship", "excavator", "fishing boat", "football field", "intersection",
    "liquid cargo ship", "motorboat", "other airplane", "other ship", "other vehicle", "passenger ship", "roundabout", "small car", "tennis court",
    "tractor", "trailer", "truck tractor", "tugboat", "van", "warship",
)  # fmt: skip
"""In the id order of SAMRS's FAST."""

OTHERS = (
    "road", "car", "building", "truck", "road marking", "bikeway", "sidewalk", "tree", "low vegetation", "impervious surface", "water", "barren", "forest",
    "agriculture", "background",
)  # fmt: skip
"""Of RefSegRS and LoveDA."""

ALIASES = {"airplane": "plane", "baseball field": "baseball diamond", "harbor": "harbour", "soccer ball field": "soccer field"}
"""Other words for the same thing, and the name that scenes and memories know it by. FAIR1M's football field stays apart: it may be American football's."""


def letters(text: str) -> str:
    """A spelling without case, hyphens, underscores and blanks.

    >>> letters("Expressway-Service-area")
    'expresswayservicearea'
    """
    return re.sub(r"[^a-z0-9]", "", text.lower())


_KNOWN = {letters(name): ALIASES.get(name, name) for name in (*DIOR, *DOTA, *FAIR1M, *OTHERS, *ALIASES.values())}


def class_name(text: object, report: Report) -> str | None:
    """The name of a class in whatever spelling; one that is in no table keeps its own words, and is counted.

    >>> class_name("baseballfield", Report()), class_name("storagetank", Report()), class_name(" ", Report())
    ('baseball diamond', 'storage tank', None)
    """
    spelt = " ".join(re.sub(r"[-_]", " ", str(text)).lower().split())
    if not spelt:
        return None
    if letters(spelt) not in _KNOWN:
        report.note("class outside the tables")
    return _KNOWN.get(letters(spelt), spelt)


def known_class(text: str) -> str | None:
    """The class that a phrase is the name of, if it is one."""
    return _KNOWN.get(letters(text))
