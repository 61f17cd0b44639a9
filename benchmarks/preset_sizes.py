"""How many parameters the whole configurations have at their published sizes, in all and trained, by slot. Nothing is downloaded and nothing allocated.

    python benchmarks/preset_sizes.py               # every configuration of configs/ that names weights of the hub
    python benchmarks/preset_sizes.py lisa_7b       # one of them

A configuration is read by the command line itself. Names of weights are replaced by the architectures that those weights have (the table below), the
tokenizer by one that is as large, and the model is built without memory ("meta device"), LoRA included. The headers of the configurations hold these lines.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from geopix.checkpoint import SLOTS
from geopix.cli import main as run_verb
from geopix.llms.template import DEFAULT_TEMPLATE
from geopix.model import GeoPixModel

CONFIGS = Path(__file__).parents[1] / "configs"

LLAMA_7B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
CLIP_L = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
CLIP_L |= {"patch_size": 14}
HIERA_L = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 144,
    "num_attention_heads": 2,
    "blocks_per_stage": [2, 6, 36, 4],
    "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16],
    "window_size_per_stage": [8, 4, 16, 8],
    "window_positional_embedding_background_size": [7, 7],
    "global_attention_blocks": [23, 33, 43],
}
TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {**CLIP_L, "image_size": 224},
    "openai/clip-vit-large-patch14-336": {**CLIP_L, "image_size": 336},
    "google/siglip2-base-patch16-512": {
        "model_type": "siglip_vision_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 512, "patch_size": 16,
    },
    "google/siglip2-so400m-patch16-naflex": {
        "model_type": "siglip2_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "patch_size": 16, "num_patches": 256,
    },
    "microsoft/swin-base-patch4-window12-384-in22k": {
        "model_type": "swin", "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12, "image_size": 384,
    },
    "facebook/sam-vit-huge": {
        "model_type": "sam_vision_model", "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120,
        "global_attn_indexes": [7, 15, 23, 31],
    },
    "facebook/sam2.1-hiera-large": {"model_type": "sam2_vision_model", "backbone_config": HIERA_L, "backbone_channel_list": [1152, 576, 288, 144]},
}  # fmt: skip
LANGUAGE: dict[str, tuple[dict[str, Any], int, int]] = {
    "lmsys/vicuna-7b-v1.5": (LLAMA_7B, 32000, 32000),
    "llava-hf/llava-1.5-7b-hf": (LLAMA_7B, 32001, 32064),
    "microsoft/phi-1_5": (
        {"model_type": "phi", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32},
        50295, 51200,
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": (
        {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
         "tie_word_embeddings": True},
        151665, 151936,
    ),
    "Qwen/Qwen2.5-7B-Instruct": (
        {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4},
        151665, 152064,
    ),
}  # fmt: skip
"""Architecture, tokens of the tokenizer without ``<image>``, and rows of the embedding as it is stored. A small one grows by the tokens that geopix adds."""


def blank_tokenizer(tokens: int) -> PreTrainedTokenizerBase:
    """A tokenizer of so many tokens that knows bytes and no words.

    Args:
        tokens: in all.
    """
    specials = ["<pad>", "<s>", "</s>"]
    known = [*specials, *sorted(ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate([*known, *(f"<|{index}|>" for index in range(len(known), tokens))])}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    pad, begin, end = specials
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=begin, eos_token=end, chat_template=DEFAULT_TEMPLATE)


def parsed(name: str) -> dict[str, Any]:
    """The model's part of a whole configuration, as ``geopix fit --print_config`` prints it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run_verb(["fit", "--config", str(CONFIGS / f"{name}.yaml"), "--print_config"])
    if code:
        raise ValueError(f"configs/{name}.yaml is not read; geopix said why.")
    net: dict[str, Any] = yaml.safe_load(printed.getvalue())["model"]["net"]
    return net


def weights_of(name: str) -> str:
    """The name on the hub of what a configuration names by its folder: ``./weights/sam-vit-huge``."""
    return next((known for known in [*TOWERS, *LANGUAGE] if name == known or (name.startswith(".") and Path(name).name == Path(known).name)), name)


def without_weights(part: Any) -> Any:
    """A part's configuration with architectures in place of names of weights.

    Raises:
        ValueError: for a name that the tables do not hold.
    """
    if not isinstance(part, Mapping):
        return part
    changed = {key: without_weights(value) for key, value in part.items()}
    if "weights" in changed:
        changed["weights"] = None
    if isinstance(source := changed.get("source"), str):
        name = weights_of(source)
        if name not in TOWERS and name not in LANGUAGE:
            raise ValueError(f"{name!r} is in no table of {__file__}; write its architecture there.")
        changed["source"] = TOWERS[name] if name in TOWERS else LANGUAGE[name][0]
        if name in LANGUAGE:
            _, tokens, rows = LANGUAGE[name]
            added = 1 + changed["seg_tokens"]
            changed["tokenizer"] = blank_tokenizer(max(tokens, rows - added))
            changed["quantise"] = None
    return changed


def sizes(name: str) -> dict[str, tuple[int, int]]:
    """Parameters of each slot: all, and those that are trained."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GeoPixModel, "net")
    said = parser.parse_object({"net": without_weights(parsed(name))})
    with torch.device("meta"):
        model = parser.instantiate_classes(said).net
    counts = {}
    for slot in SLOTS:
        part = model.get_submodule(slot) if slot in dict(model.named_children()) else None
        if part is not None:
            parameters = list(part.parameters())
            counts[slot] = sum(each.numel() for each in parameters), sum(each.numel() for each in parameters if each.requires_grad)
    return counts


def told(name: str) -> str:
    """The line that stands in the header of a configuration."""
    counts = sizes(name)
    every, trained = (sum(values) for values in zip(*counts.values(), strict=True))
    by_slot = ", ".join(f"{slot} {_number(size)} ({_number(learning)})" for slot, (size, learning) in counts.items())
    return f"Parameters (trained): {_number(every)} ({_number(trained)}): {by_slot}"


def _number(count: int) -> str:
    if not count:
        return "0"
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.3g} k"


def names() -> list[str]:
    """The configurations that name weights of the tables."""
    known = [*TOWERS, *LANGUAGE]
    parts = {path: path.read_text(encoding="utf-8") for path in CONFIGS.glob("*/*.yaml")}
    named = {path.relative_to(CONFIGS).as_posix() for path, text in parts.items() if any(f"source: {each}" in text for each in known)}
    whole = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml"))}
    return [name for name, text in whole.items() if any(f": {each}" in text for each in [*known, *named])]


if __name__ == "__main__":
    for each in sys.argv[1:] or names():
        print(f"{each}\n  {told(each)}")
