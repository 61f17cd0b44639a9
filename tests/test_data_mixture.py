from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from geopix.curriculum import Curriculum, Stage
from geopix.data.mixture import BLOCK, Mixture
from geopix.data.module import GeoPixData
from geopix.data.order import position, weight_for
from geopix.data.scenes import Scenes
from geopix.data.source import Source
from geopix.decoders.dot import DotDecoder
from geopix.task import GeoPixTask
from geopix.types import Dialogue, Frame, Sample, Turn
from tests import tiny, toys


class Listed(Source):
    """Images each of which has dialogues of the tasks that are listed for it."""

    bands = 3

    def __init__(self, name: str, tasks: Sequence[Sequence[str]]) -> None:
        self.title, self.tasks, self.count = name, tasks, len(tasks)
        self.kinds = frozenset(task for own in tasks for task in own)

    def having(self, mix: Mapping[str, float]) -> list[int]:
        return [index for index, own in enumerate(self.tasks) if any(weight_for(mix, task) > 0 for task in own)]

    def check(self) -> None:
        if not self.tasks:
            raise ValueError("nothing is listed.")

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        asked = [task for task in self.tasks[index] if mix is None or weight_for(mix, task) > 0]
        assert asked, "a sample without a dialogue was asked for"
        talks = tuple(Dialogue((Turn("what?", "that"),), None, (), task) for task in asked)
        return Sample(torch.zeros(3, 64, 64), talks, f"{self.title}-{index}", Frame(64, 64, 1.0, 0, 0, (64, 64)))


CAPTIONS = Listed("captions", [["caption/scene"]] * 30)
QUESTIONS = Listed("questions", [["vqa/count"], ["vqa/presence"], ["vqa/count", "vqa/presence"]] * 20)
BOTH = Listed("both", [["caption/scene", "vqa/count"]] * 40)


def drawn(mixture: Mixture, mix: Mapping[str, float] | None, count: int = 2 * BLOCK) -> Counter[tuple[str, str]]:
    samples = [mixture.sample(index, mix) for index in range(count)]
    return Counter((sample.key.split("/")[0], sample.dialogues[0].task.split("/")[0]) for sample in samples)


def test_tasks_come_in_the_shares_of_the_mix_and_sources_in_those_of_the_weights() -> None:
    mixture = Mixture({"c": CAPTIONS, "q": QUESTIONS, "b": BOTH}, weights={"c": 3.0, "q": 1.0, "b": 1.0})
    found = drawn(mixture, {"caption": 3.0, "vqa": 1.0})
    wanted = {("c", "caption"): 0.75 * 3 / 4, ("b", "caption"): 0.75 / 4, ("q", "vqa"): 0.25 / 2, ("b", "vqa"): 0.25 / 2}
    assert mixture.shares({"caption": 3.0, "vqa": 1.0}) == {(name, task): pytest.approx(share) for (name, task), share in wanted.items()}
    assert found.keys() == wanted.keys()
    assert all(abs(found[pair] - 2 * BLOCK * share) <= 2 for pair, share in wanted.items())


def test_without_a_mix_images_come_by_weight_and_by_number_where_no_weight_is_given() -> None:
    found = drawn(Mixture({"c": CAPTIONS, "q": QUESTIONS}), None, BLOCK)
    names: Counter[str] = Counter()
    for (name, _), times in found.items():
        names[name] += times
    assert abs(names["c"] - BLOCK / 3) <= 1


def test_a_kind_that_the_mix_names_is_drawn_by_its_own_weight() -> None:
    mixture = Mixture({"q": QUESTIONS})
    kinds = Counter(mixture.sample(index, {"vqa": 1.0, "vqa/presence": 3.0}).dialogues[0].task for index in range(BLOCK))
    assert abs(kinds["vqa/presence"] - 0.75 * BLOCK) <= 1
    assert kinds["vqa/presence"] + kinds["vqa/count"] == BLOCK


def test_no_image_comes_twice_before_its_source_is_used_up_and_every_epoch_has_its_own_order() -> None:
    mixture = Mixture({"c": CAPTIONS, "q": QUESTIONS}, weights={"c": 1.0, "q": 1.0})
    counts = Counter(key for key in (mixture.sample(index).key for index in range(BLOCK)) if key.startswith("c/"))
    assert max(counts.values()) - min(counts.values()) <= 1
    places = [position(CAPTIONS, number, None)[0] for number in range(90)]
    per_epoch = [places[start : start + 30] for start in (0, 30, 60)]
    assert all(sorted(epoch) == list(range(30)) for epoch in per_epoch)
    assert per_epoch[0] != per_epoch[1] != per_epoch[2]


def test_rare_sources_keep_their_share() -> None:
    mixture = Mixture({"rare": CAPTIONS, "common": QUESTIONS}, weights={"rare": 1.0, "common": 4000.0})
    seen = [index for index in range(20000) if mixture.sample(index).key.startswith("rare/")]
    assert 3 <= len(seen) <= 7


def test_a_sample_follows_from_its_number_alone() -> None:
    sources = {"s": Scenes("easy", "train", 64, None, dialogues=2), "c": CAPTIONS}
    one, two = (Mixture(sources, {"s": 1.0, "c": 1.0}, seed=3) for _ in range(2))
    for index in (5, 900, 1200, 17):
        assert one.sample(index, {"caption": 1.0, "segment": 1.0}).key == two.sample(index, {"caption": 1.0, "segment": 1.0}).key


def test_what_cannot_be_mixed_is_told() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        Mixture({})
    with pytest.raises(ValueError, match=r"weights name \['x'\], which the mixture does not hold"):
        Mixture({"c": CAPTIONS}, weights={"x": 1.0})
    with pytest.raises(ValueError, match=r"the sources \['s'\] have no end"):
        Mixture({"s": Scenes("easy")}).sample(0)
    with pytest.raises(ValueError, match=r"no source of the mixture has a task of the mix \{'segment': 1.0\}"):
        Mixture({"c": CAPTIONS}).sample(0, {"segment": 1.0})
    with pytest.raises(ValueError, match="in the source 'n' of the mixture: nothing is listed"):
        Mixture({"n": Listed("n", [])}).check()


def test_training_passes_over_images_that_the_mix_leaves_nothing_of() -> None:
    mixed = Listed("mixed", [["caption/scene"], ["vqa/count"], ["caption/scene", "vqa/count"]] * 4)
    places = [position(mixed, number, {"caption": 1.0})[0] for number in range(8)]
    assert sorted(places) == [0, 2, 3, 5, 6, 8, 9, 11]
    with pytest.raises(ValueError, match=r"leaves none of the dialogues of mixed, whose tasks are \['caption/scene', 'vqa/count'\]"):
        position(mixed, 0, {"segment": 1.0})


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_stage_that_no_source_can_serve_is_told_before_training(tmp_path: Path) -> None:
    data = GeoPixData(Mixture({"c": CAPTIONS, "q": QUESTIONS}, {"c": 1.0, "q": 1.0}), batch_size=4)
    stages = [Stage("read", samples=8, data={"caption": 1.0}), Stage("draw", samples=8, data={"segment": 1.0})]
    task = GeoPixTask(tiny.model(decoder=DotDecoder))
    with pytest.raises(ValueError, match="no source of the mixture has a task"):
        toys.trainer(tmp_path, Curriculum(stages)).fit(task, datamodule=data)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_mixture_trains_stage_by_stage(tmp_path: Path) -> None:
    data = GeoPixData(Mixture({"easy": Scenes("easy", "train", 64, 20, dialogues=2), "c": CAPTIONS}, {"easy": 1.0, "c": 1.0}), batch_size=4)
    task = GeoPixTask(tiny.model(decoder=DotDecoder))
    trainer = toys.trainer(tmp_path, Curriculum([Stage("read", samples=8, data={"vqa": 1.0}), Stage("draw", samples=8, data={"segment": 1.0})]))
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 4


def test_a_source_that_does_not_say_its_tasks_is_told_and_not_left_unread() -> None:
    silent = Listed("silent", [["caption/scene"]])
    silent.kinds = frozenset()
    mixture = Mixture({"silent": silent, "c": CAPTIONS})
    assert mixture.sample(0).key
    with pytest.raises(ValueError, match=r"the sources \['silent'\] do not say which tasks they have"):
        mixture.sample(0, {"caption": 1.0})


def test_images_that_lie_together_are_read_together_and_shuffled_all_the_same() -> None:
    source = Listed("packed", [["caption/scene"]] * 1000)
    source.blocks = [10] * 100
    epoch = [position(source, number, None)[0] for number in range(1000)]
    assert sorted(epoch) == list(range(1000))
    open_blocks = [len({place // 10 for place in epoch[start : start + 80]}) for start in range(0, 960, 80)]
    assert max(open_blocks) == 8
    assert epoch != [position(source, number, None)[0] for number in range(1000, 2000)]
    assert sum(abs(one - two) == 1 for one, two in pairwise(epoch)) < 60
