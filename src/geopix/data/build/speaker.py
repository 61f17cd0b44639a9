"""What every rule speaks with: the image, chance, the classes of the set, and the words for what is proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from geopix.data.build.expressions import Expression
from geopix.data.build.propose import Finder
from geopix.data.build.rewrite import Rewriting
from geopix.data.build.view import View, indices
from geopix.data.build.words import phrase
from geopix.data.records import dialogue
from geopix.types import Turn


@dataclass(frozen=True)
class Said:
    """A dialogue with where it comes from.

    Args:
        targets: for each ``[SEG]``, the things it covers, as bits.
        sentences: what each phrase or statement rests on.
    """

    task: str
    rule: str
    turns: tuple[Turn, ...]
    targets: tuple[int, ...] = ()
    sentences: tuple[dict[str, Any], ...] = ()

    def record(self, view: View) -> dict[str, Any]:
        """As a dialogue of the format, with its ``provenance``."""
        ids = [[view.ids[index] for index in indices(target)] for target in self.targets]
        return dialogue(self.task, self.turns, ids) | {"provenance": {"rule": self.rule, "sentences": list(self.sentences)}}


@dataclass
class Speaker:
    """One image that is spoken about.

    Args:
        finder: what can be proved about it.
        image: its file, for rewriters that look.
        rewriting: where phrases are reworded; None where they stay as the rules write them.
        tally: counts what happened: proved, rewritten, refused.
    """

    finder: Finder
    image: str = ""
    rewriting: Rewriting | None = None
    tally: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.view, self.rng = self.finder.view, self.finder.rng

    def words(self, expression: Expression, wanted: int, turn: int = 0, *, many: bool = False) -> tuple[str, dict[str, Any]]:
        """A phrase for what is proved, and what it rests on."""
        text = phrase(expression, self.rng, many=many)
        said = self.evidence(expression, text, wanted, turn)
        if self.rewriting is not None and not many and wanted.bit_count() == 1:
            thing = self.view.things[wanted.bit_length() - 1]
            facts = said | {"colour": thing.colour.word, "box": thing.box, "image": self.image}
            new, verdict = self.rewriting.reword(self.view, text, wanted, facts)
            self.tally[f"rewrite: {verdict}"] += 1
            if new != text:
                said |= {"text": new, "written_as": text}
                text = new
        return text, said

    def evidence(self, expression: Expression, text: str, wanted: int, turn: int = 0) -> dict[str, Any]:
        """What a phrase rests on: the expression, what it selects, and the instances of its class (or of none) that it was tested against.

        All other instances fail by their class. What was measured of each stands in the record's ``measured``.
        """
        self.tally[f"expression: {expression.type}"] += 1
        candidates = self.view.classes.get(expression.name, 0) | self.view.nameless
        ids = self.view.ids
        return {
            "turn": turn,
            "text": text,
            "type": expression.type,
            "expression": expression.data(),
            "selects": [ids[index] for index in indices(wanted)],
            "tested_against": [ids[index] for index in indices(candidates)],
        }

    def are_targets(self, things: int) -> bool:
        """Whether all of the things are seen well enough to be counted."""
        return things & ~self.view.targets == 0

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.rng.random() < share)
