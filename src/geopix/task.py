"""How a model is trained, validated, tested and asked. The task has no architecture; the model has no loss."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

# Set by LightningCLI while it builds a task; asking it is the only way to tell a task built from a config from one built by hand.
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from torch import Tensor, nn
from torch.optim import Optimizer

from geopix.checkpoint import check_checkpoint, manifest, trained_state, use_own_options
from geopix.evaluation.protocols import PROTOCOLS, ProtocolName
from geopix.evaluation.scores import Scores
from geopix.losses import TERMS, LossWeights, loss_terms, weight_of
from geopix.model import GeoPixModel
from geopix.types import Batch, Prediction


class GeoPixTask(LightningModule):
    """Train a model on text and masks together, and score its own free answers.

    Args:
        net: the model.
        optimizer: built from all parameters that the constructors left trainable; matrices, tables and vectors (without weight decay) are groups of their own.
        scheduler: stepped once per step; leave it out where a curriculum's stages say how rates rise and fall.
        loss: what each loss counts, unless a stage says otherwise.
        named_share: share of training masks whose class name the memory is told; evaluation never tells it.
        max_new_tokens: longest answer of a turn, in tokens.
        protocol: how answers are asked for and masks compared (:data:`geopix.evaluation.protocols.PROTOCOLS`).
        controls: in ``test``, also score the same prompts asked about other images; only free answers have this control.
    """

    def __init__(
        self,
        net: GeoPixModel,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        loss: LossWeights = LossWeights(),  # noqa: B008 (frozen)
        named_share: float = 0.5,
        max_new_tokens: int = 128,
        protocol: ProtocolName = "generate",
        controls: bool = True,
    ) -> None:
        super().__init__()
        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters(logger=False)
        self.net = net
        self.optimizer, self.scheduler = optimizer, scheduler
        self.loss = self.active_loss = loss
        self.named_share, self.max_new_tokens = named_share, max_new_tokens
        self.protocol, self.controls = protocol, controls
        self.trainable = frozenset(f"net.{name}" for name, parameter in net.named_parameters() if parameter.requires_grad)
        self.scores = Scores(protocol)
        # A checkpoint holds what was trained; what is missing from it is told apart from what was never trained in on_load_checkpoint.
        self.strict_loading = False
        self._seen: list[tuple[tuple[str, ...], Tensor, Tensor]] = []

    # ------------------------------------------------------------------ training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weighted sum of all losses over finished dialogues."""
        # Every draw of a step (named masks, dropout) follows from its number, so a resumed run repeats an uninterrupted one.
        torch.manual_seed(hash((int(os.environ.get("PL_GLOBAL_SEED", "0")), self.global_rank, batch_idx)) % 2**63)
        named = torch.rand(len(batch.masks), device=self.device) < self.named_share
        output = self.net(batch, named)
        terms, total = loss_terms(output, batch.masks, self.active_loss), output.logits.new_zeros((), dtype=torch.float32)
        nothing = (torch.zeros_like(total), torch.zeros_like(total))
        values, counts = self._mean_over_ranks(torch.stack([torch.stack([each.detach().float() for each in terms.get(name, nothing)]) for name in TERMS])).T
        counts, logged = counts.clamp(min=1 / self.trainer.world_size), torch.zeros_like(total)
        for name, (value, _) in terms.items():
            index, weight = TERMS.index(name), weight_of(name, self.active_loss)
            self.log(f"train/{name}", values[index] / counts[index], batch_size=1)
            total, logged = total + weight * value / counts[index], logged + weight * values[index] / counts[index]
        self.log("train/loss", logged, prog_bar=True, batch_size=1)
        self._seen.append((batch.keys, total.detach(), logged))
        # Every trainable parameter takes part in each step: a rank with captions only must not leave the others waiting.
        return total + sum((parameter.sum() * 0.0 for parameter in self.net.parameters() if parameter.requires_grad), start=total.new_zeros(()))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep a gradient that is not finite from the weights, and parameters that took no part in any rank's losses where they are.

        Without the latter, an optimizer whose steps do not depend on the size of a gradient (Muon) would repeat the last direction at full length.
        With 16-mixed, gradients that overflow are left out by its scaler, and losses that are not finite are told.

        Raises:
            ValueError: naming the parameters and the images; the last checkpoint is from before.
        """
        seen, self._seen = self._seen, []
        grads = {name: parameter.grad for name, parameter in self.named_parameters() if parameter.grad is not None and parameter.grad.numel()}
        if not grads:
            return
        sizes = dict(zip(grads, torch.stack(list(torch._foreach_norm(list(grads.values()), float("inf")))).tolist(), strict=True))
        wrong = [name for name, size in sizes.items() if not math.isfinite(size)]
        losses = {keys: float(total) for keys, total, _ in seen} if wrong else {}
        spoilt = {keys: total for keys, total in losses.items() if not math.isfinite(total)}
        anywhere = bool(wrong) and not all(math.isfinite(logged) for _, _, logged in seen)  # of all ranks: they must stop together
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if wrong and (anywhere or not scaled):
            found = "; ".join(f"a loss of {total:g} of the images {', '.join(keys)}" for keys, total in (spoilt or losses).items())
            raise ValueError(
                f"step {self.global_step}: the gradients of {len(wrong)} parameters are not finite, {wrong[0]} first\n"
                f"  found     {found}\n"
                "  expected  finite losses; the weights are as they were before this step\n"
                "  next      look at these images (with several ranks, at those of every rank); a lower learning rate, or trainer.precision 32-true,\n"
                "            from the last checkpoint with --ckpt_path last"
            )
        if any(sizes.values()):
            for name, parameter in self.named_parameters():
                if sizes.get(name) == 0:
                    parameter.grad = None

    def _mean_over_ranks(self, counts: Tensor) -> Tensor:
        """Sums of losses and elements per rank on average: DDP averages gradients, so the sum over ranks is divided by the count over ranks."""
        counted = self.trainer.strategy.reduce(counts, reduce_op="mean")
        assert isinstance(counted, Tensor)
        return counted

    def configure_optimizers(self) -> Any:
        """All that is trainable by construction, whatever the stage, so that a resumed run finds the optimizer that it left."""
        optimizer = self._plain_optimizer()
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}

    def _plain_optimizer(self) -> Optimizer:
        """The optimizer as configured, before any schedule has touched its rates.

        Matrices that map one space to another, learned tables, and vectors are groups of their own: optimizers that orthogonalise updates
        (timm's Muon) do so for the first alone, which is what their key ``use_fallback`` says. Other optimizers pass over that key.
        """
        tables = _tables(self.net)
        parameters = [parameter for name, parameter in self.named_parameters() if name in self.trainable]
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1 and id(parameter) not in tables]},
            {"params": [parameter for parameter in parameters if id(parameter) in tables], "use_fallback": True},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0, "use_fallback": True},
        ]
        return self.optimizer([group for group in groups if group["params"]])

    # ------------------------------------------------------------------ evaluation

    def answer(self, batch: Batch) -> Prediction:
        """Answer a batch's questions from its images and prompts alone (and the class names or true answers, if the protocol says so)."""
        protocol = PROTOCOLS[self.protocol]
        if protocol.forced:
            return Prediction(tuple(tuple(turn.answer for turn in turns) for turns in batch.dialogues), self.net(batch).drawing)
        seen = self.net.encode(batch.images)
        prompts = [[turn.prompt for turn in turns] for turns in batch.dialogues]
        classes = _names_by_dialogue(batch, self.net.classes if protocol.misnamed else ()) if protocol.named else None
        return self.net.generate(seen, prompts, batch.image_index, max_new_tokens=self.max_new_tokens, classes=classes)

    def validation_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Answer freely and score."""
        prediction = self.answer(batch)
        self.scores.update(batch, prediction)
        return prediction

    def test_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Answer freely and score, with the controls."""
        prediction = self.validation_step(batch, batch_idx)
        if self.controls and len(batch.images) > 1 and not PROTOCOLS[self.protocol].forced:
            self.scores.update_shuffled(batch, self._answer_shuffled(batch))
        return prediction

    def _answer_shuffled(self, batch: Batch) -> Prediction:
        """Ask every question about the next image of the batch instead of its own."""
        seen = self.net.encode(batch.images)
        prompts = [[turn.prompt for turn in turns] for turns in batch.dialogues]
        other = (batch.image_index + 1) % len(batch.images)
        return self.net.generate(seen, prompts, other, max_new_tokens=self.max_new_tokens)

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Answer freely."""
        return self.answer(batch)

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.scores.reset()

    def on_test_epoch_start(self) -> None:
        """Start counting anew."""
        self.scores.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the scores of all ranks under ``val/``."""
        self.log_dict({f"val/{name}": value for name, value in self.scores.compute().items()})

    def on_test_epoch_end(self) -> None:
        """Log the scores of all ranks."""
        self.log_dict(self.scores.compute())

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained and what moves with it (buffers, the tokenizer), and say what that is."""
        names = [name for name, _ in self.named_parameters()]
        checkpoint["state_dict"] = trained_state(self, checkpoint["state_dict"], self.trainable)
        said = manifest(
            names, self.trainable, classes=self.net.classes, bands=self.net.encoder.bands, seg_tokens=len(self.net.llm.seg_ids), hparams=self.hparams
        )
        checkpoint["geopix"] = {**said, **checkpoint.get("geopix", {})}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not cover what this model trains; a resumed optimizer takes the options of this run.

        Raises:
            CheckpointError: naming what is missing, what is too much, and what has another shape or class vocabulary.
        """
        check_checkpoint(checkpoint, self.state_dict(), self.trainable, self.net.fixed_classes)
        if "optimizer_states" in checkpoint and self.trainable:
            use_own_options(checkpoint, self._plain_optimizer())


def _tables(net: GeoPixModel) -> set[int]:
    """Ids of parameters whose rows are entries and not outputs: embeddings, heads over a vocabulary, tokens, memory slots."""
    entries = {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    entries |= {id(parameter) for name, parameter in net.named_parameters() if parameter.ndim > 1 and not name.endswith("weight")}
    return entries | {id(parameter) for name, parameter in net.named_parameters() if name.endswith("lm_head.weight")}


def _names_by_dialogue(batch: Batch, vocabulary: Sequence[str] = ()) -> list[list[str | None]]:
    """The class of each mask; with a vocabulary, the one that follows it there."""
    after = dict(zip(vocabulary, [*vocabulary[1:], *vocabulary[:1]], strict=True))
    names: list[list[str | None]] = [[] for _ in batch.dialogues]
    for owner, name in zip(batch.dialogue_index.tolist(), batch.classes, strict=True):
        names[owner].append(name if name is None else after.get(name, name))
    return names
