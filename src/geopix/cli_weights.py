"""The weights that a configuration reads and that are not on this machine: all of them in one message, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from geopix.checkpoint import SLOTS
from geopix.cli_errors import ConfigError, Told
from geopix.llms.sources import missing_artefacts

_FILES = (".pth", ".pt", ".bin", ".safetensors")

KNOWN: dict[str, tuple[float, str]] = {
    "HuggingFaceTB/SmolLM2-360M-Instruct": (0.7, "Apache-2.0"),
    "Qwen/Qwen2.5-0.5B-Instruct": (1.0, "Apache-2.0"),
    "Qwen/Qwen2.5-7B-Instruct": (15.2, "Apache-2.0"),
    "Qwen/Qwen3-1.7B": (4.1, "Apache-2.0"),
    "Qwen/Qwen3-8B": (16.4, "Apache-2.0"),
    "facebook/convnext-large-224-22k": (0.9, "Apache-2.0"),
    "facebook/dinov2-large": (1.2, "Apache-2.0"),
    "facebook/dinov3-vitl16-pretrain-sat493m": (1.2, "DINOv3 License, accepted on the hub"),
    "facebook/sam-vit-huge": (2.6, "Apache-2.0"),
    "facebook/sam2.1-hiera-large": (0.9, "Apache-2.0"),
    "google/siglip2-base-patch16-512": (1.5, "Apache-2.0"),
    "google/siglip2-so400m-patch16-naflex": (4.5, "Apache-2.0"),
    "llava-hf/llava-1.5-7b-hf": (14.1, "Llama 2 Community License"),
    "lmsys/vicuna-7b-v1.5": (13.5, "Llama 2 Community License"),
    "meta-llama/Meta-Llama-3-8B-Instruct": (16.1, "Llama 3 Community License, accepted on the hub"),
    "microsoft/Phi-3.5-mini-instruct": (7.6, "MIT"),
    "microsoft/phi-1_5": (2.8, "MIT"),
    "microsoft/swin-base-patch4-window12-384-in22k": (0.4, "Apache-2.0"),
    "openai/clip-vit-large-patch14": (1.7, "MIT"),
    "openai/clip-vit-large-patch14-336": (1.7, "MIT"),
}
"""What the configurations of geopix name: gigabytes of the weights, and their licence as far as known."""


@dataclass(frozen=True)
class Wanted:
    """Something that a part reads.

    Args:
        slot: the part's place in the model, such as ``pixel_encoder``.
        option: the option that names it: source, weights or tokenizer.
        name: a file, a folder, or a name of the hub.
        alone: the option holds no tokenizer of its own: a language model's ``source`` does, unless ``tokenizer`` names another.
    """

    slot: str
    option: str
    name: str
    alone: bool

    @property
    def is_path(self) -> bool:
        """Whether the name is that of a file or folder, which nothing downloads. Mask decoders read no hub names."""
        return self.slot == "decoder" or self.name.startswith((".", "/", "~")) or self.name.endswith(_FILES) or Path(self.name).exists()

    @property
    def lacks(self) -> list[str]:
        """What of it is not here; empty when all is, or when the hub may be asked for it."""
        path = Path(self.name).expanduser()
        if self.is_path and (self.slot == "decoder" or not path.is_dir()):
            return [] if path.exists() else ["all of it"]
        if not self.is_path and not constants.is_offline_mode():
            return []
        weights, tokenizer = self.option != "tokenizer", not self.alone
        missing = missing_artefacts(self.name, weights=weights, tokenizer=tokenizer)
        return ["all of it"] if len(missing) == 2 * weights + tokenizer else missing


def refuse_missing(net: Mapping[str, Any]) -> None:
    """Look for everything that a model's parts will be read from. Names of the hub are looked up only where it may not be asked (``HF_HUB_OFFLINE=1``).

    Args:
        net: the configuration of the model, by slot.

    Raises:
        ConfigError: one, that names all that is missing, and how each is fetched.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for slot in SLOTS:
        for wanted in _wanted(slot, net.get(slot)):
            if lacks := wanted.lacks:
                options, parts = found.setdefault(wanted.name, ([], []))
                options.append(f"{wanted.slot}.{wanted.option}")
                parts.extend(each for each in lacks if each not in parts)
    if found:
        raise ConfigError(
            Told(
                f"{len(found)} thing{'s' if len(found) > 1 else ''} that this configuration reads {'are' if len(found) > 1 else 'is'} not on this machine",
                more=[_line(name, options, parts) for name, (options, parts) in sorted(found.items())],
                next="fetch them where there is a network, or name your own folders (--model.net.encoder.source FOLDER); "
                "--config configs/tiny/NAME.yaml behind a whole configuration tries its wiring without weights",
            )
        )


def _wanted(slot: str, part: Any) -> Iterator[Wanted]:
    """What a part and the parts inside it name."""
    if not isinstance(part, Mapping):
        return
    for option, value in part.items():
        if isinstance(value, Mapping):
            yield from _wanted(slot, value)
        elif option in ("source", "weights", "tokenizer") and isinstance(value, str | Path):
            alone = slot != "llm" or (option == "source" and part.get("tokenizer") is not None)
            wanted = Wanted(slot, option, str(value), alone)
            if wanted.is_path or "/" in wanted.name or option != "weights":  # smp's and timm's own names of weights are theirs to find
                yield wanted


def _line(name: str, options: list[str], lacks: list[str]) -> str:
    """One thing: who reads it, how large it is, under which licence, and how it comes here."""
    local = name.startswith((".", "/", "~"))
    known = next((each for each in KNOWN if name == each or (local and Path(name).name == Path(each).name)), None)
    told = f" ({KNOWN[known][0]} GB, {KNOWN[known][1]})" if known else ""
    some = "" if lacks == ["all of it"] else f" lacks {'; '.join(lacks)}"
    if known:
        fetch = f": hf download {known}" + (f" --local-dir {name}" if name != known else "")
    else:
        fetch = "" if local or name.count("/") != 1 else f": hf download {name}"
    return f"{', '.join(options)}  {name}{told}{some}{fetch}"
