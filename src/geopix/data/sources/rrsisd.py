"""RRSIS-D: one referring expression and one mask per picture of DIOR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, grouped, read_json, read_pickle, require
from geopix.data.sources.names import class_name
from geopix.data.sources.pieces import Picture, expression, from_rle, open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import references


@dataclass(frozen=True)
class RRSISD(Reader):
    """Single references. The stored area is wrong and not used; boxes are ``x1 y1 x2 y2``, whatever the REFER tool says.

    Layout: ``rrsisd/refs(unc).p``, ``rrsisd/instances.json``, ``images/rrsisd/JPEGImages/*.jpg``. The REFER forms of other sets (RISBench) read the same way.

    Args:
        root: the folder that holds ``rrsisd`` and ``images``.
        split: train, val or test.
    """

    root: Path
    split: Literal["train", "val", "test"] = "train"

    about = About(
        name="RRSIS-D",
        publication="arXiv 2312.12470; Lsan2401/RMSIN",
        licence="not stated; pictures of DIOR (CC BY-NC 4.0)",
        protocol="oIoU, mIoU and P@0.5 to 0.9 at 480 px (RMSIN), or cIoU and gIoU at full size (LISA and after)",
        splits={"train": 12181, "val": 1740, "test": 3481},
        counted="dialogues",
        uncertain=(
            "Downloads lack some pictures (17,339 were found where 17,402 are listed).",
            "Two pictures are not 800 x 800 as their masks are; such references are left out.",
            "Its pictures are DIOR's, as are those of DIOR-RSVG, SIOR, GeoPixInstruct and half of VRSBench; its test is no zero-shot test of those.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        refs_path, document_path, pictures = require(self.root, ["rrsisd/refs(unc).p", "rrsisd/instances.json", "images/rrsisd/JPEGImages"], "RRSIS-D")
        refs, document = read_pickle(refs_path), read_json(document_path, report, dict)
        if not isinstance(refs, list) or not all(isinstance(ref, dict) and {"split", "ann_id", "file_name", "sentences"} <= set(ref) for ref in refs):
            raise ValueError(f"{refs_path}: expected a list of references with split, ann_id, file_name and sentences; found {str(refs)[:80]}.")
        if lost := {"annotations", "categories"} - set(document):
            raise ValueError(f"{document_path} lacks {sorted(lost)}; found the fields {sorted(document)}.")
        annotations = {entry["id"]: entry for entry in document["annotations"]}
        classes = {entry["id"]: entry["name"] for entry in document["categories"]}
        wanted = [ref for ref in refs if ref["split"] == self.split]
        compare_counts(self.about, self.split, sum(len(ref["sentences"]) for ref in wanted), report)
        elsewhere = {ref["file_name"] for ref in refs if ref["split"] != self.split}
        for name, members in sorted(grouped(wanted, lambda ref: ref["file_name"]).items()):
            if name in elsewhere:
                report.note("picture in two splits")
            picture = open_picture(find_picture(pictures, name, report), report, name)
            if picture is not None:
                record = self._record(picture, members, annotations, classes, report)
                if record is not None:
                    yield record

    def _record(
        self, picture: Picture, refs: list[dict[str, Any]], annotations: dict[int, dict[str, Any]], classes: dict[int, str], report: Report
    ) -> Record | None:
        instances: dict[int, dict[str, Any]] = {}
        said: list[tuple[str, int]] = []
        for ref in refs:
            name = int(ref["ann_id"])
            entry = annotations.get(name)
            if entry is None:
                report.leave_out("reference without its annotation", picture.where, f"ann_id {name} is not in instances.json")
                continue
            if name not in instances:
                of_class = class_name(classes.get(entry.get("categories_id", entry.get("category_id", -1)), ""), report)
                made = from_rle(picture, name, entry["segmentation"], report, of_class=of_class, box=entry.get("bbox"))
                if made is None:
                    continue
                instances[name] = made
            for sentence in ref["sentences"]:
                text = expression(sentence.get("raw", sentence.get("sent", "")), [text for text, _ in said], picture.where, report)
                if text is not None:
                    said.append((text, name))
        if not said:
            return None
        key = Path(picture.path).stem
        return record_of(self.about, picture, key, self.split, references(said, key), list(instances.values()))
