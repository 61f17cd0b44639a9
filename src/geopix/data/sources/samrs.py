"""SAMRS: masks that SAM drew in the boxes of three detection sets, without any text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, first_of, read_lines, read_pickle
from geopix.data.sources.names import DIOR, DOTA, FAIR1M, class_name
from geopix.data.sources.pieces import Picture, from_rle, open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import from_classes

Subset = Literal["SIOR", "FAST", "SOTA"]

PICTURES: dict[str, tuple[str, ...]] = {
    "SIOR": ("dior/JPEGImages-trainval", "dior/JPEGImages-test"),
    "FAST": ("fair1m_1024/trainval/images",),
    "SOTA": ("dotav2_1024/trainval/images", "dotav2_1024_rbb/trainval/images"),
}
"""Folders of pictures by subset, from SAMRS's root."""

_LABELS: dict[str, tuple[str, ...]] = {
    "SIOR": ("dior/hbox_segs_trainvaltest_init/ins",),
    "FAST": ("fair1m_1024/trainval/rhbox_segs_init/ins",),
    "SOTA": ("dotav2_1024/trainval/hbox_segs_init/ins", "dotav2_1024_rbb/trainval/rhbox_segs_init/ins"),
}
_CLASSES = {"SIOR": DIOR, "FAST": FAIR1M, "SOTA": DOTA}


@dataclass(frozen=True)
class SAMRS(Reader):
    """Every class of a picture is one expression: "the ship" where there is one, "all the ships" where there are more.

    Layout, by subset: ``dior/`` (SIOR), ``fair1m_1024/trainval/`` (FAST), ``dotav2_1024/trainval/`` or ``dotav2_1024_rbb/trainval/`` (SOTA), each with
    its pictures, ``train.txt`` and ``valid.txt`` of stems, and ``.../ins/STEM.pkl`` with the instances. Pickles are read as data alone.

    Args:
        root: the folder that holds them.
        subset: SIOR, FAST or SOTA.
        split: train or valid.
    """

    root: Path
    subset: Subset = "SIOR"
    split: Literal["train", "valid"] = "train"

    about = About(
        name="SAMRS",
        publication="arXiv 2305.02034",
        licence="research purpose only; pictures under the terms of DOTA (academic use), DIOR (CC BY-NC 4.0) and FAIR1M",
        protocol="made for pre-training, masks are pseudo labels; its semantic form is scored by mIoU over classes, 255 ignored",
        splits={"SIOR": 23463, "FAST": 64147, "SOTA": 17480},
        uncertain=(
            "The published counts are of train and valid together.",
            "Names of the folders are those that the authors' code reads; the archives may call them otherwise.",
            "Which of the two pickle forms (hbox, rhbox) a release holds is not stated; both are read.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        what = f"SAMRS {self.subset}"
        labels = first_of(self.root, _LABELS[self.subset], what)
        base = self.root / labels.relative_to(self.root).parts[0]
        base = base if self.subset == "SIOR" else base / "trainval"
        pictures = [folder for name in PICTURES[self.subset] if (folder := self.root / name).is_dir() and folder.is_relative_to(base)]
        if not pictures:
            raise FileNotFoundError(f"{self.root} is not laid out as {what}: none of the picture folders {list(PICTURES[self.subset])} is there.")
        listed = {split: read_lines(first_of(base, [f"{split}.txt"], what), report) for split in ("train", "valid") if (base / f"{split}.txt").is_file()}
        if self.split not in listed:
            raise FileNotFoundError(f"{base} holds no {self.split}.txt, the list of stems of this split.")
        compare_counts(self.about, self.subset, sum(len(stems) for stems in listed.values()), report)
        other = set(listed.get("valid" if self.split == "train" else "train", ()))
        for stem in dict.fromkeys(listed[self.split]):
            if stem in other:
                report.note("picture in two splits")
            found = next((path for folder in pictures if (path := find_picture(folder, stem)).is_file()), pictures[0] / stem)
            picture = open_picture(found, report, f"{self.subset}/{stem}")
            if picture is None:
                continue
            instances = self._instances(labels / f"{stem}.pkl", picture, report)
            dialogues = from_classes(instances, stem)
            if dialogues:
                yield record_of(self.about, picture, stem, self.split, dialogues, instances)
            elif not (labels / f"{stem}.pkl").is_file():
                report.leave_out("picture without labels", picture.where, "no pickle of instances: nothing was found in it")
            else:
                report.leave_out("picture without usable masks", picture.where, "none of its instances has a mask")

    def _instances(self, path: Path, picture: Picture, report: Report) -> list[dict[str, Any]]:
        if not path.is_file():
            return []
        try:
            entries = read_pickle(path)
        except ValueError as error:
            report.leave_out("damaged labels", picture.where, str(error))
            return []
        found = []
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            if not isinstance(entry, dict) or "mask" not in entry:
                report.leave_out("damaged labels", f"{picture.where}, instance {number}", f"expected a dict with a mask, found {str(entry)[:80]}")
                continue
            box = entry.get("bbox", entry.get("rhbox"))
            found.append(from_rle(picture, number, entry["mask"], report, of_class=self._class(entry, report), box=None if box is None else list(box)))
        return [one for one in found if one is not None]

    def _class(self, entry: dict[str, Any], report: Report) -> str | None:
        """The class by name or, in older pickles, by number."""
        category = entry.get("category", entry.get("label"))
        if isinstance(category, str):
            return class_name(category, report)
        names = _CLASSES[self.subset]
        if category is None or not 0 <= int(category) < len(names):
            report.note("unknown class")
            return None
        return class_name(names[int(category)], report)
