"""The class vocabulary of a memory: names, what a prompt says about them, and how much of each class a mask reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def distinct(classes: Sequence[str]) -> tuple[str, ...]:
    """The names as a vocabulary.

    Raises:
        ValueError: when a class is named twice.
    """
    names = tuple(classes)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each class of a memory must be named once; found more than once: {twice}.")
    return names


def class_head(prompt_dim: int, names: Sequence[str]) -> nn.Sequential | None:
    """A linear classifier of prompts; None where there are no classes."""
    return nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, len(names))) if names else None


def infer(head: nn.Sequential | None, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
    """Class logits from the mean of each mask's prompt states."""
    logits: Tensor = prompts.new_zeros(len(prompts), 0) if head is None else head(prompts.mean(1))
    return logits


def class_weights(logits: Float[Tensor, "m p"], class_ids: Int[Tensor, " m"]) -> Float[Tensor, "m _"]:
    """How much of each class a mask reads, in sum 1: all of the class that was named, else what the logits infer.

    Without classes there is one column of ones, for what all masks share.
    """
    if logits.shape[1] == 0:
        return logits.new_ones(len(logits), 1, dtype=torch.float32)
    named = torch.eye(logits.shape[1], device=logits.device)[class_ids.clamp(min=0)]
    return torch.where((class_ids >= 0)[:, None], named, logits.float().softmax(-1))


def class_log_weights(logits: Float[Tensor, "m p"], class_ids: Int[Tensor, " m"]) -> Float[Tensor, "m _"]:
    """The logarithm of :func:`class_weights`, minus infinity where nothing is read; safe to differentiate."""
    if logits.shape[1] == 0:
        return logits.new_zeros(len(logits), 1, dtype=torch.float32)
    other = torch.arange(logits.shape[1], device=logits.device) != class_ids[:, None]
    named = torch.zeros(other.shape, device=logits.device).masked_fill(other, -torch.inf)
    return torch.where((class_ids >= 0)[:, None], named, logits.float().log_softmax(-1))
