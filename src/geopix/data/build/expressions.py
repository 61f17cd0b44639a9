"""What is said of things, as data: a class with conditions. Tuples, since they are made and looked up thousands of times for an image."""

from __future__ import annotations

from typing import Any, NamedTuple

SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
LINES = ("horizontal", "vertical", "diagonal")


class Condition(NamedTuple):
    """One thing that is said.

    Args:
        kind: ``colour``, ``cell``, ``orientation``, ``longer``, ``shorter``, ``alone``, ``direction``, ``beside`` (which keep some of the things); ``size``,
            ``edge``, ``rank``, ``nearest``, ``top`` (which then rank what is kept); ``cluster`` (a number of things close together).
        word: the colour, the cell, the line, the direction, or by what is ranked, such as "largest" or "from the left".
        value: metres, or the place in a rank from 0, or how many.
        anchor: what a direction, ``beside`` and ``nearest`` start from.
    """

    kind: str
    word: str = ""
    value: int = 0
    anchor: Expression | None = None

    def data(self) -> dict[str, Any]:
        """As the provenance writes it."""
        said: dict[str, Any] = {"kind": self.kind}
        if self.word:
            said["word"] = self.word
        if self.kind in ("longer", "shorter", "rank", "top", "cluster"):
            said["value"] = self.value
        return said if self.anchor is None else said | {"anchor": self.anchor.data()}


class Expression(NamedTuple):
    """A class and what else is said; at most one condition ranks."""

    name: str
    conditions: tuple[Condition, ...] = ()

    @property
    def type(self) -> str:
        """Its conditions' kinds, sorted and joined: "class", "colour", "cell+colour"."""
        return "+".join(sorted(condition.kind for condition in self.conditions)) or "class"

    def says(self, kind: str) -> Condition | None:
        """The condition of a kind, if there is one."""
        return next((condition for condition in self.conditions if condition.kind == kind), None)

    def data(self) -> dict[str, Any]:
        """As the provenance writes it."""
        return {"class": self.name, "conditions": [condition.data() for condition in self.conditions]}


RANKING = ("size", "edge", "rank", "nearest", "top", "cluster")
ENDS: dict[str, tuple[str, bool]] = {
    "largest": ("area", True), "smallest": ("area", False), "large": ("area", True), "small": ("area", False),
    "leftmost": ("x", False), "rightmost": ("x", True), "topmost": ("y", False), "bottommost": ("y", True),
    "from the left": ("x", False), "from the right": ("x", True), "from the top": ("y", False), "from the bottom": ("y", True),
}  # fmt: skip
"""What a ranking orders by, and whether from the far end."""
