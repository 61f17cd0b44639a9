"""Weights of SAM's and SAM 2's mask decoders, from Meta's files or those of transformers, under this package's names."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

NUM_MASK_TOKENS = 4
"""SAM's mask tokens: one for a clear prompt, three for an ambiguous one."""

# What a whole SAM or SAM 2 holds beside its mask decoder, and key biases, which softmax ignores.
_UNUSED = re.compile(
    r"^(vision_encoder|image_encoder|memory_\w+|maskmem_\w+|no_mem_pos_enc|no_memory_positional_encoding|no_object_pointer|no_obj_\w+"
    r"|obj_ptr_\w+|object_pointer_proj|mask_downsample|temporal_positional_encoding_projection_layer|occlusion_spatial_embedding_parameter)(\.|$)"
    r"|^(sam_)?prompt_encoder\.(point_embed\w*|not_a_point_embed|mask_embed|mask_downscaling|shared_embedding)\."
    r"|^(sam_)?mask_decoder\.transformer\..+\.k_proj\.bias$"
)
_NO_MEMORY = ("no_memory_embedding", "no_mem_embed")
_NAMES = [
    (r"^sam_", ""),
    (r"^mask_decoder\.", ""),
    (r"^prompt_encoder\.no_mask_embed\.weight$", "head.no_mask"),
    (r"^(shared_image_embedding\.positional_embedding|prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix)$", "head.position.gaussian"),
    (r"^iou_token\.weight$", "head.quality_token"),
    (r"^mask_tokens\.weight$", "head.mask_tokens"),
    (r"^obj_score_token\.weight$", "presence_token"),
    (r"^transformer\.layers\.", "head.transformer.blocks."),
    (r"^transformer\.", "head.transformer."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.(cross_attn|final_attn)_token_to_image\.", ".read."),
    (r"\.cross_attn_image_to_token\.", ".write."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.(layer_)?norm_final_attn\.", ".norm_read."),
    (r"\.(layer_)?norm1\.", ".norm_self."),
    (r"\.(layer_)?norm2\.", ".norm_read."),
    (r"\.(layer_)?norm3\.", ".norm_mlp."),
    (r"\.(layer_)?norm4\.", ".norm_write."),
    (r"\.mlp\.(lin1|proj_in|layers\.0)\.", ".mlp.0."),
    (r"\.mlp\.(lin2|proj_out|layers\.1)\.", ".mlp.2."),
    (r"^(output_upscaling\.0|upscale_conv1)\.", "head.upscale."),
    (r"^(output_upscaling\.1|upscale_layer_norm)\.", "head.upscale.norm."),
    (r"^(output_upscaling\.3|upscale_conv2)\.", "head.products."),
    (r"^output_hypernetworks_mlps\.", "head.mask_mlps."),
    (r"^iou_prediction_head\.", "head.quality_mlp."),
    (r"^pred_obj_score_head\.", "presence_mlp."),
    (r"^conv_s0\.", "fine_skip.convolution."),
    (r"^conv_s1\.", "middle_skip.convolution."),
]
# The three layers of a head, which the two layouts count differently.
_HEAD = r"(_mlp(?:s\.\d)?)\."
_TRANSFORMERS_HEADS = [(_HEAD + r"proj_in\.", r"\1.0."), (_HEAD + r"layers\.0\.", r"\1.2."), (_HEAD + r"proj_out\.", r"\1.4.")]
_META_HEADS = [(_HEAD + r"layers\.0\.", r"\1.0."), (_HEAD + r"layers\.1\.", r"\1.2."), (_HEAD + r"layers\.2\.", r"\1.4.")]


def load_sam_weights(decoder: nn.Module, path: Path, drawn: Sequence[int], *, ours: tuple[str, ...]) -> None:
    """Fill a decoder from a file or folder with a SAM or SAM 2. Pickles are opened for tensors only.

    Args:
        drawn: the mask tokens whose masks this decoder draws; the layers behind the others are not read.
        ours: how the names of parameters begin that no such file holds.

    Raises:
        FileNotFoundError: when there are no weights at ``path``.
        ValueError: when they cannot be read, or do not fit; every key that is missing, left over or of another shape is named.
    """
    expected = {name: value for name, value in decoder.state_dict().items() if not name.startswith(ours)}
    state = _read(path)
    names = _names(state, drawn)
    found = {name: _fitted(name, state[theirs], drawn) for name, theirs in names.items()}
    for theirs in _NO_MEMORY:
        if theirs in state and "head.no_mask" in found:
            found["head.no_mask"] = found["head.no_mask"] + state[theirs].flatten()
    wrong = {
        "missing": [name for name in expected if name not in found],
        "left over": [theirs for name, theirs in names.items() if name not in expected],
        "of another shape": [
            f"{names[name]} {tuple(found[name].shape)} for {tuple(value.shape)}"
            for name, value in expected.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    if any(wrong.values()):
        told = "; ".join(f"{len(keys)} {kind}: {', '.join(keys)}" for kind, keys in wrong.items() if keys)
        raise ValueError(
            f"the weights in {path} do not fit this {type(decoder).__name__}: {told}. "
            "TwoWayDecoder takes SAM's mask decoder, Sam2Decoder that of SAM 2; with either, leave dim, depth, mlp_dim and mask_dim at their defaults."
        )
    decoder.load_state_dict(found, strict=False)


def _names(state: Mapping[str, Tensor], drawn: Sequence[int]) -> dict[str, str]:
    """The file's names by this package's; without those of layers behind masks that are not drawn."""
    heads = _TRANSFORMERS_HEADS if any(".proj_in." in name for name in state) else _META_HEADS
    names: dict[str, str] = {}
    for theirs in state:
        ours = theirs
        for pattern, replacement in [*_NAMES, *heads]:
            ours = re.sub(pattern, replacement, ours)
        match = re.fullmatch(r"head\.mask_mlps\.([0-3])\.(.+)", ours)
        if match is not None and int(match[1]) in drawn:
            ours = f"head.mask_mlps.{drawn.index(int(match[1]))}.{match[2]}"
        elif match is not None:
            continue
        if theirs not in _NO_MEMORY:
            names[ours] = theirs
    return names


def _fitted(name: str, value: Tensor, drawn: Sequence[int]) -> Tensor:
    """A tensor without what its embedding table wraps around it, or without the rows of masks that are not drawn."""
    if name == "head.no_mask":
        return value.flatten()
    if name.startswith("head.quality_mlp.4.") and len(value) == NUM_MASK_TOKENS:
        return value[list(drawn)]
    return value


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file or folder that a mask decoder may need."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if path.is_dir() and not files:
        files = sorted(file for file in path.iterdir() if file.suffix in (".pth", ".pt", ".bin"))
        if len(files) > 1:
            raise ValueError(f"{path} holds several weights: {', '.join(file.name for file in files)}; give the path of one of them.")
    if not files:
        raise FileNotFoundError(f"no weights at {path}; give a .safetensors, .pth, .pt or .bin file with a SAM, or a folder that holds one.")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"cannot read weights from {file}: {error}. Expected tensors by name, as .safetensors, .pth, .pt or .bin.") from error
    return state


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys() if not _UNUSED.search(name)}  # noqa: SIM118 (it has keys but is no mapping)


def _read_pickle(file: Path) -> dict[str, Tensor]:
    state = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} holds no tensors by name; found {type(state).__name__}. Give the weights of a SAM.")
    return {name: value for name, value in state.items() if not _UNUSED.search(name)}
