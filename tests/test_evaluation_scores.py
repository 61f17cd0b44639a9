"""From answers to numbers, against counts made by hand."""

from dataclasses import replace

import pytest
import torch

from geopix.data.source import collate
from geopix.evaluation.scores import Scores, own_masks
from geopix.rle import encode_rle
from geopix.types import Batch, Drawing, Frame, Prediction
from tests import toys

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")


def perfect(batch: Batch) -> Prediction:
    answers = tuple(tuple(turn.answer for turn in turns) for turns in batch.dialogues)
    return Prediction(answers, Drawing(batch.masks.float() * 2 - 1, batch.dialogue_index))


def without(prediction: Prediction, row: int) -> Prediction:
    """The same prediction with nothing drawn in one dialogue."""
    drawing = prediction.drawing
    kept = drawing.dialogue_index != row
    answers = tuple(answer if index != row else ("",) * len(answer) for index, answer in enumerate(prediction.answers))
    return Prediction(answers, Drawing(drawing.mask_logits[kept], drawing.dialogue_index[kept]))


def score(batch: Batch, prediction: Prediction) -> dict[str, float]:
    scores = Scores()
    scores.update(batch, prediction)
    return scores.compute()


def test_a_perfect_answer_is_worth_one() -> None:
    batch = collate([toys.sample(0, *toys.KINDS), toys.sample(1, *toys.KINDS)])
    found = score(batch, perfect(batch))
    for name in ("single/giou", "single/ciou", "multi/giou", "followup/giou", "absent/n_acc", "absent/t_acc", "vqa/presence", "caption/rouge_l"):
        assert found[name] == 1.0, name
    assert (found["single/count"], found["multi/count"], found["absent/num_absent"], found["absent/num_targets"]) == (2, 4, 2, 6)
    assert "group/giou" not in found
    assert "control/shuffled_giou" not in found


def test_a_mask_that_was_not_drawn_counts_zero_with_its_area() -> None:
    batch = collate([toys.sample(0, "segment/single"), toys.sample(1, "segment/single")])
    found = score(batch, without(perfect(batch), 1))
    areas = batch.masks.flatten(1).sum(1)
    assert found["single/giou"] == 0.5
    assert found["single/ciou"] == pytest.approx(float(areas[0] / areas.sum()))
    assert found["absent/t_acc"] == 0.5


def test_drawing_what_is_absent_is_told() -> None:
    batch = collate([toys.sample(0, "segment/absent", "segment/absent")])
    drawn = Prediction((("Sure, it is [SEG].",), ("none",)), Drawing(torch.ones(1, 8, 8), torch.tensor([0])))
    assert score(batch, drawn)["absent/n_acc"] == 0.5


def test_wrong_words() -> None:
    batch = collate([toys.sample(0, "vqa/presence", "vqa/presence")])
    assert score(batch, Prediction((("No.",), ("yes",)), perfect(batch).drawing))["vqa/presence"] == 0.5


def test_masks_are_scored_at_the_image_s_own_size() -> None:
    sample = toys.sample(0, "segment/single")
    canvas = sample.dialogues[0].masks
    assert canvas is not None
    own = canvas[0].repeat_interleave(2, 0).repeat_interleave(2, 1)[:96]  # a wide image: 96 x 128 in a canvas of 64 x 64, 8 empty rows on each side
    moved = torch.roll(canvas, 8, 1)
    frame = Frame(96, 128, 0.5, 8, 0, (64, 64))
    batch = collate([toys.sample(1, "caption/scene"), replace(sample, frame=frame, truth=((encode_rle(own),),), unions=None)])
    prediction = Prediction((("a ship",), ("[SEG]",)), Drawing(moved.float() * 2 - 1, torch.tensor([1])))
    assert own_masks(batch, prediction)[1][0].shape == (96, 128)
    assert score(batch, prediction)["single/giou"] > 0.9
    assert score(batch, perfect(batch))["single/giou"] < 0.6


def test_controls() -> None:
    sample = toys.sample(0, "segment/single", "segment/multi")
    _, ship, plane = toys.scene(0)
    union = encode_rle(ship | plane)
    batch = collate([replace(sample, unions=((union,), (union, union)))])
    scores = Scores()
    scores.update(batch, perfect(batch))
    other = collate([toys.sample(2, "segment/single", "segment/multi")])
    scores.update_shuffled(batch, perfect(other))
    found = scores.compute()
    assert found["control/class_union_giou"] == pytest.approx(float(ship.sum() / (ship | plane).sum()))
    elsewhere = other.masks[0]
    assert found["control/shuffled_giou"] == pytest.approx(float((ship & elsewhere).sum() / (ship | elsewhere).sum()))
    assert [name for name in found if name.startswith("control/")] == ["control/class_union_giou", "control/shuffled_giou"]


def test_counting_starts_anew() -> None:
    batch = collate([toys.sample(0, "segment/single")])
    scores = Scores()
    scores.update(batch, without(perfect(batch), 0))
    scores.reset()
    scores.update(batch, perfect(batch))
    assert scores.compute()["single/giou"] == 1.0


def test_no_truth_no_score() -> None:
    batch = collate([toys.sample(0, "segment/single", truth=False)])
    with pytest.raises(ValueError, match="read it with truth=True"):
        score(batch, perfect(batch))


@pytest.mark.parametrize("task", ["segment/region", "chat/free", "segment"])
def test_a_task_without_a_score_is_told(task: str) -> None:
    batch = replace(collate([toys.sample(0, "segment/single")]), tasks=(task,))
    with pytest.raises(ValueError, match="has no score"):
        score(batch, perfect(batch))
