"""The data module: which samples each verb reads, in which order, on which rank."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from geopix.data.appearance import Appearance
from geopix.data.order import position
from geopix.data.source import Source, collate
from geopix.types import Batch, Sample

Plan = Sequence[tuple[int, Mapping[str, float] | None]]
"""From which training sample on which task mix holds: ``[(0, {"vqa": 1}), (20000, {"segment": 4, "vqa": 1})]``."""


class _Planned(Dataset[Sample]):
    """A source read by the number of the training sample, so that the mix and the image are functions of that number alone."""

    def __init__(self, source: Source, plan: Plan, seed: int) -> None:
        self.source, self.plan, self.seed = source, plan, seed

    def __getitem__(self, index: int) -> Sample:
        mix = next((mix for start, mix in reversed(self.plan) if index >= start), None)
        image, epoch = position(self.source, index, mix, self.seed)
        return self.source.sample(image, mix, epoch=epoch)


class _InOrder(Dataset[Sample]):
    """A source read from its first image to its last."""

    def __init__(self, source: Source, truth: bool) -> None:
        self.source, self.truth = source, truth

    def __getitem__(self, index: int) -> Sample:
        return self.source.sample(index, truth=self.truth)


class _Batches:
    """Indices of a rank's training batches. A resumed run starts at the batch after the last that was trained on; the length counts all of them."""

    def __init__(self, total: int, size: int, rank: int, world: int, *, start: int = 0) -> None:
        self.total, self.size, self.rank, self.world, self.start = total, size, rank, world, start
        self.length = total // (size * world)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        mine = range(self.rank, self.total, self.world)
        for batch in range(self.start, self.length):
            yield list(mine[batch * self.size : (batch + 1) * self.size])


class _Dealt:
    """Indices of an evaluation in batches that no number of ranks changes, dealt out in turn. What was done before is left out.

    Args:
        none_idle: where there are fewer batches than ranks, those without one read the last too: when scoring, no rank may miss what all ranks do
            together at the end, and what is scored twice is counted once.
    """

    def __init__(self, total: int, size: int, rank: int, world: int, done: frozenset[int], *, none_idle: bool) -> None:
        whole = (range(start, min(start + size, total)) for start in range(0, total, size))
        left = [batch for each in whole if (batch := [index for index in each if index not in done])]
        self.batches = left[rank::world] or (left[-1:] if none_idle else [])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class GeoPixData(LightningDataModule):
    """Sources for each verb, read in batches; nothing is padded or repeated in evaluation.

    Training reads a source with an end in a new order in every epoch (:func:`geopix.data.order.position`), rank by rank, and passes over images without a
    dialogue that the stage's mix allows.

    Args:
        train: source to learn from.
        val: source that choices are made on.
        test: source that the final numbers come from.
        predict: source of images with prompts to answer.
        samples: training images over all ranks where no curriculum says so; sources with an end are read over and over. A training is one pass over them.
        batch_size: training images per step and rank.
        eval_batch_size: images per step and rank elsewhere; as ``batch_size`` by default.
        join: dialogues of one image that training asks in one go (see :func:`geopix.data.source.collate`).
        num_workers: processes that prepare samples, per loader.
        seed: of the order in which a source with an end is read.
        appearance: changes of colour, sharpness and noise in training, made on the device.

    Raises:
        ValueError: when a verb's source is missing, empty, or fails its check, when bands of the sources differ, or when the trainer would begin the training's
            samples and stages anew (``max_epochs`` above 1).
    """

    def __init__(
        self,
        train: Source | None = None,
        val: Source | None = None,
        test: Source | None = None,
        predict: Source | None = None,
        *,
        samples: int = 10_000,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        join: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        appearance: Appearance | None = None,
    ) -> None:
        super().__init__()
        self.sources = {"train": train, "val": val, "test": test, "predict": predict}
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.join = join
        self.num_workers = num_workers
        self.samples = samples
        self.seed = seed
        self.appearance = appearance
        self._plan: Plan = [(0, None)]
        self._done: frozenset[int] = frozenset()

    def follow(self, plan: Plan, samples: int) -> None:
        """Take task mixes and the length of training from a curriculum."""
        self._plan, self.samples = plan, samples

    def leave_out(self, done: frozenset[int]) -> None:
        """Images of the test, by position, that were scored before."""
        self._done = done

    def test_batch(self, number: int) -> Sequence[int]:
        """Positions of the images of this rank's batch of a number, in the test that runs."""
        trainer = self.trainer
        assert trainer is not None
        return self._dealt("test", trainer.global_rank, trainer.world_size).batches[number]

    def setup(self, stage: str) -> None:
        """Check the sources that a verb needs before anything is computed."""
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}[stage]
        given = {name: source for name in needed if (source := self.sources[name]) is not None}
        if needed[0] not in given:
            raise ValueError(f"geopix {stage} needs data.{needed[0]}, which is not set; give it a source, such as geopix.data.scenes.Scenes.")
        for name, source in given.items():
            if source.count == 0:
                raise ValueError(f"data.{name} is empty: {type(source).__name__} holds 0 images; check its path, split and filters.")
            source.check()
        if len({source.bands for source in given.values()}) > 1:
            raise ValueError(f"the sources differ in bands: { {name: source.bands for name, source in given.items()} }; name the same bands in each.")

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of the training plan, from where the trainer stands."""
        trainer = self.trainer
        assert trainer is not None
        world = trainer.world_size
        if self.samples < self.batch_size * world:
            raise ValueError(f"training has {self.samples} samples, fewer than one step of {self.batch_size} on each of {world} ranks; lower data.batch_size.")
        batches, limit = self.samples // (self.batch_size * world), trainer.limit_train_batches or 0
        steps = -(-(min(batches, limit) if isinstance(limit, int) else int(batches * limit)) // trainer.accumulate_grad_batches)
        if trainer.max_epochs != 1 and not 0 <= trainer.max_steps <= steps:
            raise ValueError(
                f"trainer.max_epochs is {trainer.max_epochs}, but a training is one pass over its {self.samples} samples, in which sources with an end are "
                "read over and over; a second one would begin them and the stages anew. Set it to 1, and the length by samples: of each stage, or else of data."
            )
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        dealt = _Batches(self.samples, self.batch_size, trainer.global_rank, world, start=done)
        source = self.sources["train"]
        assert source is not None
        for _, mix in self._plan:
            position(source, 0, mix, self.seed)  # a mix that leaves nothing is told now and not in the middle of training
        return self._loader(_Planned(source, self._plan, self.seed), dealt, join=self.join)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Change how training images look, on the device; what is drawn follows from the step's number, and from nothing else that is drawn in the step."""
        trainer = self.trainer
        if self.appearance is None or trainer is None or not trainer.training:
            return batch
        step = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return replace(batch, images=self.appearance(batch.images, seed=hash((1, self.seed, trainer.global_rank, step)) % 2**63))

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """All of the validation source once, or nothing where there is none."""
        if self.sources["val"] is None:
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # it is meant so
            return []
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """All of the test source once."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """All images to answer about, once."""
        return self._evaluation("predict")

    def _evaluation(self, name: str) -> DataLoader[Sample]:
        source, trainer = self.sources[name], self.trainer
        assert source is not None
        assert trainer is not None
        if source.count is None:
            raise ValueError(f"data.{name} never ends: {type(source).__name__} needs a count for evaluation.")
        batches = self._dealt(name, trainer.global_rank, trainer.world_size)
        return self._loader(_InOrder(source, truth=name != "predict"), batches, join=1)

    def _dealt(self, name: str, rank: int, world: int) -> _Dealt:
        source = self.sources[name]
        assert source is not None
        assert source.count is not None
        return _Dealt(source.count, self.eval_batch_size, rank, world, self._done if name == "test" else frozenset(), none_idle=name != "predict")

    def _loader(self, samples: Dataset[Sample], batches: _Batches | _Dealt, *, join: int) -> DataLoader[Sample]:
        return DataLoader(
            samples,
            batch_sampler=batches,
            collate_fn=partial(collate, join=join),
            num_workers=self.num_workers,
            pin_memory=False,
        )
