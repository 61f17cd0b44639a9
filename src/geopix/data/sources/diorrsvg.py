"""DIOR-RSVG: expressions with boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, grouped, read_lines, require
from geopix.data.sources.pieces import box_of, expression, open_picture, percent, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import Talk, located


@dataclass(frozen=True)
class DIORRSVG(Reader):
    """Each expression asks for one box.

    Layout: ``Annotations/*.xml``, ``JPEGImages/*.jpg``, ``{train,val,test}.txt``. A line of those is the number of an object, counted from 0 over the
    objects of all XML files sorted by name.

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Literal["train", "val", "test"] = "train"

    about = About(
        name="DIOR-RSVG",
        publication="arXiv 2210.12634; ZhanYang-nwpu/RSVG-pytorch",
        licence="not stated; pictures of DIOR (CC BY-NC 4.0)",
        protocol="Pr@0.5 to 0.9, meanIoU and cumIoU; language models: Acc@0.5",
        splits={"train": 26991, "val": 3829, "test": 7500},
        counted="dialogues",
        uncertain=(
            "Before October 2025 the authors' loader took the files in the order of the file system; published numbers may rest on another split.",
            "89.7 % of the test objects lie in pictures of train, under another expression: the split is by object.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        listed, annotations, pictures = require(self.root, [f"{self.split}.txt", "Annotations", "JPEGImages"], self.about.name)
        lines = read_lines(listed, report)
        if wrong := [line for line in lines if not line.isdigit()]:
            raise ValueError(f"{listed}: expected the number of an object in each line, found {wrong[0][:60]!r}.")
        wanted = {int(line) for line in lines}
        compare_counts(self.about, self.split, len(lines), report)
        found = list(_objects(annotations))
        self._agree(len(found), report)
        for number in sorted(number for number in wanted if number >= len(found)):
            report.leave_out("number beyond the objects", f"{listed.name}, object {number}", f"the XML files hold {len(found)} objects")
        chosen = [entry for number, entry in enumerate(found) if number in wanted]
        for name, members in grouped(chosen, lambda entry: entry[0]).items():
            picture = open_picture(find_picture(pictures, name, report), report, name)
            if picture is None:
                continue
            key, seen, talks = Path(name).stem, list[str](), list[Talk]()
            for _, text, corners in members:
                box = box_of(corners, picture, report) if corners else None
                if box is None:
                    report.leave_out("box without area in the picture", name, f"{text!r} at {corners}")
                elif (said := expression(text, seen, name, report)) is not None:
                    seen.append(said)
                    talks.append(located(said, key, [percent(box, picture)]))
            if talks:
                yield record_of(self.about, picture, key, self.split, talks)

    def _agree(self, found: int, report: Report) -> None:
        """Whether there are as many objects as the three lists number; where a file is missing, numbers mean other objects."""
        paths = [self.root / f"{split}.txt" for split in ("train", "val", "test")]
        if all(path.is_file() for path in paths):
            listed = {int(line) for path in paths for line in read_lines(path, report) if line.isdigit()}
            if listed != set(range(found)):
                raise ValueError(
                    f"the files of {self.root / 'Annotations'} hold {found} objects, but {[path.name for path in paths]} number {len(listed)}, up to "
                    f"{max(listed, default=-1)}. Numbers would mean other objects than the authors'; complete the folder."
                )


def _objects(folder: Path) -> Iterator[tuple[str, str, list[float]]]:
    """File name, expression and corners of every object of every file, in the order that numbers count."""
    for path in sorted(folder.glob("*.xml")):
        try:
            tree = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise ValueError(f"{path} is not valid XML ({error}). Without it the numbers of all later objects would shift; download it again.") from error
        name = (tree.findtext("filename") or f"{path.stem}.jpg").strip()
        for entry in tree.iter("object"):
            corners = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            yield name, entry.findtext("description") or "", [float(value) for value in corners if value] if all(corners) else []
