"""A training in stages: what learns, on which tasks, with which losses and learning rate.

GeoPix trains in two stages (arXiv 2501.06828); what each of them trains is not published, so the stages of geopix's configs are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise
from typing import get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from geopix.data.ask import Task
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
        warmup: share of the stage over which the rate rises from 0, from 0 to 1.
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

    With accumulated gradients, a stage begins with the first batch of an optimizer step.

    Args:
        stages: in order.

    Raises:
        ValueError: for no stages, a stage without samples or too short for a step, a rate or warmup out of its range, a glob that matches no trainable
            parameter, an unknown loss weight or task, and for a scheduler of the task's, whose rates the stages would overwrite.
    """

    def __init__(self, stages: list[Stage]) -> None:
        if not stages:
            raise ValueError("a curriculum needs at least one stage; found none.")
        for stage in stages:
            if stage.samples < 1:
                raise ValueError(f"stage {stage.name!r} has {stage.samples} samples; expected at least 1.")
            if not 0 <= stage.warmup <= 1 or stage.decay_to < 0 or stage.learning_rate < 0:
                raise ValueError(
                    f"stage {stage.name!r} has warmup {stage.warmup}, decay_to {stage.decay_to} and learning_rate {stage.learning_rate}; "
                    "expected a share of the stage from 0 to 1, and factors of at least 0."
                )
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
        if task.scheduler is not None:
            raise ValueError("model.scheduler is set beside a curriculum, whose stages set the learning rates; drop it, or the curriculum.")
        batch = data.batch_size * trainer.world_size
        step, whole = batch * trainer.accumulate_grad_batches, sum(each.samples for each in self.stages) // batch * batch
        for start, each in zip(self.starts, self.stages, strict=True):
            _check_tasks(each, data)
            if whole and -(-start // step) * step >= min(start + each.samples, whole):
                raise ValueError(
                    f"stage {each.name!r} is passed over: no step of {step} samples (batch size x ranks x accumulated batches) begins among its "
                    f"{each.samples} from number {start} on; make it longer."
                )
        data.follow([(start, each.data or None) for start, each in zip(self.starts, self.stages, strict=True)], sum(each.samples for each in self.stages))
        trainable = [name for name, parameter in task.net.named_parameters() if parameter.requires_grad]
        for each in self.stages:
            task.loss.replace(each.loss)
            for glob in each.train:
                if not any(fnmatchcase(name, glob) for name in trainable):
                    parts = sorted({name.split(".")[0] for name in trainable})
                    raise ValueError(f"stage {each.name!r} trains {glob!r}, which matches no trainable parameter; the trainable parts are {parts}.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what the constructors left trainable, and in which mode."""
        self._modes = {module: module.training for module in _task(pl_module).net.modules()}
        self._trainable = [(name, parameter) for name, parameter in _task(pl_module).net.named_parameters() if parameter.requires_grad]
        self._rates = [[group.get("initial_lr", group["lr"]) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        for optimizer, rates in zip(trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate
        self._now = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Enter the stage that the optimizer step belongs to, by its first sample, and set the learning rates."""
        first = batch_idx - batch_idx % trainer.accumulate_grad_batches
        sample = first * _data(trainer).batch_size * trainer.world_size
        index, progress = self.where(sample)
        if index != self._now:
            self._enter(_task(pl_module), index)
        for optimizer, rates in zip(trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * self.stages[index].rate(progress)
        pl_module.log("stage", float(index), rank_zero_only=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave task and model as they were, for the training after this one."""
        for _, parameter in self._trainable:
            parameter.requires_grad_(True)
        for module, mode in self._modes.items():
            module.training = mode
        task = _task(pl_module)
        task.active_loss = task.loss

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
        _rest(task.net, {id(parameter) for _, parameter in self._trainable}, training=True, own=False)
        task.active_loss = task.loss.replace(stage.loss)
        self._now = index


def _rest(module: nn.Module, managed: set[int], *, training: bool, own: bool) -> None:
    """Modules whose every parameter a stage has frozen rest: no dropout, and running statistics stay as they are. Others train.

    What holds none but frozen parameters of the constructor's is left alone. A module that checkpoints its activations does so only while it "trains", so
    a resting one still does, unless it has dropout of its own (OPT, Falcon) and not in modules below it.

    Args:
        managed: ids of the parameters that stages freeze and free.
        training: mode of the module around this one.
        own: whether a module around this one has a ``train`` of its own, which knows what in it never trains.
    """
    parameters = list(module.parameters())
    mine = [parameter for parameter in parameters if id(parameter) in managed]
    if parameters and not mine:
        return
    if mine:
        training = any(parameter.requires_grad for parameter in mine)
    if mine and type(module).train is not nn.Module.train:
        module.train(training)
        own = True
    elif not own or not training:
        module.training = training or _checkpoints(module)
    for child in module.children():
        _rest(child, managed, training=training, own=own)


def _checkpoints(module: nn.Module) -> bool:
    """Whether a module checkpoints its activations and drops none itself."""
    own = [getattr(module, name, 0.0) for name in ("dropout", "hidden_dropout", "attention_dropout")]
    return getattr(module, "gradient_checkpointing", False) is True and not any(share for share in own if isinstance(share, float))


def _check_tasks(stage: Stage, data: GeoPixData) -> None:
    """Tasks of a stage are names of families, or kinds that are not nearly one of the source's. A source that does not say its kinds is not asked.

    Raises:
        ValueError: naming the task and the nearest.
    """
    source = data.sources["train"]
    kinds = source.kinds if source is not None else frozenset()
    families = {*get_args(Task), *(kind.split("/")[0] for kind in kinds)}
    for task in stage.data if kinds else ():
        family, _, kind = task.partition("/")
        known = {each.partition("/")[2] for each in kinds if each.partition("/")[0] == family} if kind and family in families else families
        word = kind if kind and family in families else family
        near = get_close_matches(word, known, 1, 0.8)
        if word not in known and (near or family not in families):
            expected = f"did you mean {near[0]!r}?" if near else f"expected {sorted(families)}."
            raise ValueError(f"stage {stage.name!r} asks for {task!r}, of which {word!r} is no task; {expected}")


def _task(module: LightningModule) -> GeoPixTask:
    if not isinstance(module, GeoPixTask):
        raise TypeError(f"the curriculum leads a GeoPixTask; found {type(module).__name__}.")
    return module


def _data(trainer: Trainer) -> GeoPixData:
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, GeoPixData):
        raise TypeError(f"the curriculum needs GeoPixData, whose task mix it sets; found {type(data).__name__}.")
    return data
