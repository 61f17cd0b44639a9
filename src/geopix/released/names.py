"""Which released tensor is which parameter of geopix, part by part. Tables are from our names to theirs."""

from __future__ import annotations

from collections.abc import Iterable

SPARE_VISION = r"^(language_model|multi_modal_projector)\.|\.post_layernorm\.|\.position_ids$"
SPARE_PROJECTOR = r"^(language_model|vision_tower)\."
SPARE_TEXT = r"^(vision_tower|multi_modal_projector)\.|rotary_emb\.inv_freq$"
SPARE_SEG = r"\.k_proj\.bias$|\.iou_prediction_head\.|\.output_hypernetworks_mlps\.[1-9]"
"""Of ``seg/``: key biases, which a softmax ignores; the head of a quality that the release computes and ignores; hyper-networks of masks that are not used."""
SPARE_PEC = r"\.(point_embeddings|not_a_point_embed|mask_downscaling)\."
"""Of ``pec/``: the parts for points, boxes and masks as prompts."""
SPARE_CLM = r"^(learnable_memory|memory_encoder|memory_fuser)\.|^memory_attention\.layers\.0\.(?!scale$)"
"""Of ``clm/``: all that changes no mask, the bank of 629 million numbers among it."""

_BLOCK = {
    "self_attention": "self_attn",
    "read": "cross_attn_token_to_image",
    "write": "cross_attn_image_to_token",
    "norm_self": "norm1",
    "norm_read": "norm2",
    "norm_mlp": "norm3",
    "norm_write": "norm4",
}
_LAST = {"read": "final_attn_token_to_image", "norm_read": "norm_final_attn"}
_UPSCALES = {"upsample": "upsample_2x", "output_upscale": "output_upscaling"}


def vision_names(own: Iterable[str]) -> dict[str, str]:
    """Of the CLIP tower's parameters."""
    parts = {"embeddings": "embeddings", "pre_norm": "pre_layrnorm", "layers": "encoder.layers"}
    heads = ((name, *name.split(".", 1)) for name in own)
    return {name: f"vision_tower.vision_model.{parts[head]}.{rest}" for name, head, rest in heads}


def projector_names() -> dict[str, str]:
    """Of the connector's parameters."""
    return {f"layers.{2 * index}.{kind}": f"multi_modal_projector.linear_{index + 1}.{kind}" for index in (0, 1) for kind in ("weight", "bias")}


def text_names(own: Iterable[str]) -> dict[str, str]:
    """Of the language model's parameters."""
    return {name: f"language_model.{name}" for name in own}


def neck_names(level: int) -> dict[str, str]:
    """Of one neck, with its running statistics, but for the count of batches that they were taken from."""
    kinds = {0: ("weight", "bias"), 1: ("weight", "bias", "running_mean", "running_var")}
    pairs = (("enter", "conv1"), ("leave", "conv2"))
    return {f"necks.{level}.{mine}.{index}.{kind}": f"{theirs}.{index}.{kind}" for mine, theirs in pairs for index in kinds for kind in kinds[index]}


def seg_names(own: Iterable[str]) -> dict[str, str]:
    """Of the mask decoder's parameters and buffers that ``seg/`` holds; ``own`` are all of them."""
    names = {
        "quality_token": "iou_token.weight",
        "mask_tokens": "mask_tokens.weight",
        "level_embed": "level_embed.weight",
        "positions.1.gaussian": "pe1.positional_encoding_gaussian_matrix",
    }
    for name in own:
        first, *rest = name.split(".")
        if first == "transformers":
            names[name] = f"transformer.{rest[0]}.{_transformer_name(rest[1:])}"
        elif first == "mask_mlp":
            names[name] = f"output_hypernetworks_mlps.0.layers.{int(rest[0]) // 2}.{rest[1]}"
        elif first in _UPSCALES:
            names[name] = f"{_UPSCALES[first]}.{int(rest[0] == 'norm')}.{rest[-1]}"
    return {mine: f"mask_decoder.{theirs}" for mine, theirs in names.items()}


def _transformer_name(words: list[str]) -> str:
    if words[0] != "blocks":
        return ".".join([_LAST[words[0]], *words[1:]])
    _, block, part, *rest = words
    if part == "mlp":
        return f"layers.{block}.mlp.lin{1 + int(rest[0]) // 2}.{rest[1]}"
    return ".".join(["layers", block, _BLOCK[part], *rest])


PEC_NAMES = {
    "no_mask": "prompt_encoder.no_mask_embed.weight",
    "positions.0.gaussian": "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
}
PROMPT_NAMES = {f"prompt_proj.{index}.{kind}": f"{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias")}
CLM_NAMES = {
    "scales.0": "memory_attention.layers.0.scale",
    "norms.0.weight": "memory_attention.norm.weight",
    "norms.0.bias": "memory_attention.norm.bias",
}
