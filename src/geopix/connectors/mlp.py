"""Two linear layers between the encoder and the language model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from geopix.contracts import Connector

_PROJECTOR = "multi_modal_projector."
_LAYERS = {"linear_1": "0", "linear_2": "2"}


class MLPConnector(Connector):
    """LLaVA-1.5's projector: linear, exact GELU, linear; one visual token per cell, row by row.

    Source: Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning", section 3.3, https://arxiv.org/abs/2310.03744
    (``mlp2x_gelu`` of https://github.com/haotian-liu/LLaVA). ``layers.0`` and ``layers.2`` have the shapes and the order of its
    ``mm_projector.0`` and ``mm_projector.2``.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read.
        out_dim: width of the language model.
        hidden: width between the two layers; ``out_dim`` when left out, as in LLaVA-1.5.
        weights: a folder or hub name of a LLaVA in the layout of transformers, such as ``llava-hf/llava-1.5-7b-hf``, whose projector is the
            start. None starts at random.

    Raises:
        ValueError: when a width is not positive, or when the weights hold no such projector.
    """

    def __init__(self, channels: Sequence[int], out_dim: int, *, hidden: int | None = None, weights: str | None = None) -> None:
        super().__init__()
        in_dim, width = channels[-1], out_dim if hidden is None else hidden
        if min(in_dim, out_dim, width) < 1:
            raise ValueError(f"an MLPConnector needs positive widths; found channels[-1]={in_dim}, out_dim={out_dim}, hidden={hidden}.")
        self.layers = nn.Sequential(nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, out_dim))
        if weights is not None:
            found = _projector(weights)
            expected = {name: tuple(value.shape) for name, value in self.layers.state_dict().items()}
            shapes = {name: tuple(value.shape) for name, value in found.items()}
            if shapes != expected:
                raise ValueError(
                    f"weights: the projector of {weights!r} has layers of {shapes}, but the encoder and the language model here need {expected}. "
                    "Use the encoder and the language model that it was trained between, and leave hidden out."
                )
            self.layers.load_state_dict(found)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b h*w out_dim``; cell ``(y, x)`` is token ``y * w + x``."""
        return self.layers(features[-1].flatten(2).transpose(1, 2))


def _projector(name: str) -> dict[str, Tensor]:
    """The projector of a LLaVA, under the names of ``layers``, in float32; nothing else of the checkpoint is read."""
    try:
        act = json.loads(_file(name, "config.json").read_text(encoding="utf-8")).get("projector_hidden_act", "gelu")
        try:
            index = json.loads(_file(name, "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
            files = sorted({file for key, file in index.items() if _PROJECTOR in key})
        except (FileNotFoundError, EntryNotFoundError):
            files = ["model.safetensors"]
        found: dict[str, Tensor] = {}
        for file in files:
            with safe_open(_file(name, file), framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - no mapping
                    layer, _, side = key.rpartition(_PROJECTOR)[2].rpartition(".")
                    if _PROJECTOR in key and layer in _LAYERS:
                        found[f"{_LAYERS[layer]}.{side}"] = tensors.get_tensor(key).float()
    except (OSError, ValueError, KeyError, EntryNotFoundError, SafetensorError) as error:
        raise ValueError(
            f"weights: no projector could be read from {name!r}: {str(error).strip().splitlines()[0]} "
            f"Expected a folder with config.json and *.safetensors; with a network run `hf download {name}` and give its folder."
        ) from error
    if act != "gelu":
        raise ValueError(f"weights: the projector of {name!r} uses {act!r} between its layers, expected 'gelu'. Leave weights out.")
    return found


def _file(name: str, file: str) -> Path:
    """A file of a folder, or of a name of the hub: from the local cache, or downloaded there."""
    path = Path(name).expanduser()
    if not path.is_dir():
        return Path(hf_hub_download(name, file))
    if not (path / file).is_file():
        raise FileNotFoundError(f"{path / file} is not there.")
    return path / file
