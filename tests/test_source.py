"""How samples become batches, and which samples a rank reads in which order."""

from dataclasses import replace

import pytest
import torch

from geopix.data.module import GeoPixData, _Batches, _Dealt, _Planned
from geopix.data.source import collate
from geopix.types import Dialogue, Turn
from tests import toys


def test_packing_says_whose_each_mask_is() -> None:
    one, two = toys.sample(0, "caption/scene", "segment/multi"), toys.sample(1, "segment/followup", "segment/single")
    batch = collate([one, two])
    assert batch.tasks == ("caption/scene", "segment/multi", "segment/followup", "segment/single")
    assert batch.image_index.tolist() == [0, 0, 1, 1]
    assert batch.dialogue_index.tolist() == [1, 1, 2, 3]
    assert batch.classes == ("ship", "plane", None, "ship")
    for mask, true in zip(batch.masks, [*one.dialogues[1].masks, *two.dialogues[0].masks, *two.dialogues[1].masks], strict=True):
        assert torch.equal(mask, true)
    assert batch.truth is not None
    assert len(batch.truth) == 4
    assert batch.dialogues[2] == two.dialogues[0].turns
    assert batch.keys == ("toy-0", "toy-1")


def test_nothing_to_draw_at_all() -> None:
    batch = collate([toys.sample(0, "caption/scene")])
    assert batch.masks.shape == (0, toys.SIZE, toys.SIZE)
    assert batch.dialogue_index.shape == (0,)


def test_truth_is_there_for_all_or_for_none() -> None:
    assert collate([toys.sample(0, "segment/single"), toys.sample(1, "segment/single", truth=False)]).truth is None


def test_joined_dialogues_keep_their_masks_in_order() -> None:
    sample = toys.sample(0, "segment/single", "caption/scene", "segment/followup", "segment/multi", "vqa/presence")
    batch = collate([sample, toys.sample(1, "segment/single")], join=3)
    assert [len(turns) for turns in batch.dialogues] == [4, 2, 1]
    assert batch.image_index.tolist() == [0, 0, 1]
    assert batch.dialogue_index.tolist() == [0, 0, 1, 1, 2]
    assert batch.classes == ("ship", None, "ship", "plane", "ship")
    apart = collate([sample, toys.sample(1, "segment/single")])
    assert torch.equal(batch.masks, apart.masks)


def test_refused_batches() -> None:
    with pytest.raises(ValueError, match=r"one size; found .*32.*64"):
        collate([toys.sample(0, "caption/scene"), toys.sample(1, "caption/scene", size=32)])
    silent = replace(toys.sample(0, truth=False), dialogues=(Dialogue((Turn("the ship?", "[SEG]"),)),))
    with pytest.raises(ValueError, match="has no masks to learn from"):
        collate([silent])
    nameless = replace(toys.sample(0, truth=False), dialogues=(Dialogue((Turn("the ship?"),), classes=("ship",)),))
    with pytest.raises(ValueError, match="names classes but has no masks"):
        collate([nameless])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_evaluation_image_is_read_once(world: int) -> None:
    ranks = [_Dealt(10, 3, rank, world, frozenset(), none_idle=True) for rank in range(world)]
    read = [index for batches in ranks for batch in batches for index in batch]
    assert sorted(read) == list(range(10))
    assert all(len(list(batches)) == len(batches) for batches in ranks)
    assert {tuple(batch) for batches in ranks for batch in batches} == {(0, 1, 2), (3, 4, 5), (6, 7, 8), (9,)}, "ranks must not change what is read together"


def test_what_was_scored_before_is_left_out_and_the_other_batches_stay_as_they_are() -> None:
    assert [list(_Dealt(2, 3, rank, 2, frozenset(), none_idle=True)) for rank in range(2)] == [[[0, 1]], [[0, 1]]], "a rank without work would miss the end"
    assert [list(_Dealt(2, 3, rank, 2, frozenset(), none_idle=False)) for rank in range(2)] == [[[0, 1]], []]
    assert list(_Dealt(10, 3, 0, 1, frozenset({0, 1, 2, 6, 7, 8}), none_idle=True)) == [[3, 4, 5], [9]]


def test_training_steps_take_the_samples_in_order_over_all_ranks() -> None:
    ranks = [_Batches(21, 3, rank, 2) for rank in range(2)]
    for step, (one, two) in enumerate(zip(*ranks, strict=True)):
        assert sorted(one + two) == list(range(6 * step, 6 * step + 6))
    assert [len(batches) for batches in ranks] == [3, 3], "no rank may have a step more than another"
    resumed = _Batches(21, 3, 1, 2, start=2)
    assert list(resumed) == list(ranks[1])[2:]
    assert len(resumed) == 3, "the length counts what was trained before"


def test_the_mix_follows_the_number_of_the_sample() -> None:
    source = toys.Toys(count=4)
    planned = _Planned(source, [(0, {"vqa": 1.0}), (3, None), (6, {"segment": 1.0})], seed=0)
    for index in (0, 2, 3, 5, 6, 100):
        planned[index]
    assert [mix for _, mix in source.asked] == [{"vqa": 1}, {"vqa": 1}, None, None, {"segment": 1}, {"segment": 1}]
    for index in range(8, 16):
        planned[index]
    shown = [image for image, _ in source.asked[6:]]
    assert sorted(shown[:4]) == sorted(shown[4:]) == [0, 1, 2, 3], "every epoch shows each image once"


class Empty(toys.Toys):
    def check(self) -> None:
        raise ValueError("the file is broken")


def test_sources_are_checked_before_anything_starts() -> None:
    toy = toys.Toys(4)
    with pytest.raises(ValueError, match=r"geopix test needs data\.test"):
        GeoPixData(toy, toy).setup("test")
    with pytest.raises(ValueError, match=r"data\.val is empty: Toys holds 0 images"):
        GeoPixData(toy, toys.Toys(0)).setup("fit")
    with pytest.raises(ValueError, match="the file is broken"):
        GeoPixData(Empty(1)).setup("fit")
    four = toys.Toys(4)
    four.bands = 4
    with pytest.raises(ValueError, match="differ in bands"):
        GeoPixData(toy, four).setup("fit")
    GeoPixData(toy).setup("fit")
