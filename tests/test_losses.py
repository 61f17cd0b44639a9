"""Losses against plain formulas, and where there is nothing to count."""

import math

import pytest
import torch
from segmentation_models_pytorch.losses import LovaszLoss

from geopix.losses import TERMS, LossWeights, class_loss, locate_loss, loss_terms, presence_loss, quality_loss, text_loss, weight_of
from geopix.mask_losses import bce_loss, boundary_loss, dice_loss, focal_loss, lovasz_loss, point_losses
from geopix.types import Drawing, Output

LOGITS = torch.tensor([[[2.0, -1.0], [0.5, -3.0]], [[-1.0, -1.0], [4.0, 0.0]]])
MASKS = torch.tensor([[[True, False], [False, False]], [[False, True], [True, True]]])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def pixels() -> list[list[tuple[float, bool]]]:
    return [list(zip(logit.flatten().tolist(), mask.flatten().tolist(), strict=True)) for logit, mask in zip(LOGITS, MASKS, strict=True)]


def test_bce() -> None:
    expected = sum(sum(-math.log(sigmoid(x) if inside else 1 - sigmoid(x)) for x, inside in mask) / 4 for mask in pixels())
    value, count = bce_loss(LOGITS, MASKS)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert count == 2


def test_dice() -> None:
    expected = 0.0
    for mask in pixels():
        overlap, soft, true = sum(sigmoid(x) * t for x, t in mask), sum(sigmoid(x) for x, _ in mask), sum(t for _, t in mask)
        expected += 1 - (2 * overlap + 1) / (soft + true + 1)
    value, count = dice_loss(LOGITS, MASKS)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert count == 2


def test_text_and_class() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    row = [math.log(sum(math.exp(x) for x in each)) for each in logits.tolist()]
    value, count = text_loss(logits, torch.tensor([0, 1, 2]))
    assert value.item() == pytest.approx(row[0] - 1 + row[1] - 2 + row[2], rel=1e-5)
    assert count == 3
    value, count = class_loss(logits, torch.tensor([0, -1, 2]))
    assert value.item() == pytest.approx(row[0] - 1 + row[2], rel=1e-5)
    assert count == 2


def test_quality_and_presence() -> None:
    value, count = quality_loss(torch.tensor([0.9, 0.25]), LOGITS, MASKS)
    assert value.item() == pytest.approx((0.9 - 1 / 2) ** 2 + (0.25 - 1 / 3) ** 2, rel=1e-4)
    assert count == 2
    empty = torch.stack([MASKS[0], torch.zeros(2, 2, dtype=torch.bool)])
    value, _ = presence_loss(torch.tensor([1.0, 2.0]), empty)
    assert value.item() == pytest.approx(-math.log(sigmoid(1)) - math.log(1 - sigmoid(2)), rel=1e-5)


def test_locate_is_the_divergence_from_the_share_of_the_mask_in_each_cell() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 0, 1] = masks[0, 0, 2] = masks[0, 1, 2] = True  # a third in the upper left cell, two thirds in the upper right; the other mask is empty
    where = torch.randn(2, 2, 2)
    share, expected = torch.tensor([1 / 3, 2 / 3]), where[0].flatten().softmax(0)[:2]
    value, count = locate_loss(where, masks)
    assert value.item() == pytest.approx((share * (share / expected).log()).sum().item(), rel=1e-5)
    assert count == 1
    sure = torch.tensor([[[1 / 3, 2 / 3], [1e-12, 1e-12]]]).log()
    assert locate_loss(sure, masks[:1])[0].item() == pytest.approx(0, abs=1e-5)


def output(logits: torch.Tensor, *, classes: int = 3) -> Output:
    num = len(logits)
    drawing = Drawing(
        logits,
        torch.zeros(num, dtype=torch.long),
        class_logits=torch.randn(num, classes, requires_grad=True),
        presence=torch.randn(num, requires_grad=True),
        quality=torch.rand(num, requires_grad=True),
        where=torch.randn(num, 2, 2, requires_grad=True),
        auxiliary=(logits * 0.5, logits * 0.25),
    )
    return Output(torch.randn(5, 7, requires_grad=True), torch.randint(7, (5,)), drawing, torch.full((num,), -1))


def test_no_masks_cost_nothing_and_have_a_graph() -> None:
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    empty, full = (loss_terms(output(each), truth) for each, truth in [(logits, torch.zeros(0, 8, 8, dtype=torch.bool)), (LOGITS, MASKS)])
    assert empty.keys() == full.keys(), "ranks with and without masks count the same losses"
    for name, (value, count) in empty.items():
        assert value.isfinite(), name
        assert value.requires_grad, name
        if name != "text":
            assert value == 0, name
            assert count == 0, name
    sum(value for value, _ in empty.values()).backward()
    assert logits.grad is not None


def test_empty_truth_is_finite() -> None:
    logits = torch.full((1, 4, 4), -40.0, requires_grad=True)
    terms = loss_terms(output(logits), torch.zeros(1, 8, 8, dtype=torch.bool))
    total = sum(value for value, _ in terms.values())
    assert total.isfinite()
    total.backward()
    assert logits.grad.isfinite().all()
    assert terms["dice"][0].item() == pytest.approx(0, abs=1e-4)


def test_masks_are_compared_at_the_training_size() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[:, :, :4] = True
    logits = torch.where(truth[:, ::2, ::2], 30.0, -30.0)
    terms = loss_terms(output(logits), truth)
    assert terms["bce"][0] < 0.1
    assert loss_terms(output(-logits), truth)["bce"][0] > 10


def test_weights() -> None:
    weights = LossWeights().replace({"bce": 4.0, "auxiliary": 0.25})
    assert (weights.text, weights.bce, weights.dice) == (1.0, 4.0, 0.5)
    assert weight_of("bce", weights) == 4.0
    assert weight_of("auxiliary_bce", weights) == 1.0
    assert weight_of("auxiliary_dice", weights) == 0.125
    with pytest.raises(ValueError, match=r"unknown loss weight \['dise'\]; expected some of"):
        weights.replace({"dise": 1.0})
    assert set(loss_terms(output(LOGITS), MASKS)) == set(TERMS)
    optional = {"focal", "lovasz", "boundary", "point_bce", "point_dice"}
    assert set(loss_terms(output(LOGITS), MASKS, weights)) == set(TERMS) - optional, "what counts nothing is not computed"
    for name in TERMS:
        assert (weight_of(name, weights) > 0) != (name in optional)


def test_sampled_losses_alone_still_supervise_earlier_masks() -> None:
    weights = LossWeights(bce=0.0, dice=0.0, point_bce=5.0, point_dice=4.0)
    assert (weight_of("auxiliary_bce", weights), weight_of("auxiliary_dice", weights)) == (2.5, 2.0)
    assert {"bce", "dice"}.isdisjoint(loss_terms(output(LOGITS), MASKS, weights))


def test_focal() -> None:
    expected = 0.0
    for mask in pixels():
        for x, inside in mask:
            p = sigmoid(x) if inside else 1 - sigmoid(x)
            expected -= (0.25 if inside else 0.75) * (1 - p) ** 2 * math.log(p) / 4
    assert focal_loss(LOGITS, MASKS)[0].item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_is_the_one_of_segmentation_models_pytorch_and_of_its_definition() -> None:
    torch.manual_seed(3)
    logits, masks = torch.randn(4, 6, 5), torch.rand(4, 6, 5) < torch.tensor([0.1, 0.5, 0.9, 0.3])[:, None, None]
    theirs = LovaszLoss(mode="binary", per_image=True)(logits, masks.float())
    assert lovasz_loss(logits, masks)[0].item() == pytest.approx(4 * theirs.item(), rel=1e-5)
    # Errors of 0 or 1 make the extension equal to what it extends: 1 - IoU.
    drawn = torch.rand(4, 6, 5) < 0.5
    exact = torch.where(drawn == masks, torch.where(masks, 1.0, -1.0), 0.0)
    iou = (drawn & masks).flatten(1).sum(1) / (drawn | masks).flatten(1).sum(1)
    assert lovasz_loss(exact, masks)[0].item() == pytest.approx((1 - iou).sum().item(), rel=1e-5)


def test_boundary_weighs_what_is_drawn_by_its_distance() -> None:
    truth = torch.zeros(1, 4, 4, dtype=torch.bool)
    truth[0, :, 0] = True
    far, near = torch.full((1, 4, 4), -50.0), torch.full((1, 4, 4), -50.0)
    far[0, 0, 3], near[0, 0, 1] = 50.0, 50.0
    assert boundary_loss(far, truth)[0].item() == pytest.approx(3 / 4 / 16, rel=1e-5)
    assert boundary_loss(near, truth)[0].item() == pytest.approx(1 / 4 / 16, rel=1e-5)
    assert boundary_loss(torch.where(truth, 50.0, -50.0), truth)[0].item() == pytest.approx(-4 / 4 / 16, rel=1e-5)
    assert boundary_loss(torch.full((1, 4, 4), 50.0), torch.zeros(1, 4, 4, dtype=torch.bool))[0].item() == pytest.approx(1.0)


def test_sampled_losses_meet_an_object_of_two_pixels() -> None:
    torch.manual_seed(0)
    truth = torch.zeros(2, 512, 512, dtype=torch.bool)
    truth[0, 100, 200:202] = True
    truth[1, :256] = True
    missed = torch.full((2, 128, 128), -8.0)
    missed[1, :64] = 8.0
    (bce, count), (dice, _) = point_losses(missed, truth, points=1024)
    assert count == 2
    assert bce.item() > 0.9, "an eighth of the points lies inside the object, where 8 nats are paid"
    assert 0.9 < dice.item() < 1.1, "all of the first mask is missed, and nothing of the second"


def test_sampled_losses_are_those_of_all_pixels_where_the_mask_is_uniform() -> None:
    logits = torch.full((1, 8, 8), 0.7, requires_grad=True)
    (bce, _), (dice, _) = point_losses(logits, torch.ones(1, 32, 32, dtype=torch.bool), points=64)
    assert bce.item() == pytest.approx(-math.log(sigmoid(0.7)), rel=1e-5)
    assert dice.item() == pytest.approx(1 - (2 * sigmoid(0.7) * 64 + 1) / (sigmoid(0.7) * 64 + 64 + 1), rel=1e-4)
    bce.backward()
    assert logits.grad is not None
