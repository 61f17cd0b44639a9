"""Where a language model comes from: a config, a folder or a name of the Hugging Face hub; what is missing there is told at once, before anything is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_bitsandbytes_available, logging

from geopix.llms.template import Chat

Setting = bool | int | float | str | list[int] | list[str] | dict[str, bool | int | float | str] | None
Quantise = Literal["nf4", "fp4", "int8"]
Find = Callable[[str], Path | None]
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_AFTER_HEAD = {"final_logit_softcapping": None, "logit_scale": 1, "logits_scaling": 1, "lm_head_multiplier": 1}
_INSIDE = {  # names of a language model within a multi-modal checkpoint, as the hub holds them and as transformers 5 writes them
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.model\.": "model.",
    r"^(model\.)?language_model\.": "model.",
}


def read_tokenizer(tokenizer: PreTrainedTokenizerBase | str | None, source: dict[str, Setting] | str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that is given, or that of a folder or hub name; the source's own when none is given."""
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    if tokenizer is None and isinstance(source, dict):
        raise ValueError("tokenizer: found none, and a config as source has none of its own; give one, such as geopix.llms.tokenizer.train_tokenizer.")
    name = str(tokenizer or source)
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"tokenizer: {name!r} cannot be read: {_line(error)}. {_next_step(name, weights=False)}") from error


def random_model(source: dict[str, Setting], chat: Chat, dtype: torch.dtype) -> PreTrainedModel:
    """A model with random weights, from its config."""
    settings = dict(source)
    kind = settings.pop("model_type", None)
    if not isinstance(kind, str) or "vocab_size" in settings:
        raise ValueError(f"source: expected a config with model_type and without vocab_size, which the tokenizer tells; found {source}.")
    tokenizer = chat.tokenizer
    special = {"pad_token_id": chat.pad_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    try:
        config = AutoConfig.for_model(kind, **{**special, **settings, "vocab_size": chat.num_tokens})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"source: no config of model_type {kind!r} can be made from {settings}: {_line(error)}") from error
    unknown = sorted(set(settings) - set(type(config)().to_dict()) - set(config.attribute_map) - {"rope_theta", "rope_scaling"})
    if unknown:
        raise ValueError(f"source: a config of model_type {kind!r} has no {', '.join(unknown)}; it would be ignored. Correct the name or remove it.")
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def read_model(name: str, dtype: torch.dtype, quantise: Quantise | None) -> PreTrainedModel:
    """A model with all of its weights, from a folder or the hub; of a multi-modal checkpoint such as LLaVA's, the language model inside."""
    bits = None if quantise is None else _bits(quantise, dtype)
    verbosity = logging.get_verbosity()
    try:
        whole = AutoConfig.from_pretrained(name)
        config = whole.get_text_config(decoder=True)
        inside = config is not whole
        if inside:
            logging.set_verbosity_error()  # the library lists all of the tower and the projector, which are left out on purpose
        model, report = AutoModelForCausalLM.from_pretrained(
            name, config=config, key_mapping=_INSIDE if inside else None, dtype=dtype, quantization_config=bits, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ValueError(f"source: no language model could be read from {name!r}: {_line(error)}. {_next_step(name, tokenizer=False)}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"source: the weights in {name!r} lack {len(missing)} of the tensors of {type(model).__name__}, such as {missing[0]}; they would be random. "
            "Expected the complete weights of a causal language model, or of a multi-modal one that holds it as language_model."
        )
    return model


def refuse_work_after_head(config: PreTrainedConfig) -> None:
    """Refuses models whose logits are not those of their head alone."""
    settings = config.to_dict()
    found = {name: settings[name] for name, neutral in _AFTER_HEAD.items() if settings.get(name) not in (None, neutral)}
    if found:
        raise ValueError(f"source: {config.model_type} changes logits after its head ({found}), so the loss would be wrong. Use another model.")


def _bits(quantise: Quantise, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What the weights of linear layers become as they are read; the head and the embedding stay as they are."""
    lacks = [] if is_bitsandbytes_available() else ["the library bitsandbytes"]
    lacks += [] if torch.accelerator.is_available() else ["a GPU"]
    if lacks:
        raise ValueError(
            f"quantise: {quantise!r} needs bitsandbytes and a GPU; missing here: {' and '.join(lacks)}. "
            'Run `pip install "geopix[quantised]"` on a machine with a GPU, or leave quantise out.'
        )
    if quantise == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantise, bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True)


# ---------------------------------------------------------------- what is missing


def check_at_hand(source: dict[str, Setting] | str | Path, tokenizer: PreTrainedTokenizerBase | str | None) -> None:
    """Looks for everything that a language model will be read from, before any of it is.

    A name of the hub is looked up in the local cache alone, and only when the hub may not be asked (``HF_HUB_OFFLINE=1``).

    Raises:
        ValueError: one, with all that is missing of source and tokenizer.
    """
    found: list[str] = []
    if not isinstance(source, dict):
        found.append(_lacks("source", str(source), tokenizer=tokenizer is None))
    if isinstance(tokenizer, str):
        found.append(_lacks("tokenizer", tokenizer, weights=False))
    if any(found):
        raise ValueError(" ".join(sentence for sentence in found if sentence))


def missing_artefacts(name: str, *, weights: bool = True, tokenizer: bool = True) -> list[str]:
    """What is not at hand of a language model; empty when all is there.

    Args:
        name: a folder, or a name of the Hugging Face hub, of which the local cache is searched; the network is never used.
        weights: look for ``config.json`` and the weights: all shards of them, where an index lists some.
        tokenizer: look for the tokenizer.
    """
    folder = Path(name).expanduser()

    def find(file: str) -> Path | None:
        try:
            found = folder / file if folder.is_dir() else try_to_load_from_cache(name, file)
        except HFValidationError:
            return None  # no name that the hub could hold
        return Path(found) if isinstance(found, str | Path) and Path(found).is_file() else None

    missing: list[str] = []
    if weights:
        missing += [] if find("config.json") else ["config.json"]
        missing += _missing_weights(find)
    if tokenizer and not any(find(file) for file in _TOKENIZERS):
        missing.append("the tokenizer (tokenizer.json or tokenizer.model)")
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            missing.append(f"{file.name} itself (it is a pointer of git-lfs: run `git lfs pull` in that folder)")
    return missing


def _missing_weights(find: Find) -> list[str]:
    """Nothing where one of the usual files is there, or an index with all of its shards."""
    if any(find(file) for file in _WEIGHTS):
        return []
    for file in _WEIGHTS:
        index = find(f"{file}.index.json")
        if index is None:
            continue
        try:
            written = json.loads(index.read_text(encoding="utf-8"))
            shards, size = sorted(set(written["weight_map"].values())), written.get("metadata", {}).get("total_size")
        except (ValueError, KeyError, AttributeError) as error:
            return [f"a readable {index.name} ({_line(error)})"]
        absent = [shard for shard in shards if not find(shard)]
        whole = f", {size / 1e9:.1f} GB in all" if isinstance(size, int | float) else ""
        return [f"{len(absent)} of {len(shards)} shards of the weights ({', '.join(absent)}{whole})"] if absent else []
    return ["the weights (model.safetensors, or its index and shards)"]


def _lacks(slot: str, name: str, *, weights: bool = True, tokenizer: bool = True) -> str:
    """One sentence about all that is missing, empty when nothing is or when the hub can still be asked."""
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local and (folder.exists() or folder.is_absolute() or name.startswith((".", "~"))):
        return f"{slot}: {name!r} is not a folder; expected one with config.json, weights and tokenizer.json, or a hub name such as owner/name."
    if not local and not constants.is_offline_mode():
        return ""
    missing = missing_artefacts(name, weights=weights, tokenizer=tokenizer)
    if not missing:
        return ""
    if local:
        return f"{slot}: the folder {name!r} lacks {'; '.join(missing)}. Check that the download is complete."
    return (
        f"{slot}: {name!r} is neither a local folder nor complete in the local cache, and the hub may not be asked (HF_HUB_OFFLINE is set); missing: "
        f"{'; '.join(missing)}. With a network run `hf download {name}`, or give the path of a folder."
    )


def _next_step(name: str, *, weights: bool = True, tokenizer: bool = True) -> str:
    if Path(name).expanduser().is_dir():
        return "Expected config.json, weights as *.safetensors and tokenizer files; check that the download is complete."
    missing = missing_artefacts(name, weights=weights, tokenizer=tokenizer)
    return (
        f"It is neither a local folder nor complete in the local cache; missing: {'; '.join(missing) or 'nothing'}. "
        f"With a network run `hf download {name}`, or give the path of a folder."
    )


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
