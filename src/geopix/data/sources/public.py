"""A public data set as it lies on disk, as a source of the data module."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from inspect import getsourcefile, signature
from pathlib import Path
from typing import Any

from geopix.data.images import Original
from geopix.data.instruct import RealImages
from geopix.data.records import Record, write_records
from geopix.data.source import Source
from geopix.data.sources.files import SUFFIXES
from geopix.data.sources.reader import Reader, Report, from_folder
from geopix.types import Sample

LOG = logging.getLogger(__name__)


class PublicSet(Source):
    """Trains and tests on a public data set without a step in between.

    What the reader gives is written once, see :func:`converted`.

    Args:
        reader: reads the set's own layout.
        size: rows and columns of the canvas.
        cache: folder of the converted files.
        bands, low, high: see :class:`geopix.data.instruct.InstructRecords`.
        dialogues, seed: see :class:`geopix.data.instruct.RealImages`.
    """

    def __init__(
        self,
        reader: Reader,
        size: int = 128,
        *,
        cache: Path = Path("runs/data"),
        bands: Sequence[int] | None = None,
        low: float | int = 0.0,
        high: float | int | None = None,
        dialogues: int | None = None,
        seed: int = 0,
    ) -> None:
        self.reader, self.size, self.cache = reader, size, Path(cache)
        self._read: dict[str, Any] = {"bands": bands, "low": low, "high": high, "dialogues": dialogues, "seed": seed}

    @cached_property
    def images(self) -> RealImages:
        """The converted records, made when first needed."""
        read = self._read
        return RealImages(
            converted(self.reader, self.cache),
            self.size,
            bands=read["bands"],
            low=read["low"],
            high=read["high"],
            dialogues=read["dialogues"],
            seed=read["seed"],
        )

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Image bands of every sample; the first file tells."""
        return self.images.bands

    @property
    def count(self) -> int:  # type: ignore[override]
        """Images of the set."""
        return self.images.count

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """See :class:`geopix.data.source.Source`."""
        return self.images.kinds

    @property
    def title(self) -> str:  # type: ignore[override]
        """The set, what was chosen of it, number of images and size."""
        default = signature(type(self.reader)).parameters
        given = vars(self.reader).items()
        chosen = [f"{name}={value}" for name, value in given if name not in ("root", "split") and value != default[name].default]
        called = " ".join([self.reader.about.name, *([self.reader.split] if self.reader.split else []), *chosen])
        return f"{called}, {self.count} images at {self.size} px"

    @property
    def identity(self) -> str:
        """Title, and what the converted records are read from and with."""
        return f"{self.title}; {self.images.identity}"

    @property
    def remarks(self) -> Sequence[str]:  # type: ignore[override]
        """What the reader said about the set as a whole, such as counts other than those published, and how much it left out."""
        path = self.images.records.path
        said = json.loads(path.with_name(f"{path.stem}.report.json").read_text(encoding="utf-8"))
        left_out = [f"{len(said['quarantine'])} entries of {self.reader.about.name} were left out: {path.stem}.report.json says which and why."]
        return [*said["remarks"], *(left_out if said["quarantine"] else [])]

    def having(self, mix: Mapping[str, float]) -> Sequence[int] | None:
        """See :meth:`geopix.data.source.Source.having`."""
        return self.images.having(mix)

    def check(self) -> None:
        """Converts the set where that was not done yet, then checks the records; see :meth:`geopix.data.instruct.InstructRecords.check`."""
        self.images.check()

    def original(self, key: str) -> Original:
        """See :meth:`geopix.data.instruct.InstructRecords.original`."""
        return self.images.original(key)

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """See :meth:`geopix.data.instruct.RealImages.sample`."""
        return self.images.sample(index, mix, truth=truth, epoch=epoch)


def converted(reader: Reader, folder: Path) -> Path:
    """The records of a reader, written when first asked for.

    They stand in ``FOLDER/READER-SPLIT-HASH.jsonl``; the hash is of the reader's arguments and code, and of the state of the files below its root, so that
    a changed set is read anew. What was left out, and why, stands beside it in ``... .report.json``.

    Raises:
        FileNotFoundError, ValueError: see :func:`convert`; or the root is no folder.
    """
    if not reader.root.is_dir():
        raise FileNotFoundError(
            f"the folder {reader.root} of {reader.about.name} does not exist. Give its place as root of {type(reader).__name__}; "
            "the folder that benchmarks find it in is --benchmark_root."
        )
    digest = hashlib.sha256(repr(sorted(vars(reader).items())).encode())
    for code in (getsourcefile(type(reader)), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(Path(str(code)).read_bytes())
    for state in _states(reader):
        digest.update(state.encode())
    path = folder / f"{type(reader).__name__}-{reader.split or 'all'}-{digest.hexdigest()[:10]}.jsonl"
    if not path.is_file():
        LOG.warning("%s in %s is read once; its records go to %s.", reader.about.name, reader.root, path)
        convert(reader, path)
    return path


def convert(reader: Reader, path: Path) -> Report:
    """Writes what a reader gives to a JSONL, as a whole or not at all, and beside it what was left out.

    Raises:
        FileNotFoundError: when the folder is not laid out as the reader expects.
        ValueError: when a file is not what the format says, or no record comes of the set.
    """
    report = Report()
    part = path.with_name(f"{path.name}.{os.getpid()}")
    count = write_records(part, (from_folder(record, path.parent) for record in _whole(reader, report)))
    if not count:
        part.unlink()
        shown = [f"{entry['where']}: {entry['what']}" for entry in report.quarantine[:5]]
        raise ValueError(f"{reader.about.name} in {reader.root} gives 0 records with {reader}. Counted: {dict(report.counts)}. Such as: {shown}.")
    if report.quarantine:
        LOG.warning("%s: %d entries left out of %s; %s.report.json says which and why.", reader.about.name, len(report.quarantine), path.name, path.stem)
    found = {"records": count, "counts": dict(sorted(report.counts.items())), "remarks": report.remarks, "quarantine": report.quarantine}
    told = part.with_name(f"{part.name}.report")
    told.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    told.replace(path.with_name(f"{path.stem}.report.json"))
    part.replace(path)
    return report


def _whole(reader: Reader, report: Report) -> Iterator[Record]:
    """A reader's records, each under a key that none before has: a number is added where a set names two pictures alike.

    Raises:
        ValueError: when a file has another structure than the reader takes for granted.
    """
    used: set[str] = set()
    records = reader.records(report)
    while True:
        try:
            record = next(records, None)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{reader.root} is not laid out as {reader.about.name}: after {len(used)} records a field is missing or of another kind "
                f"({type(error).__name__}: {error}). Compare its files with the layout that {type(reader).__name__} describes."
            ) from error
        if record is None:
            return
        key, number = record["key"], 1
        while record["key"] in used:
            number += 1
            record["key"] = f"{key}_{number}"
        if number > 1:
            report.note("key given twice")
        used.add(record["key"])
        yield record


def _states(reader: Reader) -> Iterator[str]:
    """What tells that a set has changed: the names of its files, and size and time of each that is no picture."""
    given = {name: reader.root / value for name, value in vars(reader).items() if isinstance(value, Path)}
    for file in sorted(path for path in given.values() if path.is_file()):
        yield _state(file)
    for root in sorted({given[name] for name in ("root", "images") if name in given}):
        for folder, below, names in os.walk(root):
            below.sort()
            yield folder
            for name in sorted(names):
                yield name if Path(name).suffix.lower() in SUFFIXES else _state(Path(folder, name))


def _state(file: Path) -> str:
    found = file.stat()
    return f"{file} {found.st_size} {found.st_mtime_ns}"
