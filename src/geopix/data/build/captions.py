"""Captions: what is there and how many, in which colours, where, how large; each sentence with what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from geopix.data.build.answers import two_digits
from geopix.data.build.expressions import Condition, Expression
from geopix.data.build.speaker import Said, Speaker
from geopix.data.build.view import cells_of, indices
from geopix.data.build.words import number_word, phrase
from geopix.data.scenes.phrases import CELL_WORDS, article, ask, choose, listing, plural
from geopix.types import Turn

MANY = 12
CLASSES = 5
MOST = 0.6
OPENINGS = ("An aerial image with {}.", "An overhead view of {}.", "A view from above of {}.", "An image from above that shows {}.")
DETAILED = ("The image shows {}.", "Seen from above are {}.", "This overhead image shows {}.")

Sentence = tuple[str, dict[str, Any]]


def captions(speaker: Speaker) -> Iterator[Said]:
    """A sentence, and a description of several where there is more to say; nothing where nothing is seen."""
    amounts = _amounts(speaker)
    if amounts is None:
        return
    things, facts = amounts
    opening = choose(speaker.rng, OPENINGS).format(things)
    yield Said("caption/scene", "caption", (Turn(ask(speaker.rng, "caption/scene"), opening),), (), ({"turn": 0, "text": opening, **facts},))
    sentences: list[Sentence] = [(choose(speaker.rng, DETAILED).format(things), facts)]
    for name in _classes(speaker)[:3]:
        for rule in (_colours, _whereabouts, _size, _gathered, _spread):
            said = rule(speaker, name)
            if said is not None:
                sentences.append(said)
    if len(sentences) > 1:
        text = " ".join(sentence for sentence, _ in sentences)
        proofs = tuple({"turn": 0, "text": sentence, **rests} for sentence, rests in sentences)
        yield Said("caption/detailed", "detailed caption", (Turn(ask(speaker.rng, "caption/detailed"), text),), (), proofs)


def _classes(speaker: Speaker) -> list[str]:
    """Classes with anything that may be asked for, the most numerous first."""
    view = speaker.view
    counts = {name: (members & view.targets).bit_count() for name, members in view.classes.items()}
    return sorted((name for name, count in counts.items() if count), key=lambda name: (-counts[name], name))[:CLASSES]


def _amounts(speaker: Speaker) -> tuple[str, dict[str, Any]] | None:
    """How many of each class: vague where some are hardly seen, or where nobody would count."""
    phrases, counted = [], {}
    for name in _classes(speaker):
        members = speaker.view.classes[name]
        count = members.bit_count()
        exact = speaker.are_targets(members) and not speaker.view.nameless
        vague = "many" if count > MANY else "" if exact else "some" if count > 1 else "part of"
        noun = article(name) if count == 1 else plural(name)
        phrases.append(article(name) if count == 1 and exact else f"{vague} {noun}" if vague else f"{number_word(count)} {noun}")
        counted[name] = {"count": count, "said": "exactly" if exact and count <= MANY else vague}
    return (listing(phrases), {"rule": "amounts", "counts": counted}) if phrases else None


def _colours(speaker: Speaker, name: str) -> Sentence | None:
    """The colours of a class, where none of it is unsure."""
    view = speaker.view
    things = [view.things[index] for index in indices(view.classes[name])]
    words = Counter(thing.colour.word for thing in things if thing.colour.word is not None)
    if sum(words.values()) < len(things) or not words or len(words) > 3 or not speaker.are_targets(view.classes[name]):
        return None
    shares = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    facts = {"rule": "colours", "class": name, "colours": dict(shares)}
    if len(shares) == 1:
        word = shares[0][0]
        return (f"The {name} is {word}." if len(things) == 1 else f"{'Both' if len(things) == 2 else 'All'} {plural(name)} are {word}."), facts
    parts = [f"{number_word(count)} {'is' if count == 1 else 'are'} {word}" for word, count in shares]
    return f"Of the {plural(name)}, {listing(parts)}.", facts


def _told_apart(speaker: Speaker, name: str) -> tuple[int, Expression] | None:
    """The only thing of a class, or else its largest."""
    members = speaker.view.classes[name]
    expression = Expression(name) if members.bit_count() == 1 else Expression(name, (Condition("size", "largest"),))
    index = speaker.view.one(expression)
    return None if index is None or not speaker.view.targets >> index & 1 else (index, expression)


def _whereabouts(speaker: Speaker, name: str) -> Sentence | None:
    found = _told_apart(speaker, name)
    if found is None:
        return None
    index, expression = found
    cells = cells_of(speaker.view.things[index].x, speaker.view.things[index].y)
    if not cells:
        return None
    text = phrase(expression, speaker.rng)
    proof = speaker.evidence(expression, text, 1 << index)
    return f"{text[0].upper()}{text[1:]} is {CELL_WORDS[cells[0]]}.", {"rule": "whereabouts", "cell": cells[0], "subject": proof}


def _size(speaker: Speaker, name: str) -> Sentence | None:
    """How long a thing is, where it is seen whole and the ground sampling is known."""
    found = _told_apart(speaker, name)
    gsd = speaker.view.picture.gsd
    if found is None or gsd is None or not speaker.view.things[found[0]].whole:
        return None
    index, expression = found
    metres = speaker.view.things[index].length * gsd
    text = phrase(expression, speaker.rng)
    proof = speaker.evidence(expression, text, 1 << index)
    return f"{text[0].upper()}{text[1:]} is about {two_digits(metres)} m long.", {"rule": "length", "metres": round(metres, 2), "subject": proof}


def _gathered(speaker: Speaker, name: str) -> Sentence | None:
    """Whether a class stands in clusters."""
    members = speaker.view.classes[name]
    clusters = speaker.view.clusters(members) if members.bit_count() > 3 and speaker.are_targets(members) else None
    if not clusters or (len(clusters) == 1 and clusters[0].bit_count() < 3):
        return None
    sizes = sorted((cluster.bit_count() for cluster in clusters), reverse=True)
    facts = {"rule": "clusters", "class": name, "sizes": sizes}
    if len(sizes) == 1:
        some = f"{number_word(sizes[0]).capitalize()} of the" if sizes[0] < members.bit_count() else "The"
        return f"{some} {plural(name)} stand close together.", facts
    return f"The {plural(name)} stand in {number_word(len(sizes))} groups of {listing([number_word(size) for size in sizes])}.", facts


def _spread(speaker: Speaker, name: str) -> Sentence | None:
    """The part of the image where clearly most of a class is."""
    members = speaker.view.classes[name]
    if members.bit_count() < 4:
        return None
    for cell in ("left", "right", "top", "bottom"):
        clear = speaker.view.select(Expression(name, (Condition("cell", cell),)))[0].bit_count()
        if clear >= MOST * members.bit_count():
            facts = {"rule": "spread", "class": name, "cell": cell, "clearly there": clear, "of": members.bit_count()}
            return f"Most of the {plural(name)} are {CELL_WORDS[cell]}.", facts
    return None
