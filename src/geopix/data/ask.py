"""Questions about images that nobody has answered yet: what ``geopix predict`` reads."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from geopix.data.frame import letterbox
from geopix.data.georeference import place_of
from geopix.data.images import Original, Scaling, check_image, describe, image_size, read_original
from geopix.data.records import Record
from geopix.data.schema import PATH as SCHEMA
from geopix.data.schema import fault
from geopix.data.source import Source
from geopix.types import SEG, Dialogue, Sample, Turn

LOG = logging.getLogger(__name__)

Task = Literal["segment", "refer", "caption", "vqa"]
Talks = tuple[tuple[str, ...], ...]
"""Dialogues as their prompts, turn after turn."""

TAG = re.compile(r"\s*\[(segment|refer|caption|vqa)\]")
"""What a prompt begins with, in the data that geopix trains on, to say which kind of answer is wanted."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gtiff", ".jp2", ".webp", ".bmp")
"""What is taken for an image in a folder; a file that is named by itself may have any name."""

FIELDS = ("image", "prompts", "key", "window", "georeference")
"""What a line of a JSONL may say to be asked; other fields of records, such as dialogues, are passed over."""

KNOWN = frozenset(json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]) | {"prompts"}

SHOWN = 50
"""Problems that one message lists; the rest are counted."""

READ = 200
"""Images that :meth:`Ask.check` reads whole; of the rest it reads the header."""

MUCH = 8
"""How many times an image may be reduced before a warning says what vanishes."""


@dataclass(frozen=True)
class Asked:
    """An image and what is asked about it.

    Args:
        names: names that the image may go by, the shortest first; the first that is its alone becomes its key.
        record: what a JSONL says of the image itself.
    """

    path: Path
    talks: Talks
    names: tuple[str, ...]
    record: Record = field(default_factory=dict)


class Ask(Source):
    """Images of any size with questions about them, for ``geopix predict``.

    Every prompt is a dialogue of its own about every image. Where images need questions of their own, or a second turn, name them in a JSONL file,
    one image per line, its path starting from the file's folder; a line without ``prompts`` is asked the common ones:

        {"image": "harbour.tif", "prompts": ["[segment] where are the ships?", ["[vqa] is there a bridge?", "[segment] and where is it?"]]}

    ``key``, ``window`` and ``georeference`` in a line mean what they mean in a record (``docs/data.md``); a warning names fields that nothing reads.

    Args:
        images: files, folders of images, or JSONL files, one or several.
        prompts: what is asked about every image that has no prompts of its own.
        size: rows and columns of the canvas that an image is letterboxed to; the size that the model was trained at. On the command line it is that of the
            configuration's other data unless given.
        task: put in front of a prompt that does not begin with a task's tag, as ``[segment]``, because the shipped models were trained with it;
            null leaves prompts as they are.
        bands: numbers of the image bands to read, the first being 1; all but alpha unless given.
        low, high: the stored values that mean 0 and 1, see :class:`geopix.data.images.Scaling`; only 8-bit images do without.
        recursive: also look for images in the folders inside a folder.

    Raises:
        ValueError: when first used, with all problems at once: files and folders that do not exist, folders without images, lines that cannot be read,
            images without prompts or named twice, prompts that are empty or hold ``[SEG]``.
    """

    def __init__(
        self,
        images: list[Path] | Path,
        prompts: list[str] | str | None = None,
        size: int | None = None,
        *,
        task: Task | None = "segment",
        bands: list[int] | None = None,
        low: float | int = 0.0,
        high: float | int | None = None,
        recursive: bool = False,
    ) -> None:
        self._size, self.task, self.recursive = size, task, recursive
        self.scale, self._bands = Scaling(low, high), bands
        self._prompts = [prompts] if isinstance(prompts, str) else prompts or []
        self._paths = [Path(images)] if isinstance(images, (str, Path)) else [Path(path) for path in images]

    @property
    def size(self) -> int:
        """Rows and columns of the canvas.

        Raises:
            ValueError: when nobody has said it.
        """
        if self._size is None:
            raise ValueError("the size that the model was trained at is not known: give size, on the command line --data.predict.size.")
        return self._size

    @cached_property
    def _asked(self) -> dict[str, Asked]:
        """What is asked by key, found when first needed: a verb does without the files of sources that it does not read."""
        problems: list[str] = []
        common = _dialogues(self._prompts, self.task, "prompts", problems)
        if not self._paths:
            problems.append("no image to ask about: images is empty. Name files, folders or a JSONL file.")
        found = [asked for path in self._paths for asked in self._find(path, common, problems)]
        unasked = [asked.path for asked in found if not asked.talks]
        if unasked and not problems:
            problems.append(f"{len(unasked)} image(s) have no prompts, such as {unasked[0]}. Give prompts, such as prompts=['where are the ships?'].")
        keyed = _by_key(found, problems)
        if problems:
            raise ValueError(f"{len(problems)} problem(s) with what is to be asked\n  " + _list(problems))
        return keyed

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        return tuple(self._asked)

    @property
    def count(self) -> int:  # type: ignore[override]
        """Images to ask about."""
        return len(self._asked)

    @property
    def title(self) -> str:  # type: ignore[override]
        """Numbers of questions and images, and the size."""
        return f"{sum(len(asked.talks) for asked in self._asked.values())} questions about {self.count} images at {self.size} px"

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Image bands of every sample; the first file tells."""
        return len(self._bands) if self._bands is not None else image_size(self._asked[self._keys[0]].path)[0]

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """An image with its questions; a task mix has no meaning here.

        Raises:
            ValueError: when truth is asked for, which nobody knows.
        """
        if truth:
            raise ValueError(f"{type(self).__name__} holds questions without answers, so nothing can be scored by it; it is a source for data.predict alone.")
        key = self._keys[index]
        original = self.original(key)
        image, frame = letterbox(torch.from_numpy(original.values), self.size)
        dialogues = tuple(Dialogue(tuple(map(Turn, talk)), task=_family(talk)) for talk in self._asked[key].talks)
        return Sample(image, dialogues, key, frame, georeference=original.georeference)

    def original(self, key: str) -> Original:
        """An image at its own size, as it stands in its file."""
        asked = self._asked[key]
        original = read_original(asked.path, self._bands, self.scale, asked.record.get("window"))
        return replace(original, georeference=place_of(asked.record, original.georeference))

    def check(self) -> None:
        """Reads the images, of many only the first 200 whole, and says when much of them vanishes in the canvas.

        Raises:
            ValueError: one message that lists those that cannot be read or have other bands than the first.
        """
        problems: list[str] = []
        bands: dict[int, Path] = {}
        sizes: list[tuple[int, int, Path]] = []
        for number, (key, asked) in enumerate(self._asked.items()):
            try:
                shape = self.original(key).values.shape if number < READ else check_image(asked.path, self._bands, self.scale, asked.record.get("window"))
            except (ValueError, FileNotFoundError) as error:
                problems.append(str(error))
                continue
            bands.setdefault(shape[0], asked.path)
            sizes.append((shape[1], shape[2], asked.path))
        if len(bands) > 1:
            counts = ", ".join(f"{count} ({path})" for count, path in bands.items())
            problems.append(f"images have different numbers of bands: {counts}. Name the bands to read, such as bands=[1, 2, 3].")
        if problems:
            raise ValueError(f"{len(problems)} problem(s) in {self.count} images to ask about\n  " + _list(problems))
        large = [size for size in sizes if max(size[:2]) > MUCH * self.size]
        if large:
            height, width, path = max(large, key=lambda size: max(size[:2]))
            LOG.warning(
                "%d of %d images are more than %d times larger than the %d px that the model sees (%s: %d x %d, where one of its pixels covers %d): "
                "small things vanish. Cut such images into tiles.",
                len(large), len(sizes), MUCH, self.size, path, height, width, round(max(height, width) / self.size),
            )  # fmt: skip

    def _find(self, path: Path, common: Talks, problems: list[str]) -> Iterator[Asked]:
        """The images that a path stands for."""
        if path.is_dir():
            files = sorted(file for file in (path.rglob("*") if self.recursive else path.iterdir()) if _is_image(file))
            if not files:
                deeper = 0 if self.recursive else sum(map(_is_image, path.rglob("*")))
                hint = f" The folders inside it hold {deeper}; say recursive=true." if deeper else ""
                problems.append(f"the folder {path} holds no image (looked for {' '.join(SUFFIXES)}).{hint}")
            for file in files:
                within = file.relative_to(path)
                yield Asked(file, common, (within.with_suffix("").as_posix(), within.as_posix(), file.as_posix()))
        elif not path.is_file():
            problems.append(f"{path} does not exist{'' if path.parent.is_dir() else f' (nor does its folder {path.parent})'}; expected an image or a folder.")
        elif path.suffix.lower() == ".jsonl":
            yield from self._find_lines(path, common, problems)
        else:
            yield Asked(path, common, (path.stem, path.name, path.as_posix()))

    def _find_lines(self, path: Path, common: Talks, problems: list[str]) -> Iterator[Asked]:
        """The images that a JSONL file names."""
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            problems.append(f"{path} is no JSONL: {describe(path)}.")
            return
        if not any(line.strip() for line in lines):
            problems.append(f"{path} names no image: the file holds no line.")
        unread: Counter[str] = Counter()
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                problems.append(f"{where} is not valid JSON ({error}); one image per line. It begins with {line[:40]!r}.")
                continue
            asked = self._from_record(record, path.parent, common, where, problems)
            if asked is not None:
                unread.update(set(record) - KNOWN)
                yield asked
        if unread:
            LOG.warning("%s holds fields that nothing reads (with the number of lines): %s. A line may hold %s.", path, dict(unread), ", ".join(FIELDS))

    def _from_record(self, record: Any, root: Path, common: Talks, where: str, problems: list[str]) -> Asked | None:
        if not isinstance(record, dict) or not isinstance(record.get("image"), str) or not isinstance(record.get("prompts", []), list):
            found = f"the fields {sorted(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
            problems.append(f"{where}: expected an object with a path in 'image' and a list in 'prompts', found {found}.")
            return None
        said = {name: record[name] for name in FIELDS if name in record}
        if wrong := fault(said):
            problems.append(f"{where}: {wrong}.")
            return None
        file = root / record["image"]
        if not file.is_file():
            problems.append(f"{where}: the image {file} does not exist.")
            return None
        if "dialogues" in record and "prompts" not in record and not common:
            problems.append(f"{where}: no prompts, but dialogues: such a file is read by geopix.data.instruct.RealImages. Or give prompts for all images.")
            return None
        talks = _dialogues(record["prompts"], self.task, f"{where}, prompts", problems) if record.get("prompts") else common
        part = "".join(f"_{each}" for each in record.get("window") or ())
        names = (record["key"],) if "key" in record else tuple(name + part for name in (file.stem, file.name, file.as_posix()))
        return Asked(file, talks, names, said)


def _list(problems: Sequence[str]) -> str:
    return "\n  ".join([*problems[:SHOWN], *([f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _dialogues(prompts: Sequence[Any], task: Task | None, where: str, problems: list[str]) -> Talks:
    """Each prompt, or list of prompts, as a dialogue with its tags."""
    talks = []
    for number, entry in enumerate(prompts):
        turns = [entry] if isinstance(entry, str) else entry
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            problems.append(f"{where}[{number}]: expected a text, or in a JSONL file a list of texts, one per turn; found {entry!r}.")
        elif any(SEG in turn for turn in turns):
            problems.append(f"{where}[{number}]: a prompt must not contain {SEG}, which only an answer writes; found {entry!r}. Say what to segment in words.")
        else:
            talks.append(tuple(turn if task is None or TAG.match(turn) else f"[{task}] {turn.strip()}" for turn in turns))
    return tuple(talks)


def _family(talk: Sequence[str]) -> str:
    """The task of a dialogue: what its last turn asks for."""
    tag = TAG.match(talk[-1])
    return f"{tag[1] if tag else 'segment'}/asked"


def _by_key(found: Sequence[Asked], problems: list[str]) -> dict[str, Asked]:
    """Each image under the shortest of its names that no other has."""
    left = list(found)
    keyed: dict[str, Asked] = {}
    for level in range(max((len(asked.names) for asked in found), default=0)):
        names = Counter(asked.names[min(level, len(asked.names) - 1)] for asked in left)
        names.update(keyed.keys())
        rest = []
        for asked in left:
            name = asked.names[min(level, len(asked.names) - 1)]
            if names[name] == 1:
                keyed[name] = asked
            else:
                rest.append(asked)
        left = rest
    for name, times in Counter(asked.names[-1] for asked in left).items():
        problems.append(f"{name} is named {max(times, 2)} times; name each image once, with all its prompts, and give each key once.")
    order = {id(asked): number for number, asked in enumerate(found)}
    return dict(sorted(keyed.items(), key=lambda item: order[id(item[1])]))
