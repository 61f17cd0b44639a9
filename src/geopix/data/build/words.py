"""How expressions are worded, and reading them back: one closed vocabulary serves both, so every phrase that is written can be parsed and proved again."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from geopix.data.build.colours import WORDS
from geopix.data.build.expressions import RANKING, Condition, Expression
from geopix.data.scenes.expressions import CELLS
from geopix.data.scenes.phrases import CELL_WORDS, choose, plural

BEFORE, AFTER = "before", "after"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ORDINALS = {1: ("second", "2nd"), 2: ("third", "3rd")}

Wording = tuple[str, str]
"""A text, and whether it stands before the noun or after it."""

SIZE_WORDS = {"largest": ("largest", "biggest"), "smallest": ("smallest",), "large": ("large", "big"), "small": ("small", "little")}
EDGE_WORDS = {"leftmost": ("leftmost",), "rightmost": ("rightmost",), "topmost": ("topmost", "uppermost"), "bottommost": ("bottommost", "lowermost")}
LINE_WORDS: dict[str, tuple[Wording, ...]] = {
    "horizontal": (("horizontal", BEFORE), ("that runs from left to right", AFTER), ("lying horizontally", AFTER)),
    "vertical": (("vertical", BEFORE), ("that runs from top to bottom", AFTER), ("lying vertically", AFTER)),
    "diagonal": (("diagonal", BEFORE), ("that lies diagonally", AFTER), ("lying diagonally", AFTER)),
}
RELATION_WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("direction", "left of"): ("to the left of", "left of"),
    ("direction", "right of"): ("to the right of", "right of"),
    ("direction", "above"): ("above",),
    ("direction", "below"): ("below",),
    ("beside", ""): ("next to", "beside"),
    ("nearest", ""): ("nearest to", "closest to"),
}
LENGTH_WORDS = {"longer": ("longer than {n} m", "more than {n} m long"), "shorter": ("shorter than {n} m", "less than {n} m long")}
ALONE_WORDS: tuple[Wording, ...] = (("isolated", BEFORE), ("that stands alone", AFTER), ("standing apart from the others", AFTER))
FILLER = frozenset((
    "the", "a", "an", "that", "which", "is", "are", "in", "of", "at", "on", "to", "picture", "image", "photo", "scene", "here", "there", "this",
    "located", "lying", "positioned", "situated", "seen", "visible", "shown", "coloured", "colored", "painted", "part", "side", "area", "metres",
    "meters",
))  # fmt: skip
"""Words that change nothing about what a phrase selects."""
OTHER_CELLS = {
    "upper left": "top left", "upper right": "top right", "lower left": "bottom left", "lower right": "bottom right", "middle": "centre", "center": "centre",
}  # fmt: skip


def phrase(expression: Expression, rng: np.random.Generator, *, many: bool = False, bare: bool = False) -> str:
    """An expression as words with its article: "the second largest red ship on the left", "all ships next to the pier".

    Args:
        expression: what to say.
        rng: chooses between wordings of the same meaning.
        many: of several things.
        bare: without article.
    """
    cluster = expression.says("cluster")
    before: list[tuple[int, str]] = []
    after: list[tuple[int, str]] = []
    for condition in expression.conditions:
        text, place = choose(rng, wordings(condition))
        text = re.sub(r"^that (\w+)s ", r"that \1 ", text) if many else text
        rank = 0 if condition.kind in RANKING else 2 if condition.kind == "colour" else 1
        if place == BEFORE:
            before.append((rank, text))
        else:
            after.append(({"rank": 0, "cell": 1}.get(condition.kind, 2), text))
        if condition.kind == "rank" and place == AFTER:  # "third ship from the left": the ordinal stands in front
            before.append((0, ORDINALS[condition.value][0]))
    noun = plural(expression.name) if many else expression.name
    parts = [text for _, text in sorted(before)] + [noun] + [text for _, text in sorted(after)]
    if cluster is not None:
        return _clustered(cluster.value, " ".join(parts), rng, bare)
    article = "" if bare else choose(rng, ("all the ", "all ", "the ")) if many and expression.says("top") is None else "the "
    return article + " ".join(parts)


def _clustered(count: int, things: str, rng: np.random.Generator, bare: bool) -> str:
    words = "pair" if count == 2 and rng.random() < 0.5 else f"{choose(rng, ('group', 'cluster'))} of {number_word(count)}"
    words = f"{words} {things}" if words != "pair" else f"pair of {things}"
    return words if bare else f"the {words}"


def number_word(count: int) -> str:
    """A number in a word, in figures from thirteen on."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def wordings(condition: Condition) -> tuple[Wording, ...]:
    """The ways of saying a condition that the pipeline knows."""
    kind, word = condition.kind, condition.word
    if kind == "colour":
        return ((word, BEFORE),)
    if kind == "size":
        return tuple((text, BEFORE) for text in SIZE_WORDS[word])
    if kind == "edge":
        return tuple((text, BEFORE) for text in EDGE_WORDS[word])
    if kind == "rank":
        if word.startswith("from "):
            return ((word, AFTER),)
        return tuple((f"{ORDINALS[condition.value][0]} {text}", BEFORE) for text in SIZE_WORDS[word])
    if kind == "top":
        return tuple((f"{number_word(condition.value)} {text}", BEFORE) for text in (SIZE_WORDS | EDGE_WORDS)[word])
    if kind == "cell":
        return ((CELL_WORDS[word], AFTER), *((("in the middle", AFTER),) if word == "centre" else ()))
    if kind == "orientation":
        return LINE_WORDS[word]
    if kind in LENGTH_WORDS:
        return tuple((text.format(n=condition.value), AFTER) for text in LENGTH_WORDS[kind])
    if kind == "alone":
        return ALONE_WORDS
    if kind == "cluster":
        return (("", BEFORE),)
    assert condition.anchor is not None
    anchor = " ".join([*(said.word for said in condition.anchor.conditions), condition.anchor.name])
    return tuple((f"{text} the {anchor}", AFTER) for text in RELATION_WORDS[kind, word if kind == "direction" else ""])


class Vocabulary:
    """Reads phrases about the classes of a set.

    Args:
        classes: class names of the set.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        self.names = {form: name for name in classes for form in (name, plural(name))}
        said: dict[str, Condition] = {}
        for word in WORDS:
            said[word] = Condition("colour", word)
        said["gray"] = Condition("colour", "grey")
        simple = [Condition("size", word) for word in SIZE_WORDS] + [Condition("edge", word) for word in EDGE_WORDS]
        simple += [Condition("orientation", word) for word in LINE_WORDS] + [Condition("alone")] + [Condition("cell", cell) for cell in CELLS]
        simple += [Condition("rank", word, value) for word in ("largest", "smallest") for value in ORDINALS]
        simple += [Condition("top", word, value) for word in ("largest", "smallest", *EDGE_WORDS) for value in (2, 3)]
        for condition in simple:
            said |= {text: condition for text, _ in wordings(condition)}
        said |= {re.sub(r"^that (\w+)s ", r"that \1 ", text): condition for text, condition in said.items()}
        for value, ordinals in ORDINALS.items():
            for ordinal in ordinals:
                said |= {f"{ordinal} {text}": Condition("rank", word, value) for word in ("largest", "smallest") for text in SIZE_WORDS[word]}
                for side in ("left", "right", "top", "bottom"):
                    said[f"{ordinal} from the {side}"] = Condition("rank", f"from the {side}", value)
        said |= {cell: Condition("cell", cell) for cell in CELLS} | {text: Condition("cell", cell) for text, cell in OTHER_CELLS.items()}
        self.said = said
        self.longest = max(len(text.split()) for text in (*said, *self.names))
        self.relations = {text: key for key, texts in RELATION_WORDS.items() for text in texts}

    def parse(self, text: str) -> Expression:
        """The expression that a phrase says.

        Raises:
            ValueError: naming the word that is not understood, or what is missing or said twice.
        """
        words = re.sub(r"[^\w\s.]|\.(?!\d)", " ", text.lower()).split()
        conditions: list[Condition] = []
        for start in range(len(words)):
            found = next((said for length in (3, 2, 1) if (said := " ".join(words[start : start + length])) in self.relations), None)
            if found is not None:
                kind, word = self.relations[found]
                anchor = self.parse(" ".join(words[start + len(found.split()) :]))
                conditions.append(Condition(kind, word, 0, anchor))
                words = words[:start]
                break
        return self._head(words, conditions)

    def _head(self, words: list[str], conditions: list[Condition]) -> Expression:
        words, conditions = _take_lengths(words, conditions)
        words = _take_ordinal(words)
        names: list[str] = []
        place = 0
        while place < len(words):
            for length in range(min(self.longest, len(words) - place), 0, -1):
                said = " ".join(words[place : place + length])
                if said in self.names:
                    names.append(self.names[said])
                elif said in self.said:
                    conditions.append(self.said[said])
                elif said not in FILLER:
                    continue
                place += length
                break
            else:
                raise ValueError(f"the word {words[place]!r} is not of the vocabulary")
        if len(set(names)) != 1:
            raise ValueError(f"a phrase names one class; found {sorted(set(names)) or 'none'}")
        unique = tuple(dict.fromkeys(conditions))
        kinds = [condition.kind for condition in unique]
        if len(set(kinds)) != len(kinds) or sum(kind in RANKING for kind in kinds) > 1:
            raise ValueError(f"conditions of one kind contradict each other or rank twice: {kinds}")
        return Expression(names[0], unique)


def _take_lengths(words: list[str], conditions: list[Condition]) -> tuple[list[str], list[Condition]]:
    """Lengths in metres, out of the words."""
    text = " ".join(words)
    for kind, forms in LENGTH_WORDS.items():
        for form in forms:
            pattern = form.replace("{n} m", r"(\d+) (?:m|metres|meters)\b")
            if match := re.search(pattern, text):
                conditions = [*conditions, Condition(kind, "", int(match[1]))]
                text = f"{text[: match.start()]} {text[match.end() :]}"
    return text.split(), conditions


def _take_ordinal(words: list[str]) -> list[str]:
    """ "third ship from the left" with the ordinal beside "from": the vocabulary holds them together."""
    for value in ORDINALS.values():
        for ordinal in value:
            if ordinal in words and "from" in words[words.index(ordinal) :] and words[words.index(ordinal) + 1 : words.index(ordinal) + 2] != ["from"]:
                start, end = words.index(ordinal), words.index("from")
                return [*words[:start], *words[start + 1 : end], ordinal, *words[end:]]
    return words
