"""Can the whole model learn eight scenes by heart? Every [SEG] must be written by free generation, and the masks must fit.

Parts are of the quickstart's classes at sizes of their own, trained on one single reference per easy scene. Part files take the place of one of them,
one after the other; the folder of a file says which. What came out is added to benchmarks/results/parts/overfit.json.

    python benchmarks/overfit.py
    python benchmarks/overfit.py configs/decoder/dot.yaml configs/memory/prototype.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer, seed_everything

from geopix.connectors.mlp import MLPConnector
from geopix.contracts import ConnectorFactory, MaskDecoderFactory, MemoryFactory, VisionEncoder
from geopix.curriculum import Curriculum, Stage
from geopix.data.module import GeoPixData
from geopix.data.scenes import Scenes, SceneTexts
from geopix.data.source import collate
from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.encoders.timm import TimmEncoder
from geopix.evaluation.scores import Scores
from geopix.llms.hf import HFLanguageModel
from geopix.llms.tokenizer import train_tokenizer
from geopix.memory.classwise import ClasswiseMemory
from geopix.model import GeoPixModel
from geopix.task import GeoPixTask

LLAMA = {"model_type": "llama", "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}


SLOTS = {"encoder": VisionEncoder, "connector": ConnectorFactory, "decoder": MaskDecoderFactory, "memory": MemoryFactory}
RESULTS = Path(__file__).parent / "results" / "parts" / "overfit.json"


def part(path: Path) -> dict[str, Any]:
    """What a part file holds, by the slot that its folder names."""
    slot = path.parent.name
    parser = ArgumentParser()
    parser.add_argument("--part", type=SLOTS[slot])
    text = path.read_text(encoding="utf-8").splitlines()
    return {slot: parser.instantiate_classes(parser.parse_string("part:\n" + "\n".join(f"  {line}" for line in text))).part}


def model(classes: list[str], swapped: dict[str, Any]) -> GeoPixModel:
    """Small parts of the quickstart's classes, but for those that are swapped."""
    parts = {
        "encoder": TimmEncoder("resnet18", levels=[1, 2, 3], positions=True, options={"layers": [1, 1, 1, 1], "channels": [48, 96, 160, 160]}),
        "connector": MLPConnector,
        "llm": HFLanguageModel(LLAMA, tokenizer=train_tokenizer(SceneTexts("easy", 100), vocab_size=800)),
        "decoder": partial(MultiScaleDecoder, dim=64, neck_dim=96, grid=16, heads=4, mlp_dim=128, levels=[1, 0]),
        "memory": partial(ClasswiseMemory, classes=classes, slots=16, dim=32, ffn=64, grid=8),
    }
    return GeoPixModel(**{**parts, **swapped})


def main() -> None:
    """Train, ask, and print what came out, for each part file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=Path, help="part files of configs/")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="rows and columns in pixels")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()

    warnings.filterwarnings("ignore", message="(?s).*does not have many workers")
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for path in said.parts or [None]:
        learn(said, path)


def learn(said: argparse.Namespace, path: Path | None) -> None:
    """One training, with the part of a file in its slot."""
    seed_everything(said.seed, verbose=False)
    source = Scenes("easy", size=said.size, count=said.scenes, dialogues=1, mix={"segment/single": 1.0}, seed=said.seed)
    batch = collate([source.sample(index, truth=True) for index in range(said.scenes)])
    net = model(sorted({name for name in batch.classes if name}), {} if path is None else part(path))
    task = GeoPixTask(net, optimizer=partial(torch.optim.AdamW, lr=said.lr, betas=(0.9, 0.95)))
    stage = Stage("by heart", samples=said.steps * said.scenes, warmup=0.05, decay_to=0.02)
    trainer = Trainer(
        accelerator="auto", devices=1, max_epochs=1, gradient_clip_val=1.0, callbacks=[Curriculum([stage])], use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    began = time.perf_counter()
    trainer.fit(task, datamodule=GeoPixData(source, batch_size=said.scenes))
    seconds = time.perf_counter() - began

    task.eval()
    with torch.no_grad():
        prediction = task.answer(batch.to(task.device))
    scores = Scores()
    scores.update(batch, prediction)
    single = {name.removeprefix("single/"): value for name, value in scores.compute().items() if name.startswith("single/")}
    drawn = torch.bincount(prediction.drawing.dialogue_index.cpu(), minlength=said.scenes)
    written = torch.minimum(drawn, torch.bincount(batch.dialogue_index, minlength=said.scenes)).sum() / len(batch.masks)
    name = "as above" if path is None else f"{path.parent.name}/{path.stem}"
    print(f"{name}: {said.scenes} easy scenes of {said.size} px, {said.steps} steps of all of them, learning rate {said.lr}, {seconds:.0f} s on {task.device}")
    print(f"mean IoU {single['giou']:.3f}   IoU > 0.9 {single['pr@0.9']:.3f}   [SEG] written {written:.3f}", flush=True)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    settings = {"scenes": said.scenes, "size": said.size, "steps": said.steps, "lr": said.lr}
    results[name] = {"mean_iou": round(single["giou"], 4), "seg_written": round(float(written), 4), **settings}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
