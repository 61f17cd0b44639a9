"""What encoders made of other libraries' models share: their weights files, and which parameters their maps depend on."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, out of its wrapper if it has one of the usual ones.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a git-lfs pointer, or a file that holds no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}; give a .pt, .pth or .safetensors file, or 'hub'.")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise ValueError(f"{path} is a git-lfs pointer, not the weights themselves; run `git lfs pull` where it was cloned.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"cannot read weights from {path}: {error}. Expected a state dict of tensors as .pt, .pth or .safetensors.") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict: expected names with tensors, found {type(state).__name__}.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def state_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """How a state dict differs from the expected one: missing and unexpected keys and shapes, the first eight of each; empty where it fits."""
    shapes = {key: f"{key} {tuple(found[key].shape)} for {tuple(value.shape)}" for key, value in expected.items() if key in found}
    lists = {
        "missing keys": [key for key in expected if key not in found],
        "unexpected keys": [key for key in found if key not in expected],
        "mismatched shapes": [shapes[key] for key, value in expected.items() if key in found and found[key].shape != value.shape],
    }
    return "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}" for kind, keys in lists.items() if keys)


def reached_leaves(outputs: Sequence[Tensor]) -> set[int]:
    """Ids of the leaf tensors that the outputs depend on, read off the graph without a backward pass."""
    waiting: list[Any] = [output.grad_fn for output in outputs]
    seen: set[Any] = set()
    leaves: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::AccumulateGrad":
            leaves.add(id(node.variable))
        waiting.extend(parent for parent, _ in node.next_functions)
    return leaves
