"""A training in stages: what learns, on which tasks, with which losses and learning rate.

GeoPix trains in two stages (arXiv 2501.06828); what each of them trains is not published, so the stages of geopix's configs are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from geopix.data.module import GeoPixData
from geopix.task import GeoPixTask


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Args:
        name: for logs and pictures.
        samples: its length in training images, over all ranks.
        train: globs over the names of the model's parameters (``connector.*``, ``llm.*``, ``*``) that learn. What a part's constructor froze
            stays frozen.
        loss: loss weights that differ from the task's.
        learning_rate: factor on every learning rate of the optimizer.
        warmup: share of the stage over which the rate rises from 0.
        decay_to: what the rate falls to at the stage's end, by a half cosine, as a share of its highest; 1 keeps it.
        data: weights of the tasks, by family (segment, refer, caption, vqa) or ``family/kind``; empty keeps the source's own.
    """

    name: str
    samples: int
    train: list[str] = field(default_factory=lambda: ["*"])
    loss: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 1.0
    warmup: float = 0.0
    decay_to: float = 1.0
    data: dict[str, float] = field(default_factory=dict)

    def rate(self, progress: float) -> float:
        """Factor on the learning rates after a share ``progress`` of the stage."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        falling = (progress - self.warmup) / max(1 - self.warmup, 1e-9)
        return self.learning_rate * (self.decay_to + (1 - self.decay_to) * (1 + math.cos(math.pi * min(falling, 1.0))) / 2)


class Curriculum(Callback):
    """Lead a training through its stages. Everything follows from the number of the batch, so a resumed run needs nothing from the checkpoint.

    Parameters that any stage trains stay in the optimizer from the start; a stage only switches their gradients off and on. With several
    ranks use ``strategy: ddp_find_unused_parameters_true``: what is frozen when DDP wraps the model would never be synchronised.

    Args:
        stages: in order.

    Raises:
        ValueError: for no stages, a stage without samples, a glob that matches no trainable parameter, an unknown loss weight.
    """

    def __init__(self, stages: list[Stage]) -> None:
        if not stages:
            raise ValueError("a curriculum needs at least one stage; found none.")
        for stage in stages:
            if stage.samples < 1:
                raise ValueError(f"stage {stage.name!r} has {stage.samples} samples; expected at least 1.")
        self.stages = stages
        self._now = -1

    @property
    def starts(self) -> list[int]:
        """The first sample of each stage."""
        return [0, *accumulate(stage.samples for stage in self.stages)][:-1]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand the task mixes to the data and check every name against the model."""
        if stage != "fit":
            return
        task, data = _task(pl_module), _data(trainer)
        data.follow([(start, each.data or None) for start, each in zip(self.starts, self.stages, strict=True)], sum(each.samples for each in self.stages))
        trainable = [name for name, parameter in task.net.named_parameters() if parameter.requires_grad]
        for each in self.stages:
            task.loss.replace(each.loss)
            for glob in each.train:
                if not any(fnmatchcase(name, glob) for name in trainable):
                    parts = sorted({name.split(".")[0] for name in trainable})
                    raise ValueError(f"stage {each.name!r} trains {glob!r}, which matches no trainable parameter; the trainable parts are {parts}.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what the constructors left trainable."""
        self._trainable = [(name, parameter) for name, parameter in _task(pl_module).net.named_parameters() if parameter.requires_grad]
        self._rates = [[group.get("initial_lr", group["lr"]) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        for optimizer, rates in zip(trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate
        self._now = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Enter the stage that the batch belongs to, by its first sample, and set the learning rates."""
        sample = batch_idx * _data(trainer).batch_size * trainer.world_size
        index, progress = self.where(sample)
        if index != self._now:
            self._enter(_task(pl_module), index)
        for optimizer, rates in zip(trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * self.stages[index].rate(progress)
        pl_module.log("stage", float(index), rank_zero_only=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give everything back its gradients, so that the next curriculum finds the model as it was built."""
        for _, parameter in self._trainable:
            parameter.requires_grad_(True)

    def where(self, sample: int) -> tuple[int, float]:
        """The stage that a training sample belongs to, and the share of that stage that lies before it."""
        for index, (start, end) in enumerate(pairwise([*self.starts, sum(stage.samples for stage in self.stages)])):
            if sample < end:
                return index, (sample - start) / (end - start)
        return len(self.stages) - 1, 1.0

    def _enter(self, task: GeoPixTask, index: int) -> None:
        stage = self.stages[index]
        for name, parameter in self._trainable:
            parameter.requires_grad_(any(fnmatchcase(name, glob) for glob in stage.train))
        _rest(task.net, {id(parameter) for _, parameter in self._trainable})
        task.active_loss = task.loss.replace(stage.loss)
        self._now = index


def _rest(net: nn.Module, managed: set[int]) -> None:
    """Modules whose every parameter a stage has frozen must not move their running statistics either."""
    for module in net.modules():
        own = [parameter for parameter in module.parameters() if id(parameter) in managed]
        if own:
            module.training = any(parameter.requires_grad for parameter in own)


def _task(module: LightningModule) -> GeoPixTask:
    if not isinstance(module, GeoPixTask):
        raise TypeError(f"the curriculum leads a GeoPixTask; found {type(module).__name__}.")
    return module


def _data(trainer: Trainer) -> GeoPixData:
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, GeoPixData):
        raise TypeError(f"the curriculum needs GeoPixData, whose task mix it sets; found {type(data).__name__}.")
    return data
