"""Outlines, assignments, sizes, rules of other papers and grounded conversations against references written another way."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import binary_erosion

from geopix.metrics import grounded, masks, pixels

Masks = list[torch.Tensor]


def random_masks(generator: torch.Generator, num: int, size: tuple[int, int] = (24, 31)) -> Masks:
    """Rectangles, so that some overlap much, some little and some not at all."""
    found = []
    for _ in range(num):
        top, left, height, width = (int(torch.randint(1, side, (), generator=generator)) for side in (size[0], size[1], 14, 18))
        mask = torch.zeros(size, dtype=torch.bool)
        mask[top - 1 : top + height, left - 1 : left + width] = True
        found.append(mask)
    return found


def like(generator: torch.Generator, truth: Masks, extra: int) -> Masks:
    """Some of the true masks moved a little, and others."""
    moved = [mask.roll(int(torch.randint(0, 3, (), generator=generator)), 1) for mask in truth if torch.rand((), generator=generator) < 0.7]
    return moved + random_masks(generator, extra)


def iou(one: torch.Tensor, other: torch.Tensor) -> float:
    joined = int((one | other).sum())
    return int((one & other).sum()) / joined if joined else 1.0


COUNTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=30)


@given(COUNTS, st.sampled_from([0.0, 1.0]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_rule_equals_a_numpy_reference(counts: list[tuple[int, int]], empty: float, strict: bool) -> None:
    intersection, union = np.array(counts, dtype=float).reshape(-1, 2).T
    scores = masks.mask_iou(torch.tensor(intersection).long(), torch.tensor(union).long(), empty=empty, strict=strict)
    ious = np.where(union > 0, intersection / np.maximum(union, 1), empty)
    assert scores["count"] == len(counts)
    if not counts:
        assert all(math.isnan(value) for name, value in scores.items() if name != "count")
        return
    assert scores["giou"].item() == pytest.approx(ious.mean(), abs=1e-9)
    assert scores["ciou"].item() == pytest.approx(intersection.sum() / union.sum() if union.sum() else math.nan, abs=1e-9, nan_ok=True)
    for tenth in masks.TENTHS:
        left, right = 10 * np.where(union > 0, intersection, empty), tenth * np.where(union > 0, union, 1)
        assert scores[f"pr@0.{tenth}"].item() == pytest.approx(np.mean(left > right if strict else left >= right), abs=1e-9)


def test_the_rule_of_rrsis_d_has_its_own_names() -> None:
    scores = masks.mask_iou(torch.tensor([0, 5]), torch.tensor([0, 10]), empty=0.0, strict=False)
    named = masks.rmsin_names(scores)
    assert (named["miou"], named["oiou"], named["pr@0.5"], named["count"]) == (0.25, 0.5, 0.5, 2)
    assert masks.mask_iou(torch.tensor([0, 5]), torch.tensor([0, 10]))["giou"] == 0.75


def test_sizes_part_where_cocos_do() -> None:
    assert [masks.size_bucket(area) for area in (0, 1, 12**2, 32**2 - 1, 32**2, 96**2 - 1, 96**2, 10**9)] == [
        "empty", "tiny", "small", "small", "medium", "medium", "large", "large",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_outlines_equal_repeated_erosion(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (random.Random(seed).randint(1, 90), random.Random(seed + 100).randint(1, 150))
    pair = [torch.rand(size, generator=generator) < 0.98 for _ in range(2)] if seed % 2 else random_masks(generator, 2, (70, 120))
    for dilation in (0.0, 0.02, 0.1):
        steps = max(1, round(dilation * np.sqrt(pair[0].shape[0] ** 2 + pair[0].shape[1] ** 2)))
        outlines = [mask.numpy() & ~binary_erosion(mask.numpy(), np.ones((3, 3)), iterations=steps) for mask in pair]
        expected = (int((outlines[0] & outlines[1]).sum()), int((outlines[0] | outlines[1]).sum()))
        assert pixels.boundary_iou(*pair, dilation=dilation) == expected
        assert pixels.boundary_iou(pair[0].T.clone().T, pair[1], dilation=dilation) == expected  # however it lies in memory


def test_outlines_of_missing_masks_count_as_masks_do() -> None:
    whole, none = torch.ones(30, 40, dtype=torch.bool), torch.zeros(30, 40, dtype=torch.bool)
    edge = 30 * 40 - 28 * 38
    assert pixels.boundary_iou(whole, whole) == (edge, edge)
    assert pixels.boundary_iou(None, whole) == pixels.boundary_iou(whole, None) == pixels.boundary_iou(none, whole) == (0, edge)
    assert (pixels.boundary_iou(none, None), pixels.boundary_iou(None, none), pixels.boundary_iou(none, none)) == ((0, 1), (0, 0), (0, 0))
    with pytest.raises(ValueError, match="size of its image"):
        pixels.boundary_iou(whole, whole.T)


@pytest.mark.parametrize("seed", range(12))
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    generator, chooser = torch.Generator().manual_seed(seed), random.Random(seed)
    truth = random_masks(generator, chooser.randint(0, 4))
    drawn = like(generator, truth, chooser.randint(0, 3))[:5]
    pairs = pixels.match_masks(drawn, truth)
    assert sorted(one for one, _ in pairs if one is not None) == list(range(len(drawn)))
    assert [other for _, other in pairs if other is not None] == list(range(len(truth)))
    assert len(pairs) == max(len(drawn), len(truth))
    found = sum(iou(drawn[one], truth[other]) for one, other in pairs if one is not None and other is not None)
    table = np.array([[iou(one, other) for other in truth] for one in drawn]).reshape(len(drawn), len(truth))
    table = table if len(drawn) <= len(truth) else table.T
    best = max(sum(row[column] for row, column in zip(table, columns, strict=True)) for columns in itertools.permutations(range(table.shape[1]), len(table)))
    assert found == pytest.approx(best, abs=1e-9)
    shared, joined = pixels.score_matched(drawn, truth)
    assert shared.tolist() == [0 if None in pair else int((drawn[pair[0]] & truth[pair[1]]).sum()) for pair in pairs]  # type: ignore[index]
    ious = masks.mask_iou(shared, joined)
    assert ious["giou"].item() == pytest.approx(best / len(pairs) if pairs else math.nan, nan_ok=True)


def test_matching_heeds_no_order_and_counts_both_sides() -> None:
    truth = random_masks(torch.Generator().manual_seed(3), 3)
    none = torch.zeros_like(truth[0])
    assert pixels.match_masks(truth[::-1], truth) == [(2, 0), (1, 1), (0, 2)]
    assert pixels.match_masks([], truth) == [(None, 0), (None, 1), (None, 2)]
    assert pixels.match_masks([none, truth[1]], [truth[1], none]) == [(1, 0), (0, 1)]
    assert pixels.score_matched([none], [])[1].tolist() == [1]
    assert [counts.tolist() for counts in pixels.score_matched([], [])] == [[], []]
    with pytest.raises(ValueError, match="size of its image"):
        pixels.match_masks([none], [none.T])


def test_grounded_images_equal_a_numpy_reference() -> None:
    generator, chooser = torch.Generator().manual_seed(5), random.Random(5)
    images = [(truth, like(generator, truth, chooser.randint(0, 2))) for truth in (random_masks(generator, chooser.randint(0, 4)) for _ in range(40))]
    metric, values, found, total = grounded.GroundedConversation(), [], 0, 0
    for truth, drawn in images:
        metric.update(grounded.assigned_ious(drawn, truth), len(truth))
        pairs = [iou(drawn[one], truth[other]) for one, other in pixels.match_masks(drawn, truth) if one is not None and other is not None]
        found, total = found + sum(np.array(pairs) >= 0.5), total + len(truth)
        if truth or drawn:
            values.append(sum(pairs) / max(len(truth), len(drawn)))
    scores = {name: value.item() for name, value in metric.compute().items()}
    assert scores == pytest.approx({"miou": np.mean(values), "recall@0.5": found / total, "num_truth": total, "count": len(values)}, abs=1e-9)
    assert 0.2 < scores["miou"] < 0.8
    with pytest.raises(ValueError, match="assigned once"):
        grounded.grounded_sums(torch.tensor([0.5, 0.5]), 1)


def coco_ap50(images: list[tuple[Masks, Masks, torch.Tensor]]) -> float:
    """AP at an IoU of one half by pycocotools."""

    def encoded(mask: torch.Tensor) -> dict:
        return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))

    truths = [(image, mask) for image, (_, truth, _) in enumerate(images) for mask in truth]
    drawn = [(image, mask, score) for image, (masks_of, _, scores) in enumerate(images) for mask, score in zip(masks_of, scores.tolist(), strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        heads = {"images": [{"id": image, "height": 24, "width": 31} for image in range(len(images))], "categories": [{"id": 1, "name": "thing"}]}
        common = [{"id": row + 1, "image_id": image, "category_id": 1, "iscrowd": 0} for row, (image, _) in enumerate(truths)]
        truth.dataset = heads | {
            "annotations": [each | {"segmentation": encoded(mask), "area": int(mask.sum())} for each, (_, mask) in zip(common, truths, strict=True)]
        }
        found.dataset = heads | {
            "annotations": [
                {"id": row + 1, "image_id": image, "category_id": 1, "segmentation": encoded(mask), "area": int(mask.sum()), "score": score}
                for row, (image, mask, score) in enumerate(drawn)
            ]
        }
        for side in (truth, found):
            side.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    return float(np.mean(evaluation.eval["precision"][0, :, 0, 0, 2]))


@pytest.mark.parametrize("seed", range(5))
def test_ap50_equals_pycocotools(seed: int) -> None:
    generator, chooser = torch.Generator().manual_seed(seed), random.Random(seed)
    images = []
    for _ in range(12):
        truth = random_masks(generator, chooser.randint(0, 4))
        drawn = like(generator, truth, chooser.randint(0, 2))
        images.append((drawn, truth, torch.rand(len(drawn), generator=generator)))
    metric = grounded.GroundedAP50()
    for drawn, truth, confidence in images:
        metric.update(grounded.matched_at_half(drawn, truth, confidence), len(truth), confidence)
    scores = metric.compute()
    assert 0.1 < scores["ap50"].item() < 0.95
    assert scores["ap50"].item() == pytest.approx(coco_ap50(images), abs=1e-6)


@pytest.mark.parametrize(
    ("right", "drawn", "truth"), [(0, 0, 0), (0, 0, 3), (0, 2, 0), (0, 2, 3), (3, 3, 3), (2, 3, 4), (1, 1, 100), (29, 40, 100), (57, 60, 100)]
)
def test_ap50_of_masks_without_a_confidence_is_a_function_of_sums(right: int, drawn: int, truth: int) -> None:
    matched = torch.arange(drawn) < right
    halves = [grounded.equal_ap50_sums(part, count) for part, count in ((matched[: drawn // 2], truth // 3), (matched[drawn // 2 :], truth - truth // 3))]
    found = grounded.equal_ap50_scores(torch.stack(halves).sum(0))["ap50"].item()
    assert found == pytest.approx(grounded.ap50(matched, truth, torch.ones(drawn)).item(), nan_ok=True)


def test_ap50_of_degenerate_images() -> None:
    nothing = torch.zeros(0, dtype=torch.bool)
    assert math.isnan(grounded.ap50(nothing, 0, torch.zeros(0)).item())
    assert grounded.ap50(nothing, 3, torch.zeros(0)).item() == 0.0
    right = torch.tensor([True, False, True])
    # with equal confidences: precision 2/3 for the 51 recalls up to 1/2
    assert grounded.ap50(right, 4, torch.ones(3)).item() == pytest.approx(2 / 3 * 51 / 101)
    assert grounded.ap50(right.flip(0), 4, torch.ones(3)) == grounded.ap50(right, 4, torch.ones(3))
    one = torch.ones(2, 2, dtype=torch.bool)
    assert grounded.matched_at_half([one, one], [one]).tolist() == [True, False]  # a true mask is found once
    assert grounded.matched_at_half([one, one], [one], torch.tensor([0.1, 0.2])).tolist() == [False, True]
    assert grounded.matched_at_half([one], []).tolist() == [False]
