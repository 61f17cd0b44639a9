"""Metrics against references written another way, on random and on degenerate input."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from geopix.metrics import boxes, caption, masks, pixels, vqa


def numbers(scores: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(value.shape == () and value.dtype == torch.float64 for value in scores.values())
    return {name: value.item() for name, value in scores.items()}


def blob(generator: torch.Generator, height: int, width: int, share: float) -> torch.Tensor:
    return torch.rand(height, width, generator=generator) < share


def random_dialogues(num: int) -> list[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Dialogues of images of different sizes with 0 to 3 masks drawn and asked for, some of them empty, some alike."""
    generator, chooser = torch.Generator().manual_seed(0), random.Random(0)
    dialogues = []
    for _ in range(num):
        height, width = chooser.randint(1, 20), chooser.randint(1, 20)
        truth = [blob(generator, height, width, chooser.choice((0.0, 0.3, 1.0))) for _ in range(chooser.randint(0, 3))]
        drawn = [mask.clone() if chooser.random() < 0.4 else blob(generator, height, width, chooser.choice((0.0, 0.5, 1.0))) for mask in truth]
        drawn = drawn[: chooser.randint(0, 3)] + [blob(generator, height, width, 0.5)] * (chooser.random() < 0.2)
        dialogues.append((drawn, truth))
    return dialogues


def reference_mask_scores(dialogues: list[tuple[list[torch.Tensor], list[torch.Tensor]]]) -> dict[str, float]:
    ious, inter, union = [], 0, 0
    for drawn, truth in dialogues:
        for one, other in itertools.zip_longest(drawn, truth):
            both = [np.zeros_like((other if one is None else one).numpy()) if mask is None else mask.numpy() for mask in (one, other)]
            i, u = int(np.logical_and(*both).sum()), int(np.logical_or(*both).sum())
            u = max(u, 1) if other is None else u
            inter, union = inter + i, union + u
            ious.append(i / u if u else 1.0)
    shares = {f"pr@0.{t}": float(np.mean(np.array(ious) > t / 10)) for t in range(5, 10)}
    return {"giou": float(np.mean(ious)), "ciou": inter / union, "count": len(ious)} | shares


def test_mask_scores_equal_a_numpy_reference() -> None:
    dialogues = random_dialogues(300)
    metric, one_each = masks.MaskIoU(), masks.MaskIoU()
    counts = [pixels.score_dialogue(drawn, truth) for drawn, truth in dialogues]
    for intersection, union in counts:
        one_each.update(intersection, union)
    shuffled = random.Random(1).sample(counts, len(counts))
    metric.update(torch.cat([pair[0] for pair in shuffled]), torch.cat([pair[1] for pair in shuffled]))
    expected = reference_mask_scores(dialogues)
    assert 0.2 < expected["giou"] < 0.8
    assert numbers(metric.compute()) == pytest.approx(expected, abs=1e-6)
    assert numbers(one_each.compute()) == pytest.approx(expected, abs=1e-6)


def test_counts_come_as_int64_and_in_the_order_of_the_question() -> None:
    ones, zeros = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)
    intersection, union = pixels.score_dialogue((zeros, ones), (ones, ones, ones))
    assert intersection.dtype == union.dtype == torch.int64
    assert (intersection.tolist(), union.tolist()) == ([0, 6, 0], [6, 6, 6])
    intersection, union = pixels.score_dialogue([ones, ones, zeros], [ones])
    assert (intersection.tolist(), union.tolist()) == ([6, 0, 0], [6, 6, 1])
    assert [len(counts) for counts in pixels.score_dialogue([], [])] == [0, 0]
    assert pixels.intersection_union(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0, 4, 4, dtype=torch.bool))[1].tolist() == []


@pytest.mark.parametrize(
    ("drawn", "truth", "giou", "ciou"),
    [
        ([0], [0], 1.0, math.nan),  # empty against empty
        ([1], [0], 0.0, 0.0),  # something against empty
        ([0], [1], 0.0, 0.0),
        ([], [1], 0.0, 0.0),  # asked for, not drawn
        ([], [0], 1.0, math.nan),  # refused, and scored as an empty mask
        ([1, 1], [1], 0.5, 0.5),  # one too many
        ([1, 0], [1], 0.5, 6 / 7),  # one too many, and empty: not an empty against empty
        ([], [], math.nan, math.nan),
    ],
)
def test_degenerate_masks(drawn: list[int], truth: list[int], giou: float, ciou: float) -> None:
    full = [torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)]
    scores = numbers(masks.mask_iou(*pixels.score_dialogue([full[i] for i in drawn], [full[i] for i in truth])))
    assert (scores["giou"], scores["ciou"]) == pytest.approx((giou, ciou), nan_ok=True)
    assert scores["count"] == max(len(drawn), len(truth))


def test_thresholds_are_strict_and_exact() -> None:
    scores = numbers(masks.mask_iou(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([10] * 5)))
    assert [scores[f"pr@0.{t}"] for t in range(5, 10)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert numbers(masks.mask_iou(torch.tensor([501]), torch.tensor([1000])))["pr@0.5"] == 1.0


def test_large_unions_do_not_lose_pixels() -> None:
    metric = masks.MaskIoU()
    for _ in range(3):
        metric.update(torch.tensor([2**40 + 1]), torch.tensor([2**41]))
    assert metric.sums[-2:].tolist() == [3 * (2**40 + 1), 3 * 2**41]


def test_masks_of_another_size_and_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="size of its image"):
        pixels.score_dialogue([torch.ones(1, 3, dtype=torch.bool)], [torch.ones(2, 3, dtype=torch.bool)])
    with pytest.raises((ValueError, TypeError)):
        pixels.intersection_union(torch.ones(1, 1, 3, dtype=torch.bool), torch.ones(1, 2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="intersection <= union"):
        masks.MaskIoU().update(torch.tensor([3]), torch.tensor([2]))


def test_refusals_equal_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    has_target, drew = torch.rand(2, 200, generator=generator) < 0.6
    metric = masks.Refusal()
    for part in (slice(0, 7), slice(7, 7), slice(7, 200)):
        metric.update(has_target[part], drew[part])
    cells = Counter(zip(has_target.tolist(), drew.tolist(), strict=True))
    targets, absent = cells[True, True] + cells[True, False], cells[False, True] + cells[False, False]
    expected = {"t_acc": cells[True, True] / targets, "n_acc": cells[False, False] / absent, "num_targets": targets, "num_absent": absent}
    assert numbers(metric.compute()) == pytest.approx(expected)
    assert numbers(masks.refusal(has_target, drew)) == pytest.approx(expected)
    assert math.isnan(numbers(masks.refusal(torch.tensor([True]), torch.tensor([True])))["n_acc"])


def random_questions(num: int) -> tuple[list[str], list[str], list[str]]:
    chooser = random.Random(2)
    words = {"presence": ["yes", "no"], "count": ["1", "2", "3"], "colour": ["red", "light blue", "yes"]}
    kinds = [chooser.choice(list(words)) for _ in range(num)]
    truths = [chooser.choice(words[kind]) for kind in kinds]
    answers = [chooser.choice([truth, truth.upper() + ".", f" {truth} !", "no", "", "...", truth + " ships"]) for truth in truths]
    return kinds, answers, truths


def test_vqa_equals_a_reference() -> None:
    kinds, answers, truths = random_questions(400)
    metric = vqa.VQAAccuracy(("never", "presence", "count", "colour"), vocabulary=("yes", "no", "1", "2", "3"))
    order = random.Random(3).sample(range(400), 400)
    for part in (order[:33], [], order[33:]):
        metric.update([kinds[i] for i in part], [answers[i] for i in part], [truths[i] for i in part])
    scores = numbers(metric.compute())
    right = np.array([answer.lower().strip(" .!") == truth for answer, truth in zip(answers, truths, strict=True)])
    per_kind = {kind: right[np.array(kinds) == kind].mean() for kind in ("presence", "count", "colour")}
    assert scores["oa"] == pytest.approx(right.mean(), abs=1e-6)
    assert scores["aa"] == pytest.approx(np.mean(list(per_kind.values())), abs=1e-6)
    for kind, accuracy in per_kind.items():
        of_kind = Counter(truth for truth, other in zip(truths, kinds, strict=True) if other == kind)
        assert scores[kind] == pytest.approx(accuracy, abs=1e-6)
        assert scores[f"{kind}_num"] == of_kind.total()
        if kind != "colour":
            assert scores[f"{kind}_majority"] == pytest.approx(max(of_kind.values()) / of_kind.total(), abs=1e-6)
    assert math.isnan(scores["colour_majority"])  # "red" and "light blue" are outside the vocabulary
    assert math.isnan(scores["never"])
    assert (scores["never_num"], scores["num_questions"]) == (0, 400)


def test_vqa_refuses_what_it_cannot_count() -> None:
    with pytest.raises(ValueError, match="kind 'area'"):
        vqa.VQAAccuracy(("presence",)).update(["area"], ["1"], ["1"])
    with pytest.raises(ValueError, match="true answer"):
        vqa.vqa_accuracy(["presence"], ["."], ["?"])
    with pytest.raises(ValueError, match="found 1, 1 and 2"):
        vqa.vqa_accuracy(["presence"], ["yes"], ["yes", "no"])
    for kinds in ([], ["oa"], ["a", "a"], ["a", "a_majority"]):
        with pytest.raises(ValueError, match="kinds of questions"):
            vqa.VQAAccuracy(kinds)


def reference_box_iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Counted on the grid of whole percents, which is exact for whole coordinates."""
    grid = np.zeros((2, 100, 100), dtype=bool)
    for layer, (x1, y1, x2, y2) in zip(grid, (one, other), strict=True):
        layer[int(y1) : int(y2), int(x1) : int(x2)] = True
    return (grid[0] & grid[1]).sum() / max((grid[0] | grid[1]).sum(), 1)


def test_boxes_equal_a_grid_reference() -> None:
    chooser = random.Random(4)
    answers, truths, ious = [], [], []
    for _ in range(200):
        box = tuple(chooser.randint(*limits) for limits in ((10, 30), (10, 30), (40, 60), (40, 60)))
        spread = chooser.choice((0, 3, 9))
        coordinates = (tuple(number + chooser.randint(-spread, spread) for number in box), box)
        texts = ["There: {" + "".join(f"<{number}>" for number in numbers_of) + "}." for numbers_of in coordinates]
        answers.append(texts[0])
        truths.append(texts[1])
        ious.append(reference_box_iou(*coordinates))
    metric = boxes.BoxAccuracy()
    for part in (slice(100, 200), slice(0, 0), slice(0, 100)):
        metric.update(answers[part], truths[part])
    expected = {"acc@0.5": np.mean(np.array(ious) >= 0.5), "acc@0.7": np.mean(np.array(ious) >= 0.7), "mean_iou": np.mean(ious), "count": 200}
    assert 0.05 < expected["acc@0.5"] < 0.95
    assert numbers(metric.compute()) == pytest.approx(expected, abs=1e-6)
    assert numbers(boxes.box_accuracy(answers, truths)) == pytest.approx(expected, abs=1e-6)


MALFORMED = ["", "{}", "{<1><2><3>}", "{<1><2><3><4>", "<1><2><3><4>", "{<5><0><1><9>}", "{<0><0><0><101>}", "{<a><b><c><d>}", "{<-1><0><1><1>}"]


@pytest.mark.parametrize("text", MALFORMED)
def test_text_without_a_well_formed_box(text: str) -> None:
    assert boxes.parse_boxes(text) == []
    whole = "{<0><0><100><100>}"
    # a good answer just before must not lend its IoU to the one that cannot be read
    assert numbers(boxes.box_accuracy([whole, text], [whole, whole])) == {"acc@0.5": 0.5, "acc@0.7": 0.5, "mean_iou": 0.5, "count": 2.0}


def test_boxes_keep_their_places() -> None:
    one, two = "{<0><0><10><10>}", "{<50><50><60><60>}"
    assert boxes.score_boxes(f"{one} {two}", one + two) == [1.0, 1.0]
    assert boxes.score_boxes(f"{two} {one}", one + two) == [0.0, 0.0]
    assert boxes.score_boxes(f"{{<1>}} {two}", one + two) == [0.0, 1.0]
    assert boxes.score_boxes(one + two, one) == [1.0, 0.0]
    assert numbers(boxes.box_accuracy(["{<0><0><10><5>}"], [one]))["acc@0.5"] == 1.0  # at least 0.5, not above it
    assert boxes.score_boxes("{<5><5><5><5>}", "{<5><5><5><5>}") == [1.0]
    assert boxes.score_boxes("{<0><0><0><9>}", "{<1><0><1><9>}") == [0.0]
    for truth in ("nothing there", "{<9><9><1><1>}"):
        with pytest.raises(ValueError, match="must hold boxes"):
            boxes.score_boxes(one, truth)


def reference_rouge_l(candidate: list[str], reference: list[str], beta: float) -> float:
    table = np.zeros((len(candidate) + 1, len(reference) + 1), dtype=int)
    for i, j in itertools.product(range(len(candidate)), range(len(reference))):
        table[i + 1, j + 1] = table[i, j] + 1 if candidate[i] == reference[j] else max(table[i, j + 1], table[i + 1, j])
    precision, recall = table[-1, -1] / len(candidate), table[-1, -1] / len(reference)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if precision else 0.0


def random_captions(num: int) -> tuple[list[str], list[str]]:
    chooser = random.Random(5)
    vocabulary = ["a", "the", "ship", "ships", "Harbour,", "bridge.", "near", "two", "3", "it's", "ground-track"]
    texts = [[" ".join(chooser.choices(vocabulary, k=chooser.randint(1, 80))) for _ in range(num)] for _ in range(2)]
    return texts[0], texts[1]


@pytest.mark.parametrize("beta", [1.0, 1.2])
def test_rouge_l_equals_the_table_of_the_definition(beta: float) -> None:
    candidates, references = random_captions(40)
    expected = [reference_rouge_l(caption.words(c), caption.words(r), beta) for c, r in zip(candidates, references, strict=True)]
    assert [caption.rouge_l(c, r, beta=beta) for c, r in zip(candidates, references, strict=True)] == pytest.approx(expected, abs=1e-9)
    metric = caption.RougeL(beta=beta)
    for part in (slice(7, 40), slice(0, 0), slice(0, 7)):
        metric.update(candidates[part], references[part])
    assert numbers(metric.compute()) == pytest.approx({"rouge_l": np.mean(expected), "count": 40}, abs=1e-6)


def test_rouge_l_equals_the_rouge_score_package() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed").RougeScorer(["rougeL"])
    for candidate, reference in zip(*random_captions(60), strict=True):
        assert caption.rouge_l(candidate, reference, beta=1.0) == pytest.approx(scorer.score(reference, candidate)["rougeL"].fmeasure, abs=1e-9)


def test_rouge_l_of_degenerate_captions() -> None:
    assert caption.rouge_l("", "a ship") == caption.rouge_l("...", "a ship") == caption.rouge_l("no", "a ship") == 0.0
    assert caption.rouge_l("A ship!", "a ship") == 1.0
    # precision from the first reference, recall from the second
    assert caption.rouge_l("a b", ["a b c d", "a"], beta=1.0) == 1.0
    for references in ((), "", ("a ship", "!")):
        with pytest.raises(ValueError, match="at least one reference"):
            caption.rouge_l("a ship", references)
