"""Dialogues about real images from a JSONL file; ``docs/data.md`` documents the format with an example.

A line is read when its sample is asked for; what is known of the others stands in an index (:mod:`geopix.data.index`), so the file may be larger than memory.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from geopix.data.decode import choose_dialogues, draw_seed, key_of, sample_of
from geopix.data.georeference import place_of
from geopix.data.images import Original, Scaling, check_image, image_size, read_image, read_original
from geopix.data.index import open_index
from geopix.data.instances import InstanceMasks
from geopix.data.order import weight_for
from geopix.data.records import Record
from geopix.data.schema import fault
from geopix.data.source import Source
from geopix.types import Sample

SHOWN = 50
"""Problems that one message lists; the rest are counted."""

Found = TypeVar("Found")


class InstructRecords:
    """Records of a JSONL file as samples: image, dialogues and masks, letterboxed to one size.

    Args:
        path: the JSONL file.
        size: rows and columns of the canvas.
        root: folder that the paths in the records start from; the JSONL's own folder unless given.
        split: keep only the records whose ``split`` is this.
        bands: numbers of the image bands to read, the first being 1; all but alpha unless given.
        low, high: the stored values that mean 0 and 1, see :class:`geopix.data.images.Scaling`; only 8-bit images do without.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is a git-lfs pointer or something else that is no text.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: int,
        root: str | Path | None = None,
        split: str | None = None,
        bands: Sequence[int] | None = None,
        low: float | int = 0.0,
        high: float | int | None = None,
    ) -> None:
        self.path = Path(path)
        self.root = Path(root) if root is not None else self.path.parent
        self.size = size
        self.split = split
        self.bands = None if bands is None else tuple(bands)
        self.scale = Scaling(low, high)
        if not self.path.is_file():
            raise FileNotFoundError(f"the records {self.path} do not exist. Expected a JSONL file, one record per line (docs/data.md).")
        self._index = open_index(self.path)
        self._rows = None if split is None else self._index.of_split(split)

    def __len__(self) -> int:
        return len(self._index if self._rows is None else self._rows)

    def _row(self, index: int) -> int:
        """Where a record of the split stands among those of the file."""
        return index if self._rows is None else int(self._rows[index])

    def line(self, index: int) -> int:
        """The line of the record at ``index``, from 1."""
        return int(self._index.lines[self._row(index)])

    def sample(self, index: int, with_truth: bool, keep: Sequence[int] | None = None) -> Sample:
        """The record at ``index``, letterboxed; with ``truth`` and ``unions`` at the image's own size when asked for.

        Args:
            index: below the length.
            with_truth: also give the masks at the image's own size.
            keep: positions of the dialogues to give, in this order; all unless given.

        Raises:
            FileNotFoundError, ValueError: when the record or its files are not what they should be; :meth:`check` finds this before training.
        """
        return sample_of(self.record(index), self.locate, self.size, self.bands, self.scale, with_truth, keep)

    def tasks(self, index: int) -> tuple[str, ...]:
        """The task of each dialogue of the record at ``index``, without reading it."""
        return self._index.tasks_of(self._row(index))

    def task_counts(self) -> Counter[str]:
        """Dialogues of all records by task, without reading them."""
        return self._index.task_counts(self._rows)

    def having(self, mix: Mapping[str, float]) -> Sequence[int] | None:
        """Positions of the records with a dialogue that a mix allows, ascending; None where all have one."""
        allowed = self._index.allowed(lambda task: weight_for(mix, task) > 0)
        allowed = allowed if self._rows is None else allowed[self._rows]
        return None if allowed.all() else array("I", np.flatnonzero(allowed).astype(np.uint32).tobytes())

    def original(self, key: str) -> Original:
        """The image with this key at its own size, as it stands in its file.

        Raises:
            KeyError: when no record has the key.
        """
        for index in self.positions(key):
            record = self.record(index)
            return read_original(self.locate(record["image"]), self.bands, self.scale, record.get("window"))
        raise KeyError(f"no record of {self.path} has the key {key!r}.")

    def positions(self, key: str) -> list[int]:
        """The records with this key: one, unless the file is wrong."""
        rows = self._index.rows_of_key(key)
        if self._rows is not None:
            rows = np.flatnonzero(np.isin(self._rows, rows)).tolist()
        return [index for index in rows if key_of(self.record(index)) == key]

    def num_bands(self) -> int:
        """Bands of every image, taken from the first record."""
        return len(self.bands) if self.bands is not None else image_size(self.locate(self.record(0)["image"]))[0]

    def check(self, limit: int | None = 1000, whole: int = 50) -> None:
        """Looks at the first records before any training. What it leaves unread is told when it is read.

        Args:
            limit: how many records are looked at: their form, the headers of their images, and whether masks have the image's size and pixels; None for all.
            whole: how many of them are read as training reads them, with all pixels.

        Raises:
            ValueError: one message that lists the problems of all of them: each with its line, its key, what was found and what was expected.
        """
        if not len(self):
            splits = {str(name): count for name, count in self._index.split_counts().items()}
            wanted = "" if self.split is None else f" with split={self.split!r}; found splits {splits}"
            raise ValueError(f"{self.path}: 0 records{wanted}. {'Name one of these.' if splits else 'The file holds no line.'}")
        problems: list[str] = []
        keys: dict[str, int] = {}
        bands: dict[int, str] = {}
        for index in range(len(self) if limit is None else min(limit, len(self))):
            where = f"line {self.line(index)}"
            record = _attempt(partial(self.record, index), where, problems)
            if record is None:
                continue
            key = key_of(record)
            if key in keys:
                problems.append(f"{where}: the key {key!r} was given to line {keys[key]} already; keys name samples and must differ.")
            keys.setdefault(key, self.line(index))
            found = self._check_record(record, f"{where}, {key}", problems, whole=index < whole)
            bands.setdefault(found, key)
        bands.pop(0, None)
        if len(bands) > 1:
            counts = ", ".join(f"{count} ({key})" for count, key in bands.items())
            problems.append(f"images have different numbers of bands: {counts}. Name the bands to read, such as bands=[1, 2, 3].")
        if problems:
            more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise ValueError(f"{self.path}: {len(problems)} problem(s) in the first {index + 1} records\n  " + "\n  ".join(problems[:SHOWN]) + more)

    def _check_record(self, record: dict[str, Any], where: str, problems: list[str], *, whole: bool) -> int:
        """Adds the record's problems; returns the number of bands that reading its image gives, 0 where it cannot be read."""
        if wrong := fault(record):
            problems.append(f"{where}: {wrong}; docs/data.md shows a whole record.")
            return 0
        image = self.locate(record["image"]), self.bands, self.scale, record.get("window")
        size = _attempt(lambda: read_image(*image)[0].shape if whole else check_image(*image), where, problems)
        if size is None:
            return 0
        bands, height, width = size
        _attempt(partial(place_of, record, None), where, problems)
        reader = _attempt(lambda: InstanceMasks(record, self.locate, height, width), where, problems)
        if reader is not None:
            for number, entry in enumerate(record.get("dialogues", [])):
                _attempt(partial(reader.dialogue if whole else reader.check, entry), f"{where}, dialogue {number}", problems)
        if not record.get("dialogues"):
            problems.append(f"{where}: no dialogues; expected at least one, each with turns.")
        return bands

    def record(self, index: int) -> Record:
        """The record at ``index``, as it is written.

        Raises:
            ValueError: when its line is no record.
        """
        return self._read(self._row(index))

    def _read(self, row: int) -> Record:
        with self.path.open("rb") as file:
            file.seek(int(self._index.offsets[row]))
            line = file.readline()
        where = f"{self.path}, line {self._index.lines[row]}"
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{where} is not valid JSON ({error}); one record per line.") from error
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            found = f"the fields {sorted(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
            raise ValueError(f"{where}: expected an object with a path in 'image', found {found}.")
        return record

    def locate(self, path: str) -> Path:
        """The file that a path in a record stands for."""
        return self.root / path


class RealImages(Source):
    """Records as a source of the data module.

    Args:
        path, size, root, split, bands, low, high: see :class:`InstructRecords`.
        dialogues: at most this many of an image's dialogues, drawn by the task mix; all of them unless given.
        seed: of that draw.
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 128,
        *,
        root: str | Path | None = None,
        split: str | None = None,
        bands: Sequence[int] | None = None,
        low: float | int = 0.0,
        high: float | int | None = None,
        dialogues: int | None = None,
        seed: int = 0,
    ) -> None:
        self._open = partial(InstructRecords, path, size=size, root=root, split=split, bands=bands, low=low, high=high)
        self._called = f"{Path(path).name}{'' if split is None else f' {split}'}", f"at {size} px"
        self.dialogues, self.seed = dialogues, seed

    @cached_property
    def records(self) -> InstructRecords:
        """The records, opened when first needed: a verb does without the files of sources that it does not read."""
        return self._open()

    @property
    def count(self) -> int:  # type: ignore[override]
        """Images of the split."""
        return len(self.records)

    @cached_property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """Every task of the dialogues."""
        return frozenset(self.records.task_counts())

    def having(self, mix: Mapping[str, float]) -> Sequence[int] | None:
        """Positions of the images that have a dialogue which the mix allows; None where every image has one."""
        return self._having(tuple(sorted(mix.items())))

    @lru_cache(maxsize=8)  # noqa: B019 (a source lives as long as its process)
    def _having(self, mix: tuple[tuple[str, float], ...]) -> Sequence[int] | None:
        return self.records.having(dict(mix))

    @property
    def title(self) -> str:  # type: ignore[override]
        """File, split, number of images and size."""
        return f"{self._called[0]}, {self.count} images {self._called[1]}"

    @property
    def identity(self) -> str:
        """Title, the file with its length and time, and all that it is read with."""
        path = self.records.path
        state = path.stat()
        read = {**self._open.keywords, "dialogues": self.dialogues, "seed": self.seed}
        return f"{self.title}; {path.resolve()} {state.st_size} {state.st_mtime_ns}; {read}"

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Image bands of every sample; the first file tells."""
        return self.records.num_bands()

    def check(self) -> None:
        """See :meth:`InstructRecords.check`."""
        self.records.check()

    def original(self, key: str) -> Original:
        """See :meth:`InstructRecords.original`."""
        return self.records.original(key)

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """One image with its dialogues. A task that the mix does not name or gives the weight 0 is left out.

        Raises:
            ValueError: when the mix leaves none of the image's dialogues.
        """
        if mix is None and self.dialogues is None:
            return self.records.sample(index, truth)
        where = f"record {index} in {self.records.path}"
        return self.records.sample(index, truth, choose_dialogues(self.records.tasks(index), mix, self.dialogues, draw_seed(self.seed, index, epoch), where))


def _attempt(step: Callable[[], Found], where: str, problems: list[str]) -> Found | None:
    """The result of one step of reading, or None with its complaint added to the list."""
    try:
        return step()
    except (ValueError, FileNotFoundError) as error:
        problems.append(f"{where}: {error}")
    except (KeyError, TypeError, AttributeError) as error:
        problems.append(f"{where}: a field is missing or of another kind ({type(error).__name__}: {error}); docs/data.md shows a whole record.")
    return None
