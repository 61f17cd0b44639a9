"""How expressions, questions and answers are worded: a small closed vocabulary, lower-case questions, few and regular answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from geopix.data.scenes.expressions import CELLS, Expression
from geopix.types import SEG

T = TypeVar("T")

_PREPOSITIONS = {"top": "at", "bottom": "at", "left": "on", "right": "on"}
CELL_WORDS = {cell: f"{_PREPOSITIONS.get(cell, 'in')} the {cell}" for cell in CELLS}
_OTHER_WORDS = {"largest": "biggest", "nearest to": "closest to", "in the centre": "in the middle", "left of": "to the left of", "right of": "to the right of"}
_OTHER_WORDS_SHARE = 0.25

QUESTIONS: dict[str, tuple[str, ...]] = {
    "segment/single": (
        "can you segment {d}?", "{d}, please output the segmentation mask.", "where is {d}?", "segment {d}.", "please segment {d}.",
        "give me the mask of {d}.", "show me {d}.", "what is {d}? please respond with a segmentation mask.", "outline {d}.", "{d}?",
    ),
    "segment/many": (
        "can you segment {d}?", "{d}, please output the segmentation masks.", "where are {d}?", "segment {d}.", "please segment {d}.",
        "give me the segment masks of {d}.", "show me {d}.", "outline {d}.", "{d}?",
    ),
    "segment/follow": (
        "and {d}?", "now {d}.", "what about {d}?", "and where is {d}?", "now segment {d}.", "and the mask of {d}?", "also {d}.",
        "can you also segment {d}?",
    ),
    "refer/box": (
        "where is {d}? give its box.", "give the box of {d}.", "locate {d}.", "what is the bounding box of {d}?", "find {d} and give its box.",
        "where in the image is {d}?", "box of {d}?", "please locate {d} with a box.",
    ),
    "vqa/presence": (
        "is there {d} in this image?", "is there {d}?", "does the image show {d}?", "can you see {d}?", "do you see {d}?", "is {d} visible?",
        "does this scene contain {d}?", "is {d} present?",
    ),
    "vqa/count": (
        "how many {d} are there?", "how many {d} can you see?", "count the {d}.", "what is the number of {d}?", "how many {d} are in this image?",
        "give the number of {d}.", "how many {d} do you see?", "how many {d} does the image show?",
    ),
    "vqa/more": (
        "are there more {a} than {b}?", "do you see more {a} than {b}?", "does the image show more {a} than {b}?", "can you see more {a} than {b}?",
        "are there fewer {b} than {a}?", "do you see fewer {b} than {a}?", "is the number of {a} larger than that of {b}?",
        "does this scene contain more {a} than {b}?",
    ),
    "vqa/colour": (
        "what colour is {d}?", "what is the colour of {d}?", "which colour is {d}?", "which colour does {d} have?", "what colour does {d} have?",
        "name the colour of {d}.", "give the colour of {d}.", "tell me the colour of {d}.",
    ),
    "caption/scene": (
        "what is this?", "describe the scene briefly.", "give a short caption.", "caption this image.", "what does the image show?",
        "describe this image in one sentence.", "summarise the scene.", "write a short caption.",
    ),
    "caption/detailed": (
        "describe the image in detail.", "describe the scene in detail.", "give a detailed caption.", "write a detailed description.",
        "what can you see? be detailed.", "describe everything in the image.", "tell me all about this image.",
        "give a full description of the scene.",
    ),
}  # fmt: skip


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely; ``Generator.choice`` takes more than ten times as long."""
    return options[int(rng.random() * len(options))]


def ask(rng: np.random.Generator, kind: str, first: str = "", second: str = "") -> str:
    """A question of a kind about one thing, or about two that are compared, with its family's tag in front."""
    return f"[{kind.split('/')[0]}] " + choose(rng, QUESTIONS[kind]).format(d=first, a=first, b=second)


def plural(name: str) -> str:
    """The plural of a class name.

    >>> plural("small vehicle"), plural("church"), plural("ferry")
    ('small vehicles', 'churches', 'ferries')
    """
    if re.search(r"(s|x|z|ch|sh)$", name):
        return name + "es"
    return name[:-1] + "ies" if re.search(r"[^aeiou]y$", name) else name + "s"


def article(noun: str) -> str:
    """A noun with "a" or "an" in front."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def number(count: int, name: str) -> str:
    """A count with its noun.

    >>> number(1, "orange ship"), number(3, "ship")
    ('1 orange ship', '3 ships')
    """
    return f"{count} {name if count == 1 else plural(name)}"


def listing(parts: Sequence[str]) -> str:
    """Parts joined as a list in prose.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def noun(expression: Expression, *, many: bool = False, one: bool = False) -> str:
    """Colour and class; ``one`` says "one" in place of a class that was named before."""
    name = "one" if one else plural(expression.name) if many else expression.name
    return f"{expression.colour} {name}" if expression.colour else name


def describe(expression: Expression, rng: np.random.Generator | None = None, *, many: bool = False, one: bool = False) -> str:
    """An expression as a noun phrase without its article: "second largest red ship", "ship left of the pier".

    Args:
        expression: what to say.
        rng: chooses between words of the same meaning; None always takes the first.
        many: in the plural.
        one: say "one" for the class.
    """
    word = CELL_WORDS[expression.word] if expression.how == "cell" else expression.word
    thing = noun(expression, many=many, one=one)
    before = expression.how in ("size", "edge") or (expression.how == "rank" and "from" not in word)
    if rng is not None and rng.random() < _OTHER_WORDS_SHARE:
        first, last = word.rsplit(" ", 1) if expression.how == "rank" and before else ("", word)
        word = f"{first} {_OTHER_WORDS.get(last, last)}".strip()
    if expression.how == "plain":
        return thing
    if before:
        return f"{word} {thing}"
    if expression.how == "rank":
        ordinal, rest = word.split(" ", 1)
        return f"{ordinal} {thing} {rest}"
    if expression.how == "relation":
        assert expression.anchor is not None
        return f"{thing} {word} the {describe(expression.anchor)}"
    return f"{thing} {word}"


def here(*phrases: str, many: bool = False) -> str:
    """The answer that gives masks: each phrase of the question, then its ``[SEG]``; ``many`` when a phrase is a group.

    Naming the phrase before its mask (as GLaMM's grounded answers do, arXiv 2311.03356) tells the reader, and the model, which mask is whose.

    >>> here("the red ship", "the plane")
    'The red ship is [SEG] and the plane is [SEG].'
    """
    verb = "are" if many else "is"
    return _sentence(listing([f"{phrase} {verb} {SEG}" for phrase in phrases]))


def refusal(phrase: str, *, many: bool = False) -> str:
    """The answer when nothing meets a phrase. It begins as :func:`here` does, so that whether to draw is decided where the phrase has just been named.

    >>> refusal("the red ship")
    'The red ship is not in this image.'
    """
    return _sentence(f"{phrase} {'are' if many else 'is'} not in this image")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
