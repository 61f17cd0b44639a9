"""Words for directions in an image, and what they become when the image is flipped or turned.

A text is rewritten only where every word of direction in it is understood; otherwise nothing is returned, and what it says must be left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Sides = Mapping[str, str]
"""Where each side of an image goes: keys and values are left, right, top, bottom."""

SIDES = ("left", "right", "top", "bottom")

_SIDE_OF = {
    "left": "left", "right": "right", "top": "top", "bottom": "bottom", "upper": "top", "lower": "bottom",
    "north": "top", "south": "bottom", "west": "left", "east": "right",
}  # fmt: skip
_COMPASS = {"top": "north", "bottom": "south", "left": "west", "right": "east"}
_RELATION = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
_ITS = {"left": "to its left", "right": "to its right", "top": "above it", "bottom": "below it"}
_WHERE = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}

_NAMED = re.compile(
    r"""\b(?:
      (?P<corner>(?:top|upper|bottom|lower)[ -](?:left|right)) (?P<corner_most>most)?
    | (?P<compass>(?:north|south)[ -]?(?:west|east)|north|south|west|east) (?P<ern>ern(?:most)?)?
    | to\ (?P<its>its|the)\ (?P<its_side>left|right)(?P<of>\ of)?
    | (?P<side_of>left|right)\ of
    | (?P<above>above|below)(?P<it>\ it)?
    | (?P<extreme>leftmost|rightmost|topmost|uppermost|bottommost|lowermost)
    | (?P<preposition>at|on|in)\ the\ (?P<where>left|right|top|bottom)(?![ -](?:left|right))
    | (?P<side>left|right|top|bottom|upper|lower)
    | (?P<axis>horizontal|vertical)(?P<ly>ly)?
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_UNCLEAR = re.compile(
    r"\b(?:\w*clockwise|(?:left|right)-hand|up|down|upwards?|downwards?|leftwards?|rightwards?|under|beneath|underneath|\w*(?:north|south|east|west)\w*(?:wards?|bound))\b"
    r"|\bright (?:angles?|now|next|beside|before|after|there|here)\b|\b(?:is|are|be|been|has|have) left\b",
    re.IGNORECASE,
)
_TURNED = re.compile(r"\b(?:rows?|columns?|tall|wide|width|height|landscape|portrait)\b", re.IGNORECASE)


def redirect(text: str, sides: Sides) -> str | None:
    """A text about an image, made true for the flipped or turned image.

    Args:
        text: a question or an answer.
        sides: where each side of the image goes.

    Returns:
        The text with its words of direction exchanged, or None when a word in it cannot be followed.

    >>> redirect("The ship on the left is above the pier.", {"left": "right", "right": "left", "top": "top", "bottom": "bottom"})
    'The ship on the right is above the pier.'
    >>> redirect("The upper left ship.", {"left": "bottom", "right": "top", "top": "left", "bottom": "right"})
    'The lower left ship.'
    """
    if all(sides[side] == side for side in SIDES):
        return text
    turned = sides["left"] in ("top", "bottom")
    if _UNCLEAR.search(text) or (turned and _TURNED.search(text)):
        return None
    return _NAMED.sub(lambda match: _cased(match[0], _renamed(match, sides, turned)), text)


def _renamed(match: re.Match[str], sides: Sides, turned: bool) -> str:
    part = {name: value.lower() for name, value in match.groupdict().items() if value is not None}
    if "corner" in part:
        style = "upper lower" if part["corner"].startswith(("upper", "lower")) else "top bottom"
        return _corner(re.split("[ -]", part["corner"]), sides, style.split(), match[0][len(re.split("[ -]", part["corner"])[0])]) + part.get("corner_most", "")
    if "compass" in part:
        words = re.findall("north|south|west|east", part["compass"])
        gone = sorted((_COMPASS[sides[_SIDE_OF[word]]] for word in words), key=("north", "south", "west", "east").index)
        between = re.sub("north|south|west|east", "", part["compass"])
        return between.join(gone) + part.get("ern", "")
    if "its" in part:
        side = sides[part["its_side"]]
        if part["its"] == "its":
            return _ITS[side]
        if "of" in part:
            return f"to the {side} of" if side in ("left", "right") else _RELATION[side]
        return f"to the {side}"
    if "side_of" in part:
        return _RELATION[sides[part["side_of"]]]
    if "above" in part:
        side = sides["top" if part["above"] == "above" else "bottom"]
        return _ITS[side] if "it" in part else _RELATION[side]
    if "extreme" in part:
        return sides[{"uppermost": "top", "lowermost": "bottom"}.get(part["extreme"], part["extreme"].removesuffix("most"))] + "most"
    if "preposition" in part:
        side = sides[part["where"]]
        return _WHERE[side] if turned else f"{part['preposition']} the {side}"
    if "axis" in part:
        return ({"horizontal": "vertical", "vertical": "horizontal"}[part["axis"]] if turned else part["axis"]) + part.get("ly", "")
    side = sides[_SIDE_OF[part["side"]]]
    return {"top": "upper", "bottom": "lower"}.get(side, side) if part["side"] in ("upper", "lower") else side


def _corner(words: list[str], sides: Sides, rows: list[str], between: str) -> str:
    gone = {sides[_SIDE_OF[word]] for word in words}
    return f"{rows[0] if 'top' in gone else rows[1]}{between}{'left' if 'left' in gone else 'right'}"


def _cased(before: str, after: str) -> str:
    return after[:1].upper() + after[1:] if before[:1].isupper() else after
