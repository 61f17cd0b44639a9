"""Dialogues about real images from a JSONL file; ``docs/data.md`` documents the format with an example.

A line is read when its sample is asked for; only the position of each line is kept, so the file may be larger than memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32

from geopix.data.frame import letterbox, letterbox_masks
from geopix.data.images import Scaling, describe, image_size, read_image
from geopix.data.instances import InstanceMasks
from geopix.data.source import Source
from geopix.rle import encode_rle
from geopix.types import Dialogue, Sample

DEFAULT_TASK = "segment/single"
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
        self._splits: Counter[str] = Counter()
        self._positions: dict[str, int] = {}
        self._offsets, self._lines = self._find_lines()

    def __len__(self) -> int:
        return len(self._offsets)

    def sample(self, index: int, with_truth: bool, keep: Sequence[int] | None = None) -> Sample:
        """The record at ``index``, letterboxed; with ``truth`` and ``unions`` at the image's own size when asked for.

        Args:
            index: below the length.
            with_truth: also give the masks at the image's own size.
            keep: positions of the dialogues to give, in this order; all unless given.

        Raises:
            FileNotFoundError, ValueError: when the record or its files are not what they should be; :meth:`check` finds this before training.
        """
        record = self._record(index)
        values, georeference = read_image(self._locate(record["image"]), self.bands, self.scale)
        image, frame = letterbox(torch.from_numpy(values), self.size)
        reader = InstanceMasks(record, self._locate, frame.height, frame.width)
        entries = record.get("dialogues", [])
        entries = entries if keep is None else [entries[number] for number in keep]
        dialogues, truth = [], []
        for entry in entries:
            turns, masks, classes = reader.dialogue(entry)
            dialogues.append(Dialogue(turns, letterbox_masks(masks, frame), classes, entry.get("task", DEFAULT_TASK)))
            truth.append(tuple(encode_rle(mask) for mask in masks) if with_truth else ())
        unions = None
        if with_truth and all(name is not None for dialogue in dialogues for name in dialogue.classes):
            unions = tuple(tuple(encode_rle(reader.class_union(ids)) for ids in entry.get("targets", [])) for entry in entries)
        return Sample(
            image, tuple(dialogues), _key(record), frame, truth=tuple(truth) if with_truth else None, unions=unions, georeference=georeference
        )

    def tasks(self, index: int) -> tuple[str, ...]:
        """The task of each dialogue of the record at ``index``."""
        return tuple(entry.get("task", DEFAULT_TASK) for entry in self._record(index).get("dialogues", []))

    def original(self, key: str) -> tuple[Path, Float32[np.ndarray, "c h w"]]:
        """The file of the image with this key, and its values in 0..1 at its own size."""
        if not self._positions:
            self._positions = {_key(self._record(index)): index for index in range(len(self))}
        path = self._locate(self._record(self._positions[key])["image"])
        return path, read_image(path, self.bands, self.scale)[0]

    def num_bands(self) -> int:
        """Bands of every image, taken from the first record."""
        return len(self.bands) if self.bands is not None else image_size(self._locate(self._record(0)["image"]))[0]

    def check(self, limit: int | None = 1000) -> None:
        """Reads the first records with all the masks that they use, before any training.

        Args:
            limit: how many records; None for all.

        Raises:
            ValueError: one message that lists the problems of all of them: each with its line, its key, what was found and what was expected.
        """
        if not len(self):
            wanted = "" if self.split is None else f" with split={self.split!r}; found splits {dict(self._splits)}"
            raise ValueError(f"{self.path}: 0 records{wanted}. {'Name one of these.' if self._splits else 'The file holds no line.'}")
        problems: list[str] = []
        keys: dict[str, int] = {}
        bands: dict[int, str] = {}
        for index in range(len(self) if limit is None else min(limit, len(self))):
            where = f"line {self._lines[index]}"
            record = _attempt(partial(self._record, index), where, problems)
            if record is None:
                continue
            key = _key(record)
            if key in keys:
                problems.append(f"{where}: the key {key!r} was given to line {keys[key]} already; keys name samples and must differ.")
            keys.setdefault(key, self._lines[index])
            found = self._check_record(record, f"{where}, {key}", problems)
            bands.setdefault(found, key)
        bands.pop(0, None)
        if len(bands) > 1:
            counts = ", ".join(f"{count} ({key})" for count, key in bands.items())
            problems.append(f"images have different numbers of bands: {counts}. Name the bands to read, such as bands=[1, 2, 3].")
        if problems:
            more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise ValueError(f"{self.path}: {len(problems)} problem(s) in the first {index + 1} records\n  " + "\n  ".join(problems[:SHOWN]) + more)

    def _check_record(self, record: dict[str, Any], where: str, problems: list[str]) -> int:
        """Adds the record's problems; returns the number of bands that reading its image gives, 0 where it cannot be read."""
        read = _attempt(lambda: read_image(self._locate(record["image"]), self.bands, self.scale), where, problems)
        if read is None:
            return 0
        bands, height, width = read[0].shape
        reader = _attempt(lambda: InstanceMasks(record, self._locate, height, width), where, problems)
        if reader is not None:
            for number, entry in enumerate(record.get("dialogues", [])):
                _attempt(partial(reader.dialogue, entry), f"{where}, dialogue {number}", problems)
        if not record.get("dialogues"):
            problems.append(f"{where}: no dialogues; expected at least one, each with turns.")
        return int(bands)

    def _find_lines(self) -> tuple[np.ndarray, np.ndarray]:
        """Byte offset and number (from 1) of each line that counts."""
        offsets, numbers, offset = [], [], 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and (line.startswith((b"version https://git-lfs", b"<")) or b"\0" in line):
                    raise ValueError(f"{self.path} is no JSONL: {describe(self.path)}.")
                if line.strip() and self._belongs(line):
                    offsets.append(offset)
                    numbers.append(number)
                offset += len(line)
        return np.array(offsets, dtype=np.int64), np.array(numbers, dtype=np.int64)

    def _belongs(self, line: bytes) -> bool:
        """Whether a line is of the split asked for. One that cannot be read stays, so that check() reports it."""
        if self.split is None:
            return True
        try:
            found = json.loads(line.decode("utf-8-sig"))["split"]
        except (ValueError, TypeError):
            return True
        except KeyError:
            found = None
        self._splits[str(found)] += 1
        return bool(found == self.split)

    def _record(self, index: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[index]))
            line = file.readline()
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{self.path}, line {self._lines[index]} is not valid JSON ({error}); one record per line.") from error
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            found = f"the fields {sorted(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
            raise ValueError(f"{self.path}, line {self._lines[index]}: expected an object with a path in 'image', found {found}.")
        return record

    def _locate(self, path: str) -> Path:
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

    @property
    def title(self) -> str:  # type: ignore[override]
        """File, split, number of images and size."""
        return f"{self._called[0]}, {self.count} images {self._called[1]}"

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Image bands of every sample; the first file tells."""
        return self.records.num_bands()

    def check(self) -> None:
        """See :meth:`InstructRecords.check`."""
        self.records.check()

    def original(self, key: str) -> tuple[Path, Float32[np.ndarray, "c h w"]]:
        """See :meth:`InstructRecords.original`."""
        return self.records.original(key)

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False) -> Sample:
        """One image with its dialogues. A task that the mix does not name or gives the weight 0 is left out.

        Raises:
            ValueError: when the mix leaves none of the image's dialogues.
        """
        if mix is None and self.dialogues is None:
            return self.records.sample(index, truth)
        tasks = self.records.tasks(index)
        weights = np.array([1.0 if mix is None else mix.get(task, mix.get(task.split("/")[0], 0.0)) for task in tasks])
        allowed = int((weights > 0).sum())
        if not allowed:
            where = f"record {index} in {self.records.path}"
            raise ValueError(f"the mix {dict(mix or {})} leaves none of the dialogues of {where}, whose tasks are {sorted(set(tasks))}.")
        drawn = np.random.default_rng([self.seed, index]).choice(len(tasks), min(self.dialogues or allowed, allowed), replace=False, p=weights / weights.sum())
        return self.records.sample(index, truth, sorted(drawn.tolist()))


def _key(record: dict[str, Any]) -> str:
    return str(record.get("key", record["image"]))


def _attempt(step: Callable[[], Found], where: str, problems: list[str]) -> Found | None:
    """The result of one step of reading, or None with its complaint added to the list."""
    try:
        return step()
    except (ValueError, FileNotFoundError) as error:
        problems.append(f"{where}: {error}")
    except (KeyError, TypeError, AttributeError) as error:
        problems.append(f"{where}: a field is missing or of another kind ({type(error).__name__}: {error}); docs/data.md shows a whole record.")
    return None
