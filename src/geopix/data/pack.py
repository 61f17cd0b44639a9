"""``geopix data pack``: a JSONL with all the files that it names, as shards that can lie in a folder or an object store, and the source that reads them.

    geopix data pack records.jsonl --out shards

Shards are litdata's (extra ``streaming``): each is one file of many records, with the bytes of their images and PNG masks as they are. Only what a step
needs is read, from a local copy that litdata fetches and keeps within a size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from geopix.data.decode import choose_dialogues, draw_seed, sample_of, tasks_of
from geopix.data.images import Scaling, image_size
from geopix.data.instruct import InstructRecords
from geopix.data.order import weight_for
from geopix.data.records import Record
from geopix.data.source import Source
from geopix.types import Sample

SUMMARY = "geopix.index.json"
"""What is known of all records, beside the shards: their number, their tasks, and how many lie in each shard. litdata fetches what ends so, as its own index,
without the client that may not be used before a process forks its workers."""

RAM = Path("/dev/shm")


def pack(path: Path, out: Path, *, root: Path | None = None, split: str | None = None, shard_mb: int = 64, workers: int = 1) -> int:
    """Write the records of a JSONL, with the files that they name, as shards.

    Args:
        path: the JSONL.
        out: an empty or new folder.
        root: folder that the paths in the records start from; the JSONL's own unless given.
        split: keep only the records of this split.
        shard_mb: about how large a shard is.
        workers: processes that read files.

    Returns:
        The number of records.

    Raises:
        ValueError: when the folder holds something, or the extra ``streaming`` is not installed.
        FileNotFoundError: when the JSONL or a file that it names is missing.
    """
    litdata = _litdata()
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; shards are written into a folder of their own.")
    records = InstructRecords(path, size=1, root=root, split=split)
    kinds = [records.tasks(index) for index in range(len(records))]
    litdata.optimize(
        partial(_item, records), list(range(len(records))), output_dir=str(out), chunk_bytes=f"{shard_mb}MB", num_workers=workers,
        keep_data_ordered=True, optimize_dns=False, verbose=False,
    )  # fmt: skip
    shards = json.loads((out / "index.json").read_text(encoding="utf-8"))["chunks"]
    written = sum(shard["chunk_size"] for shard in shards)
    if written != len(records):
        raise ValueError(
            f"{out} holds {written} of the {len(records)} records of {path}: a process that wrote shards has failed; what it said stands above. Pack again."
        )
    names = sorted({kind for own in kinds for kind in own})
    summary = {
        "title": f"{path.name}{'' if split is None else f' {split}'}",
        "records": len(records),
        "shards": [shard["chunk_size"] for shard in shards],
        "tasks": names,
        "tasks_of": [sorted(names.index(kind) for kind in set(own)) for own in kinds],
    }
    (out / SUMMARY).write_text(json.dumps(summary) + "\n", encoding="utf-8")
    return len(records)


def _item(records: InstructRecords, index: int) -> dict[str, Any]:
    """One record as litdata stores it: its text, and its files one after the other with their names and lengths."""
    record = records.record(index)
    names = [record["image"], *dict.fromkeys(one["mask"]["png"] for one in record.get("instances", []) if "png" in (one.get("mask") or {}))]
    contents = [records.locate(name).read_bytes() for name in names]
    lengths = [[name, len(content)] for name, content in zip(names, contents, strict=True)]
    return {"record": json.dumps(record, ensure_ascii=False), "files": json.dumps(lengths), "bytes": b"".join(contents)}


class PackedImages(Source):
    """Records from shards, in a folder or an object store.

    Training reads the shards in a new random order in every epoch, and shuffles records among few of them at a time
    (:func:`geopix.data.order.position`); as everywhere, ranks and resumed runs see each sample once.

    Args:
        shards: the folder, or an address such as ``s3://bucket/shards``.
        size: rows and columns of the canvas.
        cache: folder for copies of shards from an object store; litdata's own unless given.
        cache_gb: the most that these copies take.
        bands, low, high, dialogues, seed: as in :class:`geopix.data.instruct.RealImages`.
    """

    def __init__(
        self,
        shards: str,
        size: int,
        *,
        cache: str | None = None,
        cache_gb: int = 25,
        bands: Sequence[int] | None = None,
        low: float | int = 0.0,
        high: float | int | None = None,
        dialogues: int | None = None,
        seed: int = 0,
    ) -> None:
        self.shards, self.size, self.cache, self.cache_gb = shards, size, cache, cache_gb
        self._bands, self.scale = None if bands is None else tuple(bands), Scaling(low, high)
        self.dialogues, self.seed = dialogues, seed

    @cached_property
    def _summary(self) -> dict[str, Any]:
        from litdata.streaming.downloader import get_downloader

        file = Path(self.shards) / SUMMARY
        if "://" in self.shards:
            folder = tempfile.mkdtemp(prefix="geopix-shards-")
            file = Path(folder) / SUMMARY
            get_downloader(self.shards, folder, []).download_file(f"{self.shards.rstrip('/')}/{SUMMARY}", str(file))
        if not file.is_file():
            raise ValueError(f"{self.shards} holds no {SUMMARY}; expected a folder that geopix data pack wrote.")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    @cached_property
    def _stored(self) -> Any:
        size = f"{self.cache_gb}GB"
        return _litdata().StreamingDataset(self.shards, cache_dir=self.cache, shuffle=False, max_cache_size=size)

    @property
    def count(self) -> int:  # type: ignore[override]
        """Records in all shards."""
        return int(self._summary["records"])

    @property
    def title(self) -> str:  # type: ignore[override]
        """File and split that were packed, number of records and size."""
        return f"{self._summary['title']}, {self.count} images at {self.size} px"

    @property
    def identity(self) -> str:
        """Title, where the shards are, and all that they are read with."""
        return f"{self.title}; {self.shards}, bands {self._bands}, {self.scale}, dialogues {self.dialogues}, seed {self.seed}; {self._summary['shards']}"

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """The tasks of all records."""
        return frozenset(self._summary["tasks"])

    @property
    def blocks(self) -> Sequence[int]:  # type: ignore[override]
        """Records in each shard."""
        shards: list[int] = self._summary["shards"]
        return shards

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Image bands of every sample; the first record tells."""
        if self._bands is not None:
            return len(self._bands)
        with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as folder:
            record, files = self._read(0, Path(folder))
            return image_size(files[record["image"]])[0]

    def having(self, mix: Mapping[str, float]) -> Sequence[int]:
        """See :meth:`geopix.data.source.Source.having`."""
        wanted = {number for number, kind in enumerate(self._summary["tasks"]) if weight_for(mix, kind) > 0}
        return np.flatnonzero([not wanted.isdisjoint(own) for own in self._summary["tasks_of"]]).tolist()

    def check(self) -> None:
        """Read the summary and the first record.

        Raises:
            ValueError: when the shards are not there or their first record cannot be read.
        """
        if not self.count:
            raise ValueError(f"{self.shards} holds no record.")
        self.sample(0)

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """One record; see :meth:`geopix.data.instruct.RealImages.sample`."""
        with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as folder:
            record, files = self._read(index, Path(folder))
            keep = choose_dialogues(tasks_of(record), mix, self.dialogues, draw_seed(self.seed, index, epoch), f"record {index} in {self.shards}")
            return sample_of(record, files.__getitem__, self.size, self._bands, self.scale, truth, keep)

    def _read(self, index: int, folder: Path) -> tuple[Record, dict[str, Path]]:
        """A record, and its files as they were, under other names."""
        # A slice fetches whole shards and keeps them; a number alone asks an object store for bytes that shards in Arrow's form do not have (litdata 0.2.76).
        (item,) = self._stored[index : index + 1]
        files, start = {}, 0
        for number, (name, length) in enumerate(json.loads(item["files"])):
            files[name] = folder / f"{number}{Path(name).suffix}"
            files[name].write_bytes(item["bytes"][start : start + length])
            start += length
        record: Record = json.loads(item["record"])
        return record, files


def _litdata() -> Any:
    try:
        import litdata
    except ImportError as error:
        raise ValueError("shards need litdata, which is not installed; pip install 'geopix[streaming]'.") from error
    return litdata


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("geopix data pack", description="A JSONL and its files as shards for streaming.", allow_abbrev=False)
    parser.add_argument("records", type=Path, help="the JSONL")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--root", type=Path, help="folder that the paths in the records start from")
    parser.add_argument("--split", help="only the records of this split")
    parser.add_argument("--shard_mb", type=int, default=64, help="size of a shard in MB")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    given = parser.parse_args(arguments)
    count = pack(given.records, given.out, root=given.root, split=given.split, shard_mb=given.shard_mb, workers=given.workers)
    print(f"{count} records in {given.out}")
    return 0
