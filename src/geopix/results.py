"""What ``geopix test`` leaves: numbers with all that they depend on, every sample, and a report to look at."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from geopix import __version__
from geopix.checkpoint import read_checkpoint
from geopix.data.module import GeoPixData
from geopix.data.source import Source
from geopix.evaluation.folder import Result, write_result
from geopix.evaluation.journal import Journal
from geopix.evaluation.outcome import Outcome
from geopix.evaluation.ranks import everywhere
from geopix.task import GeoPixTask
from geopix.types import Batch

LIBRARIES = ("torch", "lightning", "transformers", "timm", "torchmetrics", "pycocotools")


class Results(Callback):
    """Writes each test to a folder: ``metrics.json``, ``samples.jsonl`` and ``report.html`` (:func:`geopix.evaluation.folder.write_result`).

    While a test runs, ``journal-RANK.jsonl`` holds what was scored; the same test, started again after a kill, scores the rest alone.

    Args:
        folder: where; the run folder by default.
        resamples: of the bootstrap behind each interval.
        pictures: how many of the best and of the worst dialogues the report shows; 0 for none.
        resume: go on from the journal of a test that was killed.
        java: see :func:`geopix.evaluation.folder.write_result`.
    """

    def __init__(self, folder: Path | None = None, resamples: int = 1000, pictures: int = 20, resume: bool = True, java: bool | None = None) -> None:
        self.folder, self.resamples, self.pictures, self.resume, self.java = folder, resamples, pictures, resume, java
        self._journal: Journal | None = None
        self._earlier: tuple[Outcome, ...] = ()
        self._scored: set[int] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find what an interrupted test has scored, before anything is read."""
        if stage != "test":
            return
        task, data, source = _parts(trainer, pl_module)
        task.scores.keep = True
        self._journal = Journal(self._folder(trainer), {**self._said(trainer, task, source), "batch": data.eval_batch_size}, trainer.global_rank)
        earlier = self._journal.open(resume=self.resume)
        self._earlier, self._scored = earlier.outcomes, set(earlier.done)
        done = earlier.done if len(earlier.done) < (source.count or 0) else frozenset(sorted(earlier.done)[: -data.eval_batch_size])
        data.leave_out(done)
        if trainer.is_global_zero and earlier.other:
            print("geopix: the journal of another test was in the folder; this test starts from its beginning", file=sys.stderr)
        if trainer.is_global_zero and done:
            print(f"geopix: {len(done)} of {source.count} images were scored before and are not scored again", file=sys.stderr)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Note what was scored."""
        task, data, _ = _parts(trainer, pl_module)
        assert self._journal is not None
        images = data.test_batch(batch_idx)
        task.scores.place(dict(zip(batch.keys, images, strict=True)))
        self._journal.add(images, task.scores.fresh)
        self._scored.update(images)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put together what was scored now and before; the task counts it next."""
        task, _, _ = _parts(trainer, pl_module)
        task.scores.outcomes[:0] = self._earlier

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything and show the numbers."""
        task, data, source = _parts(trainer, pl_module)
        assert self._journal is not None
        outcomes, counted = task.scores.gathered, task.scores.table
        data.leave_out(frozenset())
        self._earlier = ()
        scored = len(set().union(*everywhere(self._scored)))
        part = [f"only {scored} of {source.count} images were scored (trainer.limit_test_batches?): this is no result of the whole set"]
        if trainer.is_global_zero:
            said = self._said(trainer, task, source)
            about = {
                "command": " ".join(["geopix", *sys.argv[1:]]),
                "version": __version__,
                "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
                "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
                "checkpoint": _checkpoint(trainer),
                "config_sha256": said["config"],
                "precision": said["precision"],
                "device": said["device"],
            }
            result = Result(task.protocol, source.title, about, tuple(outcomes), (*(part if scored != source.count else ()), *source.remarks))
            folder = self._folder(trainer)
            print(write_result(folder, result, source, table=counted, resamples=self.resamples, pictures=self.pictures, java=self.java))
        trainer.strategy.barrier("results")
        self._journal.remove()

    def _folder(self, trainer: Trainer) -> Path:
        return self.folder if self.folder is not None else Path(trainer.default_root_dir)

    def _said(self, trainer: Trainer, task: GeoPixTask, source: Source) -> dict[str, Any]:
        """All that decides the outcomes of a test."""
        config = json.dumps({name: value for name, value in task.hparams.items() if not name.startswith("_")}, sort_keys=True, default=str)
        stored = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        state = f"{stored.resolve()} {stored.stat().st_size} {stored.stat().st_mtime_ns}" if stored else None
        return {
            "version": __version__,
            "protocol": task.protocol,
            "data": source.identity,
            "checkpoint": state,
            "config": hashlib.sha256(config.encode()).hexdigest(),
            "controls": task.controls,
            "precision": trainer.precision,
            "device": trainer.strategy.root_device.type,
            "torch": version("torch"),
        }


def _parts(trainer: Trainer, task: LightningModule) -> tuple[GeoPixTask, GeoPixData, Source]:
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(task, GeoPixTask)
    assert isinstance(data, GeoPixData)
    source = data.sources["test"]
    assert source is not None
    return task, data, source


def _checkpoint(trainer: Trainer) -> dict[str, Any] | None:
    """What was tested: the file, its hash, and what its manifest says of the training."""
    if not trainer.ckpt_path:
        return None
    path = Path(trainer.ckpt_path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = read_checkpoint(path)["geopix"]
    kept = {name: manifest[name] for name in ("version", "samples", "stage", "batch_size") if name in manifest}
    kept["trained"] = len(manifest["trained"])
    return {"path": str(trainer.ckpt_path), "sha256": digest, **kept}
