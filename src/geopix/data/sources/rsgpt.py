"""RSICap and RSIEval: long captions of patches of DOTA, and questions about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, first_of, grouped, read_json
from geopix.data.sources.pieces import open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import Talk, captions, question

_LICENCE = "academic use; pictures of DOTA (academic use)"


@dataclass(frozen=True)
class RSICap(Reader):
    """One detailed caption per picture. Layout: ``captions.json`` and ``images/``.

    Args:
        root: the folder that holds them (``dataset/RSICap``).
        split: what the records are told to be part of.
    """

    root: Path
    split: str | None = "train"

    about = About(
        name="RSICap",
        publication="arXiv 2307.15266; Lavender105/RSGPT",
        licence=_LICENCE,
        protocol="training only; see RSIEval",
        splits={"train": 2585},
        uncertain=("Unused and duplicate pictures exist in its folder.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        yield from _records(self, "captions.json", report)


@dataclass(frozen=True)
class RSIEval(Reader):
    """A detailed caption and questions per picture. Layout: ``annotations.json`` and ``images/``.

    Args:
        root: the folder that holds them (``dataset/RSIEval``).
        split: what the records are told to be part of.
    """

    root: Path
    split: str | None = "test"

    about = About(
        name="RSIEval",
        publication="arXiv 2307.15266; Lavender105/RSGPT",
        licence=_LICENCE,
        protocol="captions BLEU, METEOR, ROUGE-L, CIDEr; answers judged by people or GPT in the paper, here exact match",
        splits={"test": 100},
        uncertain=("936 questions are published; answers vary in case and final full stop.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        yield from _records(self, "annotations.json", report)


def _records(reader: Reader, name: str, report: Report) -> Iterator[Record]:
    path = first_of(reader.root, [name], reader.about.name)
    document = read_json(path, report, dict)
    if not isinstance(document.get("annotations"), list):
        raise ValueError(f"{path}: expected a list 'annotations', found the fields {sorted(document)[:8]}.")
    by_picture = grouped(document["annotations"], lambda entry: str(entry.get("filename", "")))
    compare_counts(reader.about, reader.split, len(by_picture), report)
    for file, entries in by_picture.items():
        picture = open_picture(find_picture(reader.root / "images", file, report), report, file)
        if picture is None:
            continue
        key = Path(file).stem
        texts = [said for entry in entries if (said := " ".join(str(entry.get("caption", entry.get("text_output", ""))).split()))]
        talks: list[Talk] = captions(texts, key, each=reader.split == "train", kind="detailed") if texts else []
        for asked in (each for entry in entries for each in entry.get("qa_pairs", [])):
            talks += _asked(asked, file, report)
        if talks:
            yield record_of(reader.about, picture, key, reader.split, talks)
        else:
            report.leave_out("empty text", file, "no caption and no answered question")


def _asked(asked: dict[str, Any], file: str, report: Report) -> list[Talk]:
    text, answer = str(asked.get("question", "")), str(asked.get("answer", "")).strip()
    if text.strip() and answer:
        return [question(str(asked.get("type", "")), text, answer)]
    report.leave_out("question without an answer" if text.strip() else "empty text", file, f"{text[:60]!r} is answered by {answer[:60]!r}")
    return []
