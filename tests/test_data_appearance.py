from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from geopix.curriculum import Curriculum, Stage
from geopix.data.appearance import Appearance
from geopix.data.module import GeoPixData
from geopix.decoders.dot import DotDecoder
from geopix.task import GeoPixTask
from geopix.types import Batch
from tests import tiny, toys

IMAGES = torch.linspace(0.1, 0.8, 4 * 5 * 32 * 32).view(4, 5, 32, 32)


def test_the_same_seed_gives_the_same_changes_and_leaves_chance_as_it_was() -> None:
    looks = Appearance(band_dropout=0.5)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    once = looks(IMAGES, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(looks(IMAGES, seed=1), once)
    assert not torch.equal(looks(IMAGES, seed=2), once)
    assert once.shape == IMAGES.shape
    assert 0 <= once.min() <= once.max() <= 1


def test_images_change_each_by_itself_and_their_order_of_values_stays() -> None:
    changed = Appearance(blur=0.0, noise=0.0)(IMAGES[:1].expand(4, -1, -1, -1), seed=3)
    assert not torch.equal(changed[0], changed[1])
    steps = changed[:, 0].flatten(1).diff()
    assert (steps >= -1e-6).all()  # lighter stays lighter, so words such as "dark" and "bright" stay true


def test_band_dropout_loses_one_band() -> None:
    lost = Appearance(0.0, 0.0, 0.0, 0.0, 0.0, band_dropout=1.0)(IMAGES, seed=0)
    assert ((lost == 0).flatten(2).all(2).sum(1) == 1).all()


def test_nothing_asked_for_changes_nothing_and_wrong_shares_are_told() -> None:
    assert torch.allclose(Appearance(0.0, 0.0, 0.0, 0.0, 0.0)(IMAGES, seed=0), IMAGES, atol=1e-6)
    with pytest.raises(ValueError, match=r"shares from 0 to 1; found \{'blur': 2.0\}"):
        Appearance(blur=2.0)


class Watch(Callback):
    """The images of every step."""

    def __init__(self) -> None:
        self.seen: list[Batch] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen.append(batch)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_training_images_change_and_nothing_else_does(tmp_path: Path) -> None:
    seen = []
    for appearance in (None, Appearance(), Appearance()):
        watch = Watch()
        trainer = toys.trainer(tmp_path, Curriculum([Stage("all", 12)]), watch)
        trainer.fit(GeoPixTask(tiny.model(decoder=DotDecoder)), datamodule=GeoPixData(toys.Toys(), batch_size=4, appearance=appearance))
        seen.append(watch.seen)
    plain, one, two = seen
    for before, after, again in zip(plain, one, two, strict=True):
        assert not torch.equal(before.images, after.images)
        assert torch.equal(after.images, again.images)
        assert all(
            torch.equal(getattr(before, each.name), getattr(after, each.name)) for each in fields(Batch) if isinstance(getattr(before, each.name), torch.Tensor)
            and each.name != "images"
        )  # fmt: skip
    assert not torch.equal(one[0].images - plain[0].images, one[1].images - plain[1].images)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_what_a_step_draws_besides_has_nothing_to_do_with_how_images_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, started = [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (seeds.append(seed), started(seed))[1])
    task = GeoPixTask(tiny.model(decoder=DotDecoder))
    toys.trainer(tmp_path).fit(task, datamodule=GeoPixData(toys.Toys(), samples=4, batch_size=2, appearance=Appearance(), seed=0))
    assert len(seeds) == len(set(seeds)) == 4, "one for each of two steps, one for each of two batches"
