"""Weights of transformers for encoders: reads configurations and checkpoints completely, or says what is wrong with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

Source = dict[str, Any] | str | Path
"""A configuration with ``model_type``, which starts at random, or a folder or hub name with weights."""

IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
"""Means and deviations of red, green and blue that most vision models are trained with."""


def read_config(source: Source, families: Collection[str], whole: Collection[str], reader: str) -> Any:
    """The configuration of the vision model that a source holds.

    Args:
        families: the ``model_type`` of the vision models that the encoder reads.
        whole: those of larger models whose ``vision_config`` is one of them.
        reader: the encoder's name, for messages.

    Raises:
        FileNotFoundError: when the folder is not there.
        ValueError: when the configuration cannot be read or is of another family.
    """
    if isinstance(source, dict):
        if source.get("model_type") not in families:
            raise ValueError(f"a configuration needs a model_type of {sorted(families)}; found {source.get('model_type')!r}.")
        return AutoConfig.for_model(**source)
    if not Path(source).is_dir() and (isinstance(source, Path) or str(source).startswith(("/", ".", "~"))):
        raise FileNotFoundError(f"no folder {source}; give a folder written by save_pretrained, or a name of the Hugging Face hub as 'owner/name'.")
    _refuse_pointers(Path(source))
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the configuration of {str(source)!r}: {error} Give a folder, or connect to the hub.") from error
    if config.model_type in whole:
        config = config.vision_config
    if config.model_type not in families:
        raise ValueError(f"{str(source)!r} is a {config.model_type!r}; {reader} reads {', '.join(sorted({*families, *whole}))}.")
    return config


def load(model: Any, source: Source, config: Any, used: Callable[[str], bool], renamed: Mapping[str, str] | None = None) -> Any:
    """The model in float32: at random for a configuration, else with every weight that is used taken from the source.

    Args:
        model: transformers' class of the vision model.
        used: whether a weight belongs to the part that the encoder keeps, by its key.
        renamed: patterns of keys in the source, and what takes their place.

    Raises:
        ValueError: when weights cannot be read or do not fit the configuration.
    """
    if isinstance(source, dict):
        return model(config)
    arguments: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        with _without_report():
            loaded, found = model.from_pretrained(source, **arguments, **({"key_mapping": dict(renamed)} if renamed else {}))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load the weights of {str(source)!r}: {error}") from error
    wrong = {
        "missing keys": sorted(str(key) for key in found["missing_keys"] if used(str(key))),
        "unexpected keys": sorted(str(key) for key in found["unexpected_keys"] if used(str(key))),
        "mismatched shapes": sorted(f"{key} {tuple(old)} for {tuple(new)}" for key, old, new in found["mismatched_keys"] if used(str(key))),
    }
    if any(wrong.values()):
        lists = "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}" for kind, keys in wrong.items() if keys)
        raise ValueError(f"the weights of {str(source)!r} do not fit its configuration: {lists}.")
    return loaded


def normalisation(source: Source, family: tuple[Sequence[float], Sequence[float]] = IMAGENET) -> tuple[list[float], list[float]]:
    """Mean and deviation from the source's preprocessor configuration, else those that the family was trained with."""
    found: dict[str, Any] = {}
    if not isinstance(source, dict):
        try:
            found = BaseImageProcessor.get_image_processor_dict(str(source))[0]
        except OSError:
            found = {}
    return list(found.get("image_mean") or family[0]), list(found.get("image_std") or family[1])


@contextmanager
def _without_report() -> Iterator[None]:
    """Keeps back transformers' table of keys, which lists the unused half of a larger model; what matters of it is checked here and raises."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refuse_pointers(folder: Path) -> None:
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(40).startswith(b"version https://git-lfs"):
                    raise ValueError(f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` where it was cloned.")
