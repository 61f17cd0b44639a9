"""Intervals and differences, against a bootstrap written out image by image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geopix.evaluation.groups import Group, Table, tabulate
from geopix.evaluation.names import is_count
from geopix.evaluation.numbers import differences, intervals, mean_numbers, numbers, weights
from geopix.evaluation.outcome import Outcome, Pair
from geopix.evaluation.protocols import PROTOCOLS

RULE = PROTOCOLS["generate"]


def outcome(image: int, number: int, intersection: int, union: int) -> Outcome:
    pair = Pair(intersection, union, max(intersection, 1), (intersection, union), "ship")
    return Outcome(
        key=f"{image}#{number}", image=str(image), task="segment/single", size=(8, 8), prompts=("p",), expected=("e",), references=("e",), digest="d",
        answers=("[SEG]",), drew=True, targets=1, written=1, pairs=(pair,),
    )  # fmt: skip


def some(seed: int, images: int = 12) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    found = []
    for image in range(images):
        for number in range(int(rng.integers(1, 4))):
            union = int(rng.integers(1, 50))
            found.append(outcome(image, number, int(rng.integers(0, union + 1)), union))
    return found


def test_intervals_equal_a_bootstrap_written_out() -> None:
    outcomes = some(0)
    found = intervals(tabulate(outcomes, RULE), RULE, resamples=150, seed=3)
    by_image = [[each.pairs[0] for each in outcomes if each.image == image] for image in dict.fromkeys(each.image for each in outcomes)]
    gious, cious = [], []
    for drawn in torch.cat(list(weights(len(by_image), 150, 3))).numpy():
        pairs = [pair for count, image in zip(drawn, by_image, strict=True) for _ in range(int(count)) for pair in image]
        gious.append(np.mean([pair.intersection / pair.union for pair in pairs]))
        cious.append(sum(pair.intersection for pair in pairs) / sum(pair.union for pair in pairs))
    assert found["single/giou"] == pytest.approx(np.quantile(gious, [0.025, 0.975]), abs=1e-9)
    assert found["single/ciou"] == pytest.approx(np.quantile(cious, [0.025, 0.975]), abs=1e-9)
    assert "single/count" not in found


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    drawn = torch.cat(list(weights(7, 250, 0)))
    assert drawn.shape == (250, 7)
    assert bool((drawn.sum(1) == 7).all())
    assert drawn.mean() == pytest.approx(1.0)
    assert len(torch.unique(drawn, dim=0)) > 200


def test_an_interval_holds_the_mean_of_the_population_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(120):
        values = rng.integers(0, 101, 40)
        outcomes = [outcome(image, 0, int(value), 100) for image, value in enumerate(values)]
        low, high = intervals(tabulate(outcomes, RULE), RULE, resamples=300, seed=trial)["single/giou"]
        held += low <= 0.5 <= high
    assert 105 <= held <= 119


def test_a_difference_is_paired() -> None:
    worse, better = some(1), []
    for each in worse:
        pair = each.pairs[0]
        better.append(outcome(int(each.image), int(each.key.rpartition("#")[2]), min(pair.intersection + 1, pair.union), pair.union))
    first, second = tabulate(worse, RULE), tabulate(better[::-1], RULE)
    low, high = differences([first], [second], RULE, resamples=300)["single/giou"]
    assert 0 < low < high
    alone = intervals(first, RULE, resamples=300)["single/giou"]
    assert high - low < (alone[1] - alone[0]) / 2, "images that are hard for both must not widen the interval"
    assert differences([first], [first], RULE, resamples=50)["single/giou"] == (0.0, 0.0)


def test_a_difference_over_seeds_equals_a_bootstrap_written_out() -> None:
    one, two = [tabulate(some(seed), RULE) for seed in (1, 2, 3)], [tabulate(some(seed), RULE) for seed in (4, 5, 6)]
    images, count = one[0].images, 100
    drawn, often = next(weights(len(images), count, 0)).numpy(), next(weights(3, count, 1)).numpy()

    def giou(tables: list[Table], row: int) -> float:
        total = 0.0
        for table, times in zip(tables, often[row], strict=True):
            sums = next(group for group in table.groups if group.name == "single").sums.numpy()
            order = [table.images.index(image) for image in images]
            total += times * float(next(group for group in table.groups if group.name == "single").scores(torch.from_numpy(drawn[row] @ sums[order]))["giou"])
        return total / 3

    expected = np.quantile([giou(two, row) - giou(one, row) for row in range(count)], [0.025, 0.975])
    assert differences(one, two, RULE, resamples=count)["single/giou"] == pytest.approx(tuple(expected))
    wider, narrower = (differences(a, b, RULE, resamples=400)["single/giou"] for a, b in ((one, two), (one, [one[1], one[2], one[0]])))
    assert narrower[0] < 0 < narrower[1], "the same three trainings in another order do not differ"
    assert wider[1] > wider[0]
    assert mean_numbers(one, RULE)["single/giou"] == pytest.approx(np.mean([numbers(table, RULE)["single/giou"] for table in one]))


def test_seeds_are_compared_one_by_one() -> None:
    table = tabulate(some(0), RULE)
    with pytest.raises(ValueError, match="seed by seed, but there are 1 on one side and 2"):
        differences([table], [table, table], RULE)


def test_runs_on_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="scored in one of them only"):
        differences([tabulate(some(0, 3), RULE)], [tabulate(some(0, 4), RULE)], RULE)


def test_nothing_scored_gives_no_numbers() -> None:
    table = tabulate([], RULE)
    assert numbers(table, RULE) == {}
    assert intervals(table, RULE) == {}


def test_average_precision_of_grounded_conversations_has_an_interval() -> None:
    talks = [
        replace(outcome(image, 0, 8, 10), task="segment/grounded", targets=2, grounded=(0.8, 0.1), hits=(True, image % 2 == 0), pairs=()) for image in range(6)
    ]
    table = tabulate(talks, RULE)
    assert numbers(table, RULE)["grounded_conversation/ap50"] == pytest.approx(0.75 * 76 / 101)
    low, high = intervals(table, RULE, resamples=200)["grounded_conversation/ap50"]
    assert low < 0.75 * 76 / 101 < high
    assert (low, high) != intervals(table, RULE, resamples=200)["grounded_conversation/recall@0.5"]


def test_a_score_about_nothing_in_some_resamples_keeps_its_interval() -> None:
    sums = torch.zeros(4, 2, dtype=torch.float64)
    sums[0] = 1.0
    group = Group("x", sums, lambda total: {"rate": total[..., 0] / total[..., 1]})
    assert intervals(Table(("a", "b", "c", "d"), (group,)), RULE, resamples=100)["x/rate"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("single/count", True),
        ("vqa/count", False),
        ("rsvqa_lr:vqa/count", False),
        ("val/vqa/count", False),
        ("vqa/count_num", True),
        ("class/ship/count", True),
        ("absent/num_absent", True),
    ],
)
def test_counts_are_known_by_their_names(name: str, counts: bool) -> None:
    assert is_count(name) == counts
