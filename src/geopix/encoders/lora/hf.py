"""Low-rank adapters in an encoder, for any encoder that has linear layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from geopix.contracts import VisionEncoder

_SHOWN = 12


class LoRAEncoder(VisionEncoder):
    """Any encoder, frozen, with low-rank adapters in chosen linear layers; the adapters alone are trained.

    At the start it gives the maps of the encoder it wraps. The frozen encoder stays in evaluation mode, so that its batch norms and dropout do what they did;
    only the adapters' own dropout follows the mode. Adapters are float32 whatever the encoder's weights are. Constructing it runs one small image, to refuse
    layers in which an adapter would do nothing.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685; adapters by https://github.com/huggingface/peft.

    Args:
        encoder: the one that is adapted, such as ``geopix.encoders.hf.HFVisionEncoder``; it is changed in place.
        targets: which linear layers. A name stands for all layers whose path ends with it, such as ``q_proj`` or ``self_attn.q_proj``; ``*`` and ``?``
            stand for any text and any letter, such as ``layers.2?.self_attn.*_proj``. Each has to match.
        rank: of each update.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: of the adapters' input, in training.

    Raises:
        ValueError: when there are no targets, when one matches no linear layer, or when no map depends on an adapter.
    """

    def __init__(self, encoder: VisionEncoder, *, targets: Sequence[str], rank: int = 8, alpha: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        names = _matches(encoder, targets)
        self.bands, self.channels, self.strides = encoder.bands, encoder.channels, encoder.strides
        encoder.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="|".join(map(re.escape, names)))
        self.encoder = inject_adapter_in_model(config, encoder)
        for parameter in self.encoder.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # steps of a small learning rate vanish in bfloat16
        self._adapters = tuple(name for name, module in self.encoder.named_modules() if isinstance(module, LoraLayer))
        self._refuse_unreached()
        self.train()

    def train(self, mode: bool = True) -> LoRAEncoder:
        """The mode of the adapters' dropout; the frozen encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        for name in self._adapters:
            self.encoder.get_submodule(f"{name}.lora_dropout").train(mode)
        return self

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The maps of the adapted encoder."""
        return self.encoder(images)

    def _refuse_unreached(self) -> None:
        """Runs one small image forwards and backwards: a gradient has to reach each adapter."""
        weights = [self.encoder.get_parameter(f"{name}.lora_B.default.weight") for name in self._adapters]
        self.eval()
        with torch.enable_grad():
            maps = self.encoder(torch.zeros(1, self.bands, 64, 64, device=weights[0].device))
            reached = [level.sum() for level in maps if level.requires_grad]
            gradients = torch.autograd.grad(sum(reached), weights, allow_unused=True) if reached else [None] * len(weights)
        unreached = [name for name, gradient in zip(self._adapters, gradients, strict=True) if gradient is None]
        if unreached:
            raise ValueError(
                f"targets: no map of {type(self.encoder).__name__} depends on an adapter in {_some(unreached)}: the encoder does not use the layer, "
                "or reads its weights without calling it, or computes without gradients. Choose other targets."
            )


def _matches(encoder: nn.Module, targets: Sequence[str]) -> list[str]:
    """Paths of all linear layers that the targets stand for, in the encoder's order."""
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    if not targets:
        raise ValueError(f"targets: found none, expected names of linear layers of {type(encoder).__name__}: {_some(_ends(linear))}.")
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in linear if fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")]
        if not found:
            near = get_close_matches(target, [*_ends(linear), *linear], n=3, cutoff=0.5)
            raise ValueError(
                f"targets: {target!r} matches no linear layer of {type(encoder).__name__}; "
                + (f"near it: {', '.join(near)}; " if near else "")
                + (f"its linear layers end with {_some(_ends(linear))}." if linear else "it has none: choose another encoder, or train it whole.")
            )
        chosen.update(found)
    return [name for name in linear if name in chosen]


def _ends(names: Sequence[str]) -> list[str]:
    """Last parts of paths, each once, in their order."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
