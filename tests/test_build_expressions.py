"""Three-valued selection: what is unsure of a distractor must count as a possible match."""

from dataclasses import replace

import numpy as np
import pytest

from geopix.data.build.colours import ALL, UNSURE, WORDS, Colour, name_colour
from geopix.data.build.expressions import Condition, Expression
from geopix.data.build.measure import Picture, Thing
from geopix.data.build.propose import Finder
from geopix.data.build.view import View, indices
from geopix.data.build.words import Vocabulary, phrase

RED, BLUE = (Colour(word, 1 << WORDS.index(word), 0.9) for word in ("red", "blue"))
GROUND = 100


def thing(number: int, x: int, y: int, side: int = 10, *, name: str | None = "ship", colour: Colour = RED, whole: bool = True, reject: str = "") -> Thing:
    box = (x, y, x + side, y + side)
    return Thing(number, name, colour, (x + side / 2) / GROUND, (y + side / 2) / GROUND, box, side * side, float(side), float(side), None, whole, reject)


def view(*things: Thing, gsd: float | None = None) -> View:
    return View(Picture("a", GROUND, GROUND, gsd, things, {}))


def red(*more: Condition) -> Expression:
    return Expression("ship", (Condition("colour", "red"), *more))


def test_a_colour_is_proved_only_where_no_other_may_have_it() -> None:
    one, other = thing(0, 10, 10), thing(1, 70, 70, colour=BLUE)
    assert view(one, other).proves(red(), 1)
    assert not view(one, replace(other, colour=UNSURE)).proves(red(), 1)
    assert not view(one, replace(other, colour=Colour(None, RED.possible))).proves(red(), 1)
    assert view(one, replace(other, colour=Colour(None, BLUE.possible))).proves(red(), 1), "unsure, but nobody would call it red"


def test_an_unsure_colour_does_no_harm_where_another_condition_fails_clearly() -> None:
    one, other = thing(0, 5, 5), thing(1, 80, 80, colour=UNSURE)
    assert view(one, other).proves(red(Condition("cell", "top left")), 1)
    assert not view(one, replace(other, x=0.1, y=0.1)).proves(red(Condition("cell", "top left")), 1)


@pytest.mark.parametrize("reject", ["cut off by the border", "too small", "marked by its source"])
def test_what_may_not_be_asked_for_still_counts(reject: str) -> None:
    shown = view(thing(0, 10, 10), thing(1, 60, 60, reject=reject))
    assert not shown.proves(Expression("ship"), 1)
    assert shown.proves(Expression("ship"), 3)


def test_an_instance_without_a_class_may_be_anything() -> None:
    assert view(thing(0, 10, 10), thing(1, 60, 60, name="plane")).proves(Expression("ship"), 1)
    assert not view(thing(0, 10, 10), thing(1, 60, 60, name=None)).proves(Expression("ship"), 1)
    assert not Finder(view(thing(0, 10, 10), thing(1, 60, 60, name=None)), np.random.default_rng(0), {"plane": {"plane": 1}}).absent_classes()


def test_the_largest_needs_a_clear_lead_and_more_over_what_is_cut_off() -> None:
    largest = Expression("ship", (Condition("size", "largest"),))
    assert view(thing(0, 10, 10, 20), thing(1, 60, 60, 16)).proves(largest, 1)
    assert not view(thing(0, 10, 10, 20), thing(1, 60, 60, 19)).proves(largest, 1)
    assert not view(thing(0, 10, 10, 20), thing(1, 60, 60, 16, whole=False)).proves(largest, 1)
    assert not view(thing(0, 10, 10, 20)).proves(largest, 1), "of one ship nobody says the largest"


def test_lengths_need_the_ground_sampling_and_a_margin() -> None:
    longer = Expression("ship", (Condition("longer", "", 20),))
    assert view(thing(0, 10, 10, 30), thing(1, 60, 60, 10), gsd=1.0).proves(longer, 1)
    assert not view(thing(0, 10, 10, 30), thing(1, 60, 60, 10), gsd=None).proves(longer, 1)
    assert not view(thing(0, 10, 10, 22), thing(1, 60, 60, 10), gsd=1.0).proves(longer, 1)
    assert not view(thing(0, 10, 10, 30), thing(1, 60, 60, 10, whole=False), gsd=1.0).proves(longer, 1), "the hidden part may be long"


def test_a_relation_needs_a_proved_anchor() -> None:
    left = Expression("ship", (Condition("direction", "left of", 0, Expression("plane")),))
    ships = (thing(0, 10, 40), thing(1, 80, 40))
    assert view(*ships, thing(2, 45, 40, name="plane")).proves(left, 1)
    assert not view(*ships, thing(2, 45, 40, name="plane"), thing(3, 45, 80, name="plane")).proves(left, 1)
    assert not view(ships[0], thing(1, 45, 80), thing(2, 45, 40, name="plane")).proves(left, 1), "as much below as beside: nobody can tell"


def test_clusters_have_clear_borders() -> None:
    pair = Expression("ship", (Condition("cluster", "", 2),))
    assert view(thing(0, 10, 10), thing(1, 22, 10), thing(2, 70, 70)).proves(pair, 3)
    assert not view(thing(0, 10, 10), thing(1, 22, 10), thing(2, 42, 10)).proves(pair, 3)


def test_ranks_of_what_spans_another_are_not_said() -> None:
    leftmost = Expression("ship", (Condition("edge", "leftmost"),))
    assert view(thing(0, 10, 10), thing(1, 50, 50)).proves(leftmost, 1)
    assert not view(thing(0, 30, 30), thing(1, 20, 20, 60)).proves(leftmost, 1)


def test_a_set_of_nothing_is_never_proved() -> None:
    assert not view().proves(Expression("ship"), 0)
    assert view(thing(0, 10, 10)).select(Expression("plane")) == (0, 0)
    assert indices(0b1010) == [1, 3]


def test_every_phrase_is_read_back_as_it_was_meant() -> None:
    rng = np.random.default_rng(0)
    shown = view(*(thing(number, *place, side, colour=colour) for number, (place, side, colour) in enumerate((
        ((5, 5), 12, RED), ((30, 8), 16, BLUE), ((60, 60), 20, RED), ((80, 30), 9, BLUE), ((10, 70), 24, UNSURE),
    ))), thing(5, 44, 40, name="small vehicle"), gsd=1.0)  # fmt: skip
    finder, vocabulary = Finder(shown, rng, {}), Vocabulary(["ship", "small vehicle", "large vehicle"])
    said = 0
    for index in range(6):
        for _ in range(20):
            for expression in finder.singles(index, 30):
                text = phrase(expression, rng)
                read = vocabulary.parse(text)
                assert (read.name, set(read.conditions)) == (expression.name, set(expression.conditions)), text
                said += 1
    assert said > 300


@pytest.mark.parametrize(
    "text",
    ["the ship that is not red", "the red and blue ship", "the ship and the plane", "the red one", "the ship near the crane", "the ship except the red"],
)
def test_a_phrase_with_other_words_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"vocabulary|names one class|contradict"):
        Vocabulary(["ship", "plane"]).parse(text)


PIXELS = {
    (255, 255, 255): "white", (130, 130, 130): "grey", (12, 12, 12): "black", (200, 30, 30): "red", (30, 80, 200): "blue", (40, 140, 60): "green",
    (240, 215, 40): "yellow", (235, 125, 30): "orange", (120, 75, 45): "brown", (160, 70, 45): None, (200, 200, 200): None, (128, 90, 160): None,
}  # fmt: skip


@pytest.mark.parametrize(("pixel", "word"), PIXELS.items())
def test_colours_are_named_where_nobody_would_say_otherwise(pixel: tuple[int, int, int], word: str | None) -> None:
    found = name_colour(np.full((100, 3), pixel, dtype=np.uint8))
    assert found.word == word
    assert found.possible
    assert word is None or found.possible >> WORDS.index(word) & 1


def test_a_thing_of_two_colours_or_few_pixels_is_unsure() -> None:
    half = np.array([(255, 255, 255)] * 50 + [(200, 30, 30)] * 50, dtype=np.uint8)
    assert name_colour(half).word is None
    assert {"white", "red"} <= {word for bit, word in enumerate(WORDS) if name_colour(half).possible >> bit & 1}
    assert name_colour(half[:10]).possible == ALL
