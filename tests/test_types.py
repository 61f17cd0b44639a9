"""What flows between parts refuses what does not fit together."""

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from geopix.data.source import collate
from geopix.types import Batch, Dialogue, Turn
from tests import toys


def masks(count: int) -> torch.Tensor:
    return torch.zeros(count, 4, 4, dtype=torch.bool)


def test_a_prompt_never_writes_a_mask() -> None:
    with pytest.raises(ValueError, match=r"a prompt must not contain \[SEG\]"):
        Turn("draw [SEG]", "no")


def test_a_dialogue_needs_turns() -> None:
    with pytest.raises(ValueError, match="at least one turn"):
        Dialogue(())


@pytest.mark.parametrize(("answers", "count"), [(["[SEG]"], 0), (["[SEG] and [SEG]"], 1), (["no"], 1), (["[SEG]", "[SEG]"], 3)])
def test_as_many_masks_as_are_written(answers: list[str], count: int) -> None:
    turns = tuple(Turn("which?", answer) for answer in answers)
    written = sum(answer.count("[SEG]") for answer in answers)
    with pytest.raises(ValueError, match=rf"hold {written} \[SEG\] but there are {count} masks"):
        Dialogue(turns, masks(count))
    assert Dialogue(turns, masks(written)).masks is not None
    assert Dialogue(turns).masks is None


def test_as_many_classes_as_masks() -> None:
    turns = (Turn("which?", "[SEG] [SEG]"),)
    with pytest.raises(ValueError, match="1 class names for 2 masks"):
        Dialogue(turns, masks(2), ("ship",))
    assert Dialogue(turns, masks(2), (None, "ship")).classes == (None, "ship")
    assert Dialogue(turns, masks(2)).classes == ()


def test_a_batch_moves_as_the_trainer_moves_it() -> None:
    batch = collate([toys.sample(0, "segment/multi"), toys.sample(1, "caption/scene")])
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    for tensor in (moved.images, moved.image_index, moved.masks, moved.dialogue_index):
        assert tensor.device.type == "meta"
    assert batch.images.device.type == "cpu"
    assert moved.truth == batch.truth
    assert moved.keys == batch.keys
