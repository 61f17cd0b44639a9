"""Captions: UCM, Sydney and RSICD in Karpathy's form, and NWPU.

In training every different caption of a picture is a dialogue; elsewhere there is one question per picture. All captions stand in its ``references``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, first_of, grouped, read_json, read_lines
from geopix.data.sources.pieces import open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import captions
from geopix.types import SEG

Split = Literal["train", "val", "test"]
Captioned = tuple[str, str, list[str]]
"""File name, split, captions."""

_FOLDERS = ("imgs", "images", "Images", "RSICD_images", "NWPU_images", ".")
_PROTOCOL = "BLEU-1 to 4, METEOR, ROUGE-L and CIDEr over all references (pycocoevalcap); words here as docs/metrics.md says"


@dataclass(frozen=True)
class UCMCaptions(Reader):
    """UCM-Captions. Layout: ``dataset.json`` (or ``dataset_UCM.json``) and ``imgs/`` (or ``images/``).

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Split = "train"

    about = About(
        name="UCM-Captions",
        publication="Qu et al., CITS 2016; 201528014227051/RSICD_optimal",
        licence="not stated",
        protocol=_PROTOCOL,
        splits={"train": 1680, "val": 210, "test": 210},
        uncertain=("573 of 1,050 test captions stand word for word in train.", "448 pictures repeat a caption; repetitions stay among the references."),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        yield from _records(self, _karpathy(first_of(self.root, ["dataset.json", "dataset_UCM.json", "dataset_ucm.json"], self.about.name), report), report)


@dataclass(frozen=True)
class SydneyCaptions(Reader):
    """Sydney-Captions. Layout: ``dataset.json`` (or ``dataset_Sydney.json``), or the older ``filenames/`` with ``descriptions_SYDNEY.txt`` and
    ``filenames_SPLIT.txt``; pictures in ``imgs/`` (or ``images/``).

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Split = "train"

    about = About(
        name="Sydney-Captions",
        publication="Qu et al., CITS 2016; 201528014227051/RSICD_optimal",
        licence="not stated",
        protocol=_PROTOCOL,
        splits={"train": 497, "val": 58, "test": 58},
        uncertain=("The JSON form was seen in UCM's file only; the text form was seen.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        names = ["dataset.json", "dataset_Sydney.json", "dataset_sydney.json", "filenames"]
        path = first_of(self.root, names, self.about.name)
        yield from _records(self, _text_form(path, report) if path.is_dir() else _karpathy(path, report), report)


@dataclass(frozen=True)
class RSICD(Reader):
    """RSICD. Layout: ``dataset_rsicd.json`` and ``RSICD_images/`` (or ``images/``).

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Split = "train"

    about = About(
        name="RSICD",
        publication="arXiv 1712.07835; 201528014227051/RSICD_optimal",
        licence="not stated",
        protocol=_PROTOCOL,
        splits={"train": 8734, "val": 1094, "test": 1093},
        uncertain=(
            "Five captions per picture were reached by copying: many have one to four different ones.",
            "The JSON itself could not be read; its fields are those that loaders use.",
            "A COCO conversion in circulation has another split (8,736 / 1,092 / 1,093), which must not be mixed with this one.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        yield from _records(self, _karpathy(first_of(self.root, ["dataset_rsicd.json", "dataset_RSICD.json"], self.about.name), report), report)


@dataclass(frozen=True)
class NWPUCaptions(Reader):
    """NWPU-Captions. Layout: ``dataset_nwpu.json`` and ``NWPU_images/CLASS/FILE``.

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Split = "train"

    about = About(
        name="NWPU-Captions",
        publication="Cheng et al., TGRS 2022; HaiyanHuang98/NWPU-Captions",
        licence="not stated",
        protocol=_PROTOCOL,
        splits={"train": 25200, "val": 3150, "test": 3150},
        uncertain=("The JSON itself could not be read; its fields are those that loaders use.", "The counts per split are from memory of the paper."),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        document = read_json(first_of(self.root, ["dataset_nwpu.json"], self.about.name), report, dict)
        entries = [
            (f"{name}/{entry['filename']}", str(entry["split"]), [str(entry[raw]) for raw in ("raw", *(f"raw_{n}" for n in range(1, 10))) if raw in entry])
            for name, listed in document.items()
            for entry in listed
        ]
        yield from _records(self, entries, report)


def _karpathy(path: Path, report: Report) -> list[Captioned]:
    document = read_json(path, report, dict)
    if not isinstance(document.get("images"), list):
        raise ValueError(f"{path}: expected a list 'images', found the fields {sorted(document)[:8]}.")
    return [(str(one["filename"]), str(one["split"]), [str(each.get("raw", "")) for each in one["sentences"]]) for one in document["images"]]


def _text_form(folder: Path, report: Report) -> list[Captioned]:
    """Lines ``id caption``, and for each split the names of its pictures."""
    path = first_of(folder, ["descriptions_SYDNEY.txt", "descriptions_SIDNEY.txt"], "Sydney-Captions")
    said = grouped((line.partition(" ") for line in read_lines(path, report)), lambda parts: parts[0])
    entries = []
    for split in ("train", "val", "test"):
        names = folder / f"filenames_{split}.txt"
        entries += [(name, split, [text for _, _, text in said.get(Path(name).stem, [])]) for name in (read_lines(names, report) if names.is_file() else [])]
    return entries


def _records(reader: Reader, entries: Iterable[Captioned], report: Report) -> Iterator[Record]:
    wanted = [entry for entry in entries if ("val" if entry[1] == "valid" else entry[1]) == reader.split]
    compare_counts(reader.about, reader.split, len(wanted), report)
    folders = [folder for name in _FOLDERS if (folder := reader.root / name).is_dir()]
    for name, _, raw in wanted:
        found = [path for folder in folders if (path := find_picture(folder, name, report)).is_file()]
        picture = open_picture(found[0] if found else folders[0] / name, report, name)
        if picture is None:
            continue
        texts = [tidy(text) for text in raw]
        kept = [text for text in texts if re.search(r"\w", text) and SEG not in text]
        if len(kept) < len(texts):
            report.note("empty caption")
        if len(set(kept)) < len(kept):
            report.note("picture with a caption repeated")
        if kept:
            key = Path(name).stem
            yield record_of(reader.about, picture, key, reader.split, captions(kept, key, each=reader.split == "train"))
        else:
            report.leave_out("empty text", name, "the picture has no caption with a word in it")


def tidy(text: str) -> str:
    """A caption in one line, with its marks where they are written.

    >>> tidy("There are two tanks , both white .\\r\\n")
    'There are two tanks, both white.'
    """
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))
