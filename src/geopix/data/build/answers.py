"""Questions that are answered in words: the types of RSVQA (Lobry et al. 2020, arXiv 2003.07333) and colour."""

from __future__ import annotations

from collections.abc import Iterator

from geopix.data.build.expressions import Condition, Expression
from geopix.data.build.speaker import Said, Speaker
from geopix.data.build.view import indices
from geopix.data.build.words import phrase
from geopix.data.scenes.phrases import article, ask, choose, plural
from geopix.data.scenes.references import weighted_order
from geopix.types import Turn

HECTARE = 10_000.0
BUILT = "building"
URBAN_DENSITY, URBAN_COVER = 8.0, 0.15
"""Buildings per hectare and their share of the ground from which both on a place is called urban."""
RURAL_DENSITY, RURAL_COVER = 1.0, 0.03
"""The same, up to which both it is called rural, where nothing but buildings and vegetation is known to stand there. Between the two nothing is said."""
RURAL_CLASSES = frozenset((BUILT, "tree", "forest", "field", "farmland", "meadow", "pond", "lake", "river"))
LEAST_GROUND = 4.0
"""Hectares that an image covers at least where its kind of place is asked for."""
LEAST_COVER = 0.002
"""Share of the image that a class covers at least where its area is asked for."""
AREA_QUESTIONS = (
    "what area do the {d} cover?", "how much ground do the {d} cover?", "what is the total area of the {d}?", "how large is the area covered by {d}?",
    "give the area of all {d}.",
)  # fmt: skip
SHARE_QUESTIONS = (
    "what share of the image do the {d} cover?", "how much of the image is covered by {d}?", "which part of the image do the {d} cover, in percent?",
    "what percentage of the image is {d}?",
)  # fmt: skip
PLACE_QUESTIONS = ("is this a rural or an urban area?", "rural or urban?", "is this place urban or rural?", "does the image show a rural or an urban area?")


def answering(speaker: Speaker) -> Iterator[Said]:
    """Every question that the image allows, at most two of a type."""
    asked: list[object] = []
    for rule in (_presence, _presence, _count, _count, _compare, _colour, _area, _place):
        said = rule(speaker)
        about = None if said is None else (said.task, [proof.get("expression") for proof in said.sentences])
        if said is not None and about not in asked:
            asked.append(about)
            yield said


def _presence(speaker: Speaker) -> Said | None:
    """Is there one? Yes and no are equally likely, and worded alike."""
    view, rng = speaker.view, speaker.rng
    if speaker.chance(0.5):
        options = [name for name, members in view.classes.items() if members & view.targets]
        if not options:
            return None
        name = choose(rng, options)
        index = choose(rng, indices(view.classes[name] & view.targets))
        filters = speaker.finder.filters(index)
        said = (choose(rng, filters),) if filters and speaker.chance(0.6) else ()
        expression = Expression(name, said)
        return _yes_or_no(speaker, expression, view.select(expression)[0] & view.targets, "yes")
    expression_or_none = speaker.finder.absent(present=speaker.chance(0.4))
    return None if expression_or_none is None else _yes_or_no(speaker, expression_or_none, 0, "no")


def _yes_or_no(speaker: Speaker, expression: Expression, things: int, answer: str) -> Said:
    text = phrase(expression, speaker.rng, bare=True)
    proof = speaker.evidence(expression, text, things)
    return Said("vqa/presence", "presence", (Turn(ask(speaker.rng, "vqa/presence", article(text)), answer),), (), (proof,))


def _count(speaker: Speaker) -> Said | None:
    """How many? Only where none of those counted is cut off, hidden or tiny."""
    rng = speaker.rng
    if speaker.chance(0.12):
        expression = speaker.finder.absent(present=speaker.chance(0.5))
        options = [] if expression is None else [(expression, 0)]
    else:
        options = speaker.finder.groups(least=1, counted=True)
    if not options:
        return None
    expression, things = options[0]
    text = phrase(expression, rng, many=True, bare=True)
    proof = speaker.evidence(expression, text, things)
    return Said("vqa/count", "count", (Turn(ask(rng, "vqa/count", text), str(things.bit_count())),), (), (proof,))


def _compare(speaker: Speaker) -> Said | None:
    """Are there more of one than of the other? Yes and no are equally likely."""
    view, rng = speaker.view, speaker.rng
    counts = {Expression(name): members for name, members in view.classes.items() if speaker.are_targets(members) and not view.nameless}
    for name in list(view.classes):
        for word in sorted({thing.colour.word for thing in view.things if thing.name == name and thing.colour.word}):
            expression = Expression(name, (Condition("colour", word),))
            sure, maybe = view.select(expression)
            if sure == maybe and speaker.are_targets(sure):
                counts[expression] = sure
    weights = speaker.finder.absent_classes()
    if weights and speaker.chance(0.3):
        names = list(weights)
        counts[Expression(names[weighted_order(rng, [weights[name] for name in names])[0]])] = 0
    options = list(counts)
    pairs = [
        (one, two) for one in options for two in options
        if counts[one].bit_count() > counts[two].bit_count() and bool(one.conditions) == bool(two.conditions) and (one.name == two.name or not one.conditions)
    ]  # fmt: skip
    if not pairs:
        return None
    more, fewer = choose(rng, pairs)
    yes = speaker.chance(0.5)
    said = (more, fewer) if yes else (fewer, more)
    texts = [phrase(expression, rng, many=True, bare=True) for expression in said]
    proofs = tuple(speaker.evidence(expression, text, counts[expression]) for expression, text in zip(said, texts, strict=True))
    return Said("vqa/compare", "compare", (Turn(ask(rng, "vqa/more", *texts), "yes" if yes else "no"),), (), proofs)


def _colour(speaker: Speaker) -> Said | None:
    """Which colour? Of a thing that is described without it."""
    view, rng = speaker.view, speaker.rng
    options = [index for index in indices(view.targets) if view.things[index].colour.word is not None]
    for place in rng.permutation(len(options))[:5].tolist():
        for expression in speaker.finder.singles(options[place], 1, without=("colour",)):
            if any("colour" in str(condition.anchor) for condition in expression.conditions):
                continue
            text, proof = speaker.words(expression, 1 << options[place])
            turn = Turn(ask(rng, "vqa/colour", text), view.things[options[place]].colour.word or "")
            return Said("vqa/colour", "colour", (turn,), (), (proof,))
    return None


def _area(speaker: Speaker) -> Said | None:
    """What area do they cover? In square metres where the ground sampling is known, else in percent of the image; of all pixels of the class."""
    view, rng, picture = speaker.view, speaker.rng, speaker.view.picture
    seen = [name for name, members in view.classes.items() if members & view.targets]
    names = [name for name in seen if picture.areas[name] >= LEAST_COVER * picture.height * picture.width]
    if not names or view.nameless:
        return None
    name = choose(rng, names)
    pixels = picture.areas[name]
    if picture.gsd is not None:
        amount = pixels * picture.gsd**2
        question, answer = choose(rng, AREA_QUESTIONS), f"{two_digits(amount)} m2"
    else:
        amount = 100 * pixels / (picture.height * picture.width)
        question, answer = choose(rng, SHARE_QUESTIONS), f"{two_digits(amount)} %"
    ids = [view.ids[index] for index in indices(view.classes[name])]
    facts = {"turn": 0, "text": answer, "class": name, "of": ids, "pixels": pixels, "measured": round(amount, 3), "gsd": picture.gsd}
    return Said("vqa/area", "area", (Turn(f"[vqa] {question.format(d=plural(name))}", answer),), (), (facts,))


def two_digits(value: float) -> str:
    """A positive number to two significant digits.

    >>> two_digits(1264.0), two_digits(3.42), two_digits(0.5)
    ('1300', '3.4', '0.5')
    """
    return f"{float(f'{value:.2g}'):g}" if value < 1e6 else f"{int(float(f'{value:.2g}'))}"


def _place(speaker: Speaker) -> Said | None:
    """Rural or urban? Only where buildings are a class of the set, the ground sampling is known, and the answer is far from the line."""
    picture = speaker.view.picture
    if BUILT not in speaker.finder.together or picture.gsd is None or speaker.view.nameless:
        return None
    hectares = picture.height * picture.width * picture.gsd**2 / HECTARE
    if hectares < LEAST_GROUND:
        return None
    density = speaker.view.classes.get(BUILT, 0).bit_count() / hectares
    cover = picture.areas.get(BUILT, 0) / (picture.height * picture.width)
    if density >= URBAN_DENSITY and cover >= URBAN_COVER:
        answer = "urban"
    elif 0 < density <= RURAL_DENSITY and cover <= RURAL_COVER and set(speaker.view.classes) <= RURAL_CLASSES:
        answer = "rural"
    else:
        return None
    facts = {"turn": 0, "text": answer, "buildings per hectare": round(density, 2), "cover": round(cover, 4), "hectares": round(hectares, 2)}
    return Said("vqa/place", "rural or urban", (Turn(f"[vqa] {choose(speaker.rng, PLACE_QUESTIONS)}", answer),), (), (facts,))
