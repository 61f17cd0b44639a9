"""COCO instance annotations, with or without referring expressions, to the JSONL of :mod:`geopix.data.instruct`.

    python -m geopix.data.sources.coco annotations.json records.jsonl --region kampala

Beyond plain COCO, an image may have ``region`` (becomes the split) and ``mask`` (a PNG of instance numbers), an annotation ``inst`` (its number there) and
``distractor_only``, and the file ``refs``: ``{image_id, kind, text, ann_ids}``. Kinds ``all`` and ``group`` are one union mask, ``negative`` is absent,
``count`` a question without masks, any other kind a single reference. Without ``refs``, every class gives one expression per image.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopix.data.records import Record, write_records
from geopix.data.sources.files import read_json
from geopix.data.sources.pieces import Picture, from_polygon, from_rle, open_picture
from geopix.data.sources.reader import About, Reader, Report, from_folder
from geopix.data.sources.wording import Talk, absent, from_classes, group, question, several, single

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class COCO(Reader):
    """COCO instances as polygons, RLE of both kinds or numbers in a PNG; a crowd region can only be part of a group.

    Args:
        root: folder that ``file_name`` and ``mask`` of the images start from.
        annotations: the COCO file; one that is not absolute is looked for in ``root``.
        split: keep only images whose ``region``, or else ``split``, is this.
    """

    root: Path
    annotations: Path = Path("annotations.json")
    split: str | None = None

    about = About(
        name="COCO instances",
        publication="arXiv 1405.0312; any file in its form",
        licence="as the file states",
        protocol="that of the set that is stored in this form",
        uncertain=("Class names stay as the file writes them, in lower case with blanks.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        path = self.root / self.annotations
        document = load_coco(path, report)
        classes = {entry["id"]: entry["name"].lower().replace("_", " ").replace("-", " ") for entry in document.get("categories", [])}
        images = [image for image in document["images"] if self.split is None or _region(image) == self.split]
        if not images:
            regions = sorted({str(_region(image)) for image in document["images"]})
            raise ValueError(f"{path} gives 0 records from {len(document['images'])} images with region={self.split!r}; found regions {regions}.")
        yield from coco_records(document, self.root, images, classes, report)


def convert_coco(annotations: Path, output: Path, *, images_root: Path | None = None, region: str | None = None) -> int:
    """Writes one record per image that has a dialogue; the same input gives the same bytes. What is left out is logged.

    Args:
        annotations: the COCO file.
        output: the JSONL to write; the paths in it are relative to its folder.
        images_root: folder that ``file_name`` and ``mask`` start from; the folder of ``annotations`` unless given.
        region: keep only images whose ``region`` is this.

    Returns:
        The number of records.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not COCO, or no image gives a record.
    """
    report = Report()
    reader = COCO(annotations.parent if images_root is None else images_root, annotations.absolute(), region)
    count = write_records(output, (from_folder(record, output.parent) for record in reader.records(report)))
    for entry in report.quarantine:
        LOG.warning("%s: %s (%s); left out.", entry["where"], entry["kind"], entry["what"])
    if not count:
        output.unlink()
        raise ValueError(f"{annotations} gives 0 records with region={region!r}: {dict(report.counts)}.")
    return count


def load_coco(path: Path, report: Report) -> dict[str, Any]:
    """A COCO file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is not COCO.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the annotations {path} do not exist.")
    document = read_json(path, report, object)
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        found = f"the fields {sorted(document)[:10]}" if isinstance(document, dict) else f"a {type(document).__name__}"
        raise ValueError(f"{path} is not COCO: expected an object with 'images' and 'annotations', found {found}.")
    return dict(document)


def coco_records(document: dict[str, Any], root: Path, images: Sequence[dict[str, Any]], classes: dict[int, str], report: Report) -> Iterator[Record]:
    """The records of some images of a COCO file.

    Args:
        document: the whole file.
        root: folder that the images' paths start from.
        images: those to give.
        classes: names by category id.
        report: takes what was left out.
    """
    objects, refs = defaultdict(list), defaultdict(list)
    for entry in document["annotations"]:
        objects[entry["image_id"]].append(entry)
    for entry in document.get("refs", []):
        refs[entry["image_id"]].append(entry)
    stems = [Path(image["file_name"]).stem for image in images]
    unique = len(set(stems)) == len(stems)
    for image, stem in zip(images, stems, strict=True):
        key = stem if unique else Path(image["file_name"]).with_suffix("").as_posix()
        picture = open_picture(root / image["file_name"], report, key, any_bands=True)
        if picture is None:
            continue
        png = str((root / image["mask"]).absolute()) if "mask" in image else None
        instances = _instances(objects[image["id"]], classes, png, picture, report)
        dialogues = _from_refs(refs[image["id"]], instances, key, report) if "refs" in document else from_classes(instances.values(), key)
        if not dialogues:
            report.leave_out("picture without dialogues", key, "no expression and no instance that can be asked for")
            continue
        record = {"image": str(picture.path.absolute()), "key": key} | _origin(document, image)
        yield record | {"instances": list(instances.values()), "dialogues": dialogues}


def _region(image: dict[str, Any]) -> Any:
    return image.get("region", image.get("split"))


def _origin(document: dict[str, Any], image: dict[str, Any]) -> dict[str, str]:
    """Split, licence and source, as far as the file states them."""
    info = document.get("info", {})
    licences = {entry.get("id"): entry.get("name") for entry in document.get("licenses", [])}
    licence = licences.get(image.get("license")) or "; ".join(f"{part}: {info[part]}" for part in ("imagery", "labels") if info.get(part))
    source = info.get("source") or info.get("url") or info.get("description")
    return {name: value for name, value in (("split", _region(image)), ("licence", licence), ("source", source)) if value}


def _instances(entries: Iterable[dict[str, Any]], classes: dict[int, str], png: str | None, picture: Picture, report: Report) -> dict[int, dict[str, Any]]:
    """The image's instances by id. A crowd region covers several objects, so it can only be part of a group: distractor_only."""
    instances = {}
    for entry in entries:
        name = entry["id"]
        made = {"id": name, "mask": {"png": png, "value": entry["inst"]}} if png is not None and "inst" in entry else _masked(picture, entry, report)
        if made is None:
            continue
        kept: dict[str, Any] = {"id": name, "class": classes.get(entry["category_id"]) if "category_id" in entry else None}
        if len(box := entry.get("bbox", ())) == 4:
            kept["box"] = [box[0], box[1], round(box[0] + box[2], 3), round(box[1] + box[3], 3)]
        left_out = bool(entry.get("distractor_only", False) or entry.get("iscrowd", 0))
        instances[name] = kept | {"mask": made["mask"], "distractor_only": left_out}
    return instances


def _masked(picture: Picture, entry: dict[str, Any], report: Report) -> dict[str, Any] | None:
    """An instance from COCO polygons, an RLE of either kind, or a list that holds one RLE."""
    segmentation, (x, y, width, height) = entry.get("segmentation"), entry["bbox"] if len(entry.get("bbox", ())) == 4 else (0, 0, 0, 0)
    box = (x, y, x + width, y + height) if width and height else None
    if isinstance(segmentation, dict) or (isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict)):
        return from_rle(picture, entry["id"], segmentation, report, box=box)
    return from_polygon(picture, entry["id"], segmentation if isinstance(segmentation, list) else [], report, box=box)


def _from_refs(refs: Iterable[dict[str, Any]], instances: dict[int, dict[str, Any]], key: str, report: Report) -> list[Talk]:
    dialogues, singles = [], []
    for ref in refs:
        text, kind, ids = ref["text"].strip(), ref["kind"], ref["ann_ids"]
        if kind == "count":
            dialogues.append(question("count", text, str(len(ids))))
        elif kind == "negative" or not ids:
            dialogues.append(absent(text, key))
        elif lost := [one for one in ids if one not in instances]:
            report.leave_out("expression for unknown instances", key, f"{text!r} names the annotations {lost}, which the image does not have")
        elif kind in ("all", "group") or len(ids) > 1:
            dialogues.append(group(text, key, ids))
        elif instances[ids[0]]["distractor_only"]:
            report.leave_out("expression for a distractor", key, f"{text!r} names annotation {ids[0]}, which is distractor_only")
        else:
            dialogues.append(single(text, key, ids[0]))
            singles.append((text, ids[0]))
    return dialogues + several(singles, key)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m geopix.data.sources.coco", description="COCO, with or without refs, to JSONL records.", allow_abbrev=False)
    parser.add_argument("annotations", type=Path, help="the COCO file")
    parser.add_argument("output", type=Path, help="the JSONL to write")
    parser.add_argument("--images_root", type=Path, help="folder that file names start from; the folder of the COCO file unless given")
    parser.add_argument("--region", help="only images whose region is this")
    given = parser.parse_args(arguments)
    count = convert_coco(given.annotations, given.output, images_root=given.images_root, region=given.region)
    print(f"{count} records in {given.output}")


if __name__ == "__main__":
    main()
