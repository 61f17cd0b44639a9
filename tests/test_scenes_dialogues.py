"""What is said about a scene is checked by a reader of its own: it parses the words and looks at the raw records, and shares no code with the package."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from geopix.data.scenes.catalogue import CLASSES, COLOURS
from geopix.data.scenes.catalogue import KINDS as CATALOGUE
from geopix.data.scenes.dialogues import FAMILIES, KINDS, Spoken, talk
from geopix.data.scenes.phrases import QUESTIONS
from geopix.data.scenes.records import Instance, Scene
from geopix.data.scenes.render import LEVELS, render
from geopix.data.scenes.source import Scenes
from geopix.types import SEG

MIX = {"segment": 6.0, "refer": 1.0, "vqa": 4.0, "caption": 1.0}
SIZE = 128


def thing(name: str, box: tuple[int, int, int, int], colour: str | None = None, *, distractor: bool = False, size: int = SIZE) -> Instance:
    mask = np.zeros((size, size), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return Instance(name, colour, box, mask, float(box[2] - box[0]), float(box[3] - box[1]), 0.0, 1.0, False, distractor)


def scene_of(*things: Instance) -> Scene:
    return Scene(np.zeros((SIZE, SIZE, 3), np.uint8), things, "residential area", 0.5)


def random_scene(seed: int) -> Scene:
    """Boxes thrown at random: ties, overlaps and borderline cases that no tidy renderer would draw."""
    rng = np.random.default_rng(seed)
    names = [CLASSES[index] for index in rng.choice(len(CLASSES), 4, replace=False)]
    things = []
    for _ in range(int(rng.integers(0, 16))):
        name = names[int(rng.integers(4))]
        width, height = (int(side) for side in rng.integers(3, 40, 2))
        x, y = int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height))
        colours = CATALOGUE[name].colours
        colour = colours[int(rng.integers(len(colours)))] if colours and rng.random() < 0.95 else None
        things.append(thing(name, (x, y, x + width, y + height), colour, distractor=bool(rng.random() < 0.08)))
    return scene_of(*things)


# ---- a reader of its own -------------------------------------------------------------------------------------------------------------------------------

_CLASS = "|".join(sorted((re.escape(name) for name in CLASSES), key=len, reverse=True))
_COLOUR = "|".join(COLOURS)
_PLACE = r"(?:in the|at the|on the) (?:top left|top right|bottom left|bottom right|top|bottom|left|right|centre|middle)"
PHRASE = re.compile(
    rf"(?:(?P<ordinal>second|third) )?(?:(?P<extreme>largest|biggest|smallest|large|small|leftmost|rightmost|topmost|bottommost) )?(?:(?P<colour>{_COLOUR}) )?"
    rf"(?P<name>{_CLASS}|one\b)(?:es|s)?(?: (?:(?P<place>{_PLACE})|from the (?P<side>left|right|top|bottom)|"
    rf"(?P<relation>(?:to the )?left of|(?:to the )?right of|above|below|nearest to|closest to|next to|to its left|to its right)(?: it)?"
    rf"(?: the (?:(?P<anchor_colour>{_COLOUR}) )?(?P<anchor>{_CLASS}))?))?"
)


def centres(scene: Scene) -> np.ndarray:
    return np.array([[(i.box[0] + i.box[2]) / 2, (i.box[1] + i.box[3]) / 2] for i in scene.instances]).reshape(-1, 2) / SIZE


def box_gap(one: Instance, two: Instance) -> float:
    low = np.maximum(one.box[:2], two.box[:2]).astype(float)
    high = np.minimum(one.box[2:], two.box[2:]).astype(float)
    return float(np.linalg.norm(np.maximum(low - high, 0))) / SIZE


def read(scene: Scene, words: dict[str, str | None], rng: np.random.Generator | None = None, before: tuple[str, int] | None = None) -> set[int]:
    """Instances that a phrase means as people read it, without margins; with ``rng`` after a small shake of every place and size."""
    relation = words["relation"]
    shake = 0.0 if rng is None else 0.009 if relation else 0.0195
    source = rng or np.random.default_rng(0)
    where = centres(scene) + source.uniform(-shake, shake, (len(scene.instances), 2))
    name = before[0] if words["name"] == "one" and before else words["name"]
    pool = [k for k, i in enumerate(scene.instances) if i.name == name and (words["colour"] is None or i.colour == words["colour"])]
    if words["colour"]:
        assert all(i.colour is not None for i in scene.instances if i.name == name), "a colour is used although one of the class has none"
    if words["place"]:
        rows, columns = {"top": 0, "bottom": 2}, {"left": 0, "right": 2}
        said = words["place"].split()[2:]
        wanted_row = [rows[word] for word in said if word in rows] or ([1] if said[0] in ("centre", "middle") else [])
        wanted_column = [columns[word] for word in said if word in columns] or ([1] if said[0] in ("centre", "middle") else [])
        third = np.clip(np.floor(where * 3), 0, 2)
        return {k for k in pool if (not wanted_column or third[k, 0] == wanted_column[0]) and (not wanted_row or third[k, 1] == wanted_row[0])}
    if relation:
        if words["anchor"]:
            ends = [k for k, i in enumerate(scene.instances) if i.name == words["anchor"] and words["anchor_colour"] in (None, i.colour)]
        else:
            assert before is not None
            ends = [before[1]]
        assert len(ends) == 1, "the anchor is not unique"
        end = ends[0]
        pool = [k for k in pool if k != end]
        dx, dy = (where - where[end]).T
        if "left" in relation or "right" in relation or relation in ("above", "below"):
            along = -dx if "left" in relation else dx if "right" in relation else -dy if relation == "above" else dy
            return {k for k in pool if along[k] > 0}
        if relation == "next to":
            return {k for k in pool if box_gap(scene.instances[k], scene.instances[end]) < 0.105 + shake}
        nearest = min(pool, key=lambda k: float(np.hypot(dx[k], dy[k])))
        assert nearest == min(pool, key=lambda k: box_gap(scene.instances[k], scene.instances[end])), "by gap another is nearer"
        return {nearest}
    order = words["extreme"] or (f"{words['side']}most" if words["side"] else None)
    if order is None:
        return set(pool)
    if order in ("largest", "biggest", "smallest", "large", "small"):
        value = np.array([np.count_nonzero(i.mask) for i in scene.instances]) * (1 if rng is None else source.uniform(0.88, 1.13, len(scene.instances)))
    else:
        value = where[:, 0 if order in ("leftmost", "rightmost") else 1]
    ranked = sorted(pool, key=lambda k: float(value[k]), reverse=order in ("largest", "biggest", "large", "rightmost", "bottommost"))
    place = {None: 0, "second": 1, "third": 2}[words["ordinal"]]
    return set(ranked[place : place + 1])


def readings(scene: Scene, words: dict[str, str | None], before: tuple[str, int] | None = None) -> Iterator[set[int]]:
    yield read(scene, words, before=before)
    rng = np.random.default_rng(1)
    for _ in range(4):
        yield read(scene, words, rng, before)


def phrases(prompt: str) -> list[dict[str, str | None]]:
    return [match.groupdict() for match in PHRASE.finditer(prompt)]


def check(scene: Scene, said: Spoken) -> None:
    """Every claim of a dialogue, against the records; AssertionError where the words mean something else."""
    assert sum(turn.answer.count(SEG) for turn in said.turns) == len(said.targets) == len(said.classes)
    assert not any(scene.instances[index].distractor_only for target in said.targets for index in target)
    before: tuple[str, int] | None = None
    targets = iter(said.targets)
    for turn in said.turns:
        if said.task.startswith("caption"):
            continue
        found = phrases(turn.prompt)
        assert found, f"nothing understood in {turn.prompt!r}"
        if said.task == "vqa/compare":
            one, two = (len(read(scene, words)) for words in found)
            assert one != two
            assert turn.answer == ("yes" if (one < two if "fewer" in turn.prompt else one > two) else "no")
            continue
        for words in found:
            meanings = list(readings(scene, words, before))
            assert all(meaning == meanings[0] for meaning in meanings), f"{turn.prompt!r} is not clear"
            _check_answer(scene, said, turn.answer, meanings[0], next(targets) if SEG in turn.answer else None)
            if len(meanings[0]) == 1:
                before = (scene.instances[min(meanings[0])].name, min(meanings[0]))


def _check_answer(scene: Scene, said: Spoken, answer: str, meaning: set[int], target: tuple[int, ...] | None) -> None:
    if said.task == "segment/absent":
        assert not meaning
        named = re.fullmatch(r"(.+) (?:is|are) not in this image\.", answer)
        assert named
        assert named[1].lower() in said.turns[0].prompt
    elif target is not None:
        assert meaning == set(target)
        assert len(target) == 1 or said.task == "segment/group"
    elif said.task == "vqa/presence":
        assert answer == ("yes" if meaning else "no")
    elif said.task == "vqa/count":
        assert answer == str(len(meaning))
    else:
        assert len(meaning) == 1
        instance = scene.instances[min(meaning)]
        if said.task == "vqa/colour":
            assert answer == instance.colour
        else:
            numbers = [int(text) for text in re.findall(r"<(\d+)>", answer)]
            assert np.abs(np.array(numbers) - 100 * np.array(instance.box) / SIZE).max() <= 1
            assert re.search(r"\{<\d+><\d+><\d+><\d+>\}", answer)
            assert min(numbers) >= 0
            assert max(numbers) <= 100


# ---- the checks ----------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thrown() -> list[tuple[Scene, list[Spoken]]]:
    scenes = [random_scene(seed) for seed in range(200)]
    return [(scene, talk(scene, np.random.default_rng(seed), MIX, 12)) for seed, scene in enumerate(scenes)]


@pytest.fixture(scope="module")
def rendered() -> list[tuple[Scene, list[Spoken]]]:
    scenes = [render(5, "train", index, level=LEVELS["standard"], size=SIZE) for index in range(80)]
    return [(scene, talk(scene, np.random.default_rng(index), MIX, 12)) for index, scene in enumerate(scenes)]


@pytest.mark.parametrize("source", ["thrown", "rendered"])
def test_every_claim_is_true_by_an_independent_reader(source: str, request: pytest.FixtureRequest) -> None:
    tasks: Counter[str] = Counter()
    for scene, spoken in request.getfixturevalue(source):
        for said in spoken:
            check(scene, said)
            tasks[said.task] += 1
    assert set(tasks) == set(KINDS)
    assert tasks["segment/single"] > 150


def test_the_reader_would_notice(thrown: list[tuple[Scene, list[Spoken]]]) -> None:
    noticed = 0
    singles = [(scene, said) for scene, spoken in thrown for said in spoken if said.task == "segment/single" and len(scene.instances) > 1]
    for scene, said in singles[:100]:
        other = (said.targets[0][0] + 1) % len(scene.instances)
        with pytest.raises(AssertionError):
            check(scene, Spoken(said.turns, ((other,),), said.classes, said.task))
        noticed += 1
    assert noticed == 100


@pytest.mark.parametrize(
    ("things", "forbidden"),
    [
        ([thing("ship", (10, 10, 30, 30)), thing("ship", (80, 80, 99, 99))], r"large|small|big"),
        ([thing("ship", (10, 10, 30, 30), "red"), thing("ship", (80, 80, 99, 99), None)], r"red"),
        ([thing("ship", (10, 10, 30, 30), "red"), thing("ship", (80, 80, 99, 99), "orange")], r"red|orange"),
        ([thing("ship", (50, 10, 60, 60)), thing("ship", (54, 70, 64, 120))], r"left|right"),
        ([thing("ship", (10, 10, 30, 30)), thing("ship", (80, 10, 84, 14), distractor=True)], r"the ship[.?, ]*(please|$)|all"),
    ],
)
def test_what_is_not_clear_is_not_said(things: list[Instance], forbidden: str) -> None:
    scene = scene_of(*things)
    mix = {"segment/single": 1.0, "segment/group": 1.0}
    prompts = [said.turns[0].prompt for seed in range(60) for said in talk(scene, np.random.default_rng(seed), mix, 4)]
    assert prompts
    assert not [prompt for prompt in prompts if re.search(forbidden, prompt)]


def test_a_scene_is_what_its_number_says() -> None:
    source = Scenes("easy", "train", 64, count=4, dialogues=4)
    first, later = (source.sample(1, epoch=epoch) for epoch in (0, 1))
    assert torch.equal(first.image, later.image)
    assert [each.turns for each in first.dialogues] == [each.turns for each in later.dialogues], "so that a few can be learnt by heart"
    assert source.identity != Scenes("easy", "train", 64, count=4, dialogues=4, mix={"vqa": 1.0}).identity


def test_an_empty_scene_is_still_talked_about() -> None:
    spoken = talk(scene_of(), np.random.default_rng(0), MIX, 8)
    assert len(spoken) == 8
    assert {said.task for said in spoken} <= {"segment/absent", "vqa/presence", "vqa/count", "caption/scene", "caption/detailed"}
    assert talk(scene_of(), np.random.default_rng(0), {"refer": 1.0}, 8) == []


def test_the_mix_decides() -> None:
    scene = random_scene(7)
    assert {said.task.split("/")[0] for said in talk(scene, np.random.default_rng(0), {"vqa": 1.0}, 6)} == {"vqa"}
    assert {said.task for said in talk(scene, np.random.default_rng(0), {"segment": 1.0, "segment/single": 0.0}, 6)}.isdisjoint({"segment/single", "vqa/count"})
    for wrong in ({"segmentation": 1.0}, {"segment": -1.0}, {"segment": float("nan")}, {}):
        with pytest.raises(ValueError, match="mix"):
            talk(scene, np.random.default_rng(0), wrong, 4)
    with pytest.raises(ValueError, match="refer/box"):
        talk(scene, np.random.default_rng(0), {"segment/one": 1.0}, 4)


def test_the_same_state_says_the_same_and_no_question_twice(thrown: list[tuple[Scene, list[Spoken]]]) -> None:
    for seed, (scene, spoken) in enumerate(thrown[:40]):
        assert talk(scene, np.random.default_rng(seed), MIX, 12) == spoken
        prompts = [said.turns[0].prompt for said in spoken]
        assert len(set(prompts)) == len(prompts)


def test_the_language_is_small(rendered: list[tuple[Scene, list[Spoken]]]) -> None:
    turns = [turn for _, spoken in rendered for said in spoken for turn in said.turns]
    assert all(len(set(options)) >= 8 for options in QUESTIONS.values())
    assert all(re.match(rf"\[({'|'.join(FAMILIES)})\] [a-z]", turn.prompt) and turn.prompt == turn.prompt.lower() for turn in turns)
    assert np.median([len(turn.prompt.split()) for turn in turns]) <= 14
    assert len({word for turn in turns for word in re.findall(r"[\w]+", f"{turn.prompt} {turn.answer}")}) < 600


def test_answers_cannot_be_guessed(rendered: list[tuple[Scene, list[Spoken]]]) -> None:
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for index, (scene, _) in enumerate(rendered):
        for said in talk(scene, np.random.default_rng(index), {"vqa/presence": 1.0, "vqa/compare": 1.0, "segment/absent": 1.0}, 16):
            present = any(f" {instance.name}" in said.turns[0].prompt for instance in scene.instances)
            answers[said.task]["present" if present and said.task == "segment/absent" else said.turns[0].answer.split()[0]] += 1
    for task, word in (("vqa/presence", "yes"), ("vqa/compare", "yes"), ("segment/absent", "present")):
        assert 0.42 <= answers[task][word] / sum(answers[task].values()) <= 0.58, task


def test_most_single_references_need_more_than_the_class(rendered: list[tuple[Scene, list[Spoken]]]) -> None:
    singles = [(scene, said) for scene, spoken in rendered for said in spoken if said.task == "segment/single"]
    for scene, said in singles:
        assert said.needs_more == (sum(instance.name == said.classes[0] for instance in scene.instances) > 1)
    assert 0.62 <= np.mean([said.needs_more for _, said in singles]) <= 0.82


def test_what_is_unseen_is_never_spoken_of_and_still_shown() -> None:
    whole, without = Scenes("easy", size=96), Scenes("easy", size=96, unseen=["small vehicle", "ship"])
    words = [" ".join(f"{turn.prompt} {turn.answer}" for talk in without.spoken(without.scene(index), index) for turn in talk.turns) for index in range(40)]
    assert not any(re.search(r"\b(ships?|small vehicles?)\b", text, re.IGNORECASE) for text in words)
    assert sum(len(text) for text in words) > 2000
    assert any("ship" in {one.name for one in without.scene(index).instances} for index in range(40))
    assert torch.equal(whole.sample(3).image, without.sample(3).image)
    assert "without ship, small vehicle" in without.title
    with pytest.raises(ValueError, match="boat"):
        Scenes(unseen=["boat"])
