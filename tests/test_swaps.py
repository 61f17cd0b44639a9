"""Every part takes its slot of the quickstart by one option, and trains a step there through the real command line."""

import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from geopix.contracts import Connector, LanguageModel, MaskDecoder, Memory, VisionEncoder
from geopix.decoders.sam2 import Sam2Decoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.encoders.lora.hf import LoRAEncoder
from geopix.encoders.reduced import ReducedEncoder
from geopix.encoders.sam.hf import SamEncoder
from geopix.encoders.tiled import TiledEncoder
from geopix.encoders.timm import TimmEncoder
from geopix.llms.hf import HFLanguageModel
from tests.commands import ROOT, geopix
from tests.test_components import parts
from tests.tiny import LLAMA, TINY

SLOTS = {"encoder": VisionEncoder, "connector": Connector, "llm": LanguageModel, "decoder": MaskDecoder, "memory": Memory}
SWAPS = [(slot, part) for slot, family in SLOTS.items() for part in parts(family)]
QUICK = ["--config", ROOT / "configs" / "quickstart.yaml", "--model.net.llm.tokenizer.corpus.scenes", 3, "--data.train.size", 64, "--data.batch_size", 2]
QUICK += ["--data.num_workers", 0, "--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"]
QUICK += ["--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 0, "--trainer.enable_model_summary", "false", "--trainer.log_every_n_steps", 1]

# One map where the quickstart's decoder names two; another decoder would keep the quickstart's two levels where it has an option of that name.
NEEDED = {SamEncoder: ["--model.net.decoder.levels", "[0, 0]"], Sam2Decoder: ["--model.net.decoder.levels", "[0, 1, 1]"]}


def written(part: type) -> dict[str, Any]:
    """A tiny instance of a part, as YAML says it."""
    nested: dict[type, dict[str, Any]] = {
        TiledEncoder: {"tile": 32, "overlap": 8, "shrink": 2, "inner": TimmEncoder},
        ReducedEncoder: {"stride": 16, "inner": TimmEncoder},
        LoRAEncoder: {"targets": ["q_proj"], "rank": 2, "inner": HFVisionEncoder},
        HFLanguageModel: {"source": LLAMA, "seg_tokens": 6},
    }
    if part in nested:
        options = dict(nested[part])
        if "inner" in options:
            options["encoder"] = written(options.pop("inner"))
    else:
        made = TINY.get(part, partial(part))
        assert isinstance(made, partial), f"{part.__name__} is not made by a partial of itself: say in nested how YAML writes it"
        options = dict(inspect.signature(part).bind_partial(*made.args, **made.keywords).arguments)
    return {"class_path": f"{part.__module__}.{part.__name__}", "init_args": options}


@pytest.mark.parametrize(("slot", "part"), SWAPS, ids=[part.__name__ for _, part in SWAPS])
def test_one_swap_over_the_quickstart_trains_a_step(slot: str, part: type, tmp_path: Path) -> None:
    said = geopix("fit", *QUICK, "--trainer.default_root_dir", tmp_path, f"--model.net.{slot}", json.dumps(written(part)), *NEEDED.get(part, []))
    assert said.code == 0, said.err
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
