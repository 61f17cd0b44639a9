"""The renderer of the scenes: the same scene for the same name, exact masks, and the statistics that its levels promise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from geopix.data.scenes.catalogue import KINDS, PAINTS
from geopix.data.scenes.records import Scene
from geopix.data.scenes.render import CLASSES, COLOURS, LEVELS, render
from geopix.data.scenes.settings import SETTINGS


def long_side(box: tuple[int, int, int, int]) -> int:
    return max(box[2] - box[0], box[3] - box[1])


@pytest.fixture(scope="module")
def standard() -> list[Scene]:
    return [render(0, "val", index, level=LEVELS["standard"]) for index in range(150)]


@pytest.fixture(scope="module")
def easy() -> list[Scene]:
    return [render(0, "val", index, level=LEVELS["easy"]) for index in range(100)]


def test_the_same_name_gives_the_same_scene() -> None:
    first, again = (render(3, "train", 7, level=LEVELS["standard"]) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert [item.box for item in first.instances] == [item.box for item in again.instances]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first.instances, again.instances, strict=True))


@pytest.mark.parametrize(
    ("seed", "split", "index", "level"), [(4, "train", 7, "standard"), (3, "val", 7, "standard"), (3, "train", 8, "standard"), (3, "train", 7, "easy")]
)
def test_another_name_gives_another_scene(seed: int, split: str, index: int, level: str) -> None:
    assert not np.array_equal(render(3, "train", 7, level=LEVELS["standard"]).image, render(seed, split, index, level=LEVELS[level]).image)


def test_a_known_scene_has_not_changed_between_processes() -> None:
    """Python's own hash of a string differs between processes; one scene is pinned so that it is never used.

    Where scenes are changed on purpose, this changes with them: val and test scenes are then others than before.
    """
    scene = render(0, "pinned", 0, level=LEVELS["easy"])
    assert (scene.setting, round(scene.gsd, 4), sorted(item.name for item in scene.instances)) == PINNED


@pytest.mark.parametrize("level", LEVELS)
def test_masks_and_boxes_are_exact(level: str) -> None:
    for index in range(15):
        scene = render(1, "test", index, level=LEVELS[level])
        taken = np.zeros((128, 128), int)
        for item in scene.instances:
            taken += item.mask
            rows, columns = np.nonzero(item.mask)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert item.name in CLASSES
            assert item.colour is None or item.colour in KINDS[item.name].colours
            assert 0 < item.visible <= 1
            assert 0 <= item.heading < 180
            assert item.length >= item.width > 0
            assert item.distractor_only == (item.visible < 0.4 or item.area < 6)
        assert taken.max() <= 1
        assert scene.image.dtype == np.uint8


def test_a_mask_has_the_size_that_the_metres_say() -> None:
    """Whole, unhidden rectangles cover length x width / gsd^2 pixels."""
    ratios = []
    for index in range(60):
        scene = render(5, "test", index, level=LEVELS["easy"], size=256)
        for item in scene.instances:
            if item.name in ("tennis court", "large vehicle", "basketball court") and item.visible == 1:
                ratios.append(item.area / (item.length * item.width / scene.gsd**2))
    assert len(ratios) > 20
    assert 0.93 < np.median(ratios) < 1.07


def test_the_heading_is_the_direction_of_the_mask() -> None:
    checked = 0
    for index in range(40):
        for item in render(6, "test", index, level=LEVELS["easy"]).instances:
            if item.name in ("large vehicle", "harbour", "bridge") and item.visible == 1 and item.area > 60:
                rows, columns = np.nonzero(item.mask)
                values, vectors = np.linalg.eigh(np.cov(np.stack([columns, -rows])))
                seen = np.degrees(np.arctan2(*vectors[::-1, np.argmax(values)])) % 180
                assert min(abs(seen - item.heading), 180 - abs(seen - item.heading)) < 6
                checked += 1
    assert checked > 20


def test_a_colour_word_is_what_the_pixels_show(easy: list[Scene]) -> None:
    right = []
    for scene in easy:
        for item in scene.instances:
            if item.colour and not item.distractor_only:
                median = np.median(scene.image[item.mask].astype(float), axis=0)
                paints = {word: PAINTS.get((item.name, word), COLOURS[word]) for word in KINDS[item.name].colours}
                right.append(min(paints, key=lambda word: float(np.linalg.norm(np.array(paints[word]) - median))) == item.colour)
    assert np.mean(right) > 0.9


def test_every_class_and_setting_appears(standard: list[Scene]) -> None:
    assert len(CLASSES) >= 16
    assert {item.name for scene in standard for item in scene.instances} == set(CLASSES)
    assert {scene.setting for scene in standard} == set(SETTINGS)


def test_statistics_of_standard(standard: list[Scene]) -> None:
    sizes = np.array([long_side(item.box) for scene in standard for item in scene.instances])
    assert 7 <= np.median([len(scene.instances) for scene in standard]) <= 9
    assert 0.15 <= np.mean(sizes < 12) <= 0.25
    assert sizes.max() >= 64
    several = [any(2 <= number <= 4 for number in Counter(item.name for item in scene.instances).values()) for scene in standard]
    assert np.mean(several) > 0.6
    assert np.mean([item.distractor_only for scene in standard for item in scene.instances]) < 0.05


def test_easy_is_few_and_large(easy: list[Scene]) -> None:
    assert all(1 <= len(scene.instances) <= 6 for scene in easy)
    assert np.median([long_side(item.box) for scene in easy for item in scene.instances]) >= 16


def test_hard_is_many_and_small() -> None:
    scenes = [render(0, "val", index, level=LEVELS["hard"]) for index in range(45)]
    sizes = np.array([long_side(item.box) for scene in scenes for item in scene.instances])
    assert 13 <= np.median([len(scene.instances) for scene in scenes]) <= 19
    assert 0.33 <= np.mean(sizes < 12) <= 0.5


@pytest.mark.parametrize("size", [64, 97, 200, 640])
def test_other_sizes_show_the_same_ground(size: int) -> None:
    for index in range(4):
        scene, usual = (render(2, "val", index, level=LEVELS["standard"], size=side) for side in (size, 128))
        assert scene.image.shape == (size, size, 3)
        assert all(item.mask.shape == (size, size) for item in scene.instances)
        assert scene.gsd * size == pytest.approx(usual.gsd * 128)


def test_a_size_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels; found 8"):
        render(0, "val", 0, level=LEVELS["easy"], size=8)


PINNED: tuple[str, float, list[str]] = ("road junction", 0.4504, ["large vehicle", "roundabout", "small vehicle"])
