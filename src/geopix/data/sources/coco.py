"""COCO instance annotations, with or without referring expressions, to the JSONL of :mod:`geopix.data.instruct`.

    python -m geopix.data.sources.coco annotations.json records.jsonl --region kampala

Beyond plain COCO, an image may have ``region`` (becomes the split) and ``mask`` (a PNG of instance numbers), an annotation ``inst`` (its number there) and
``distractor_only``, and the file ``refs``: ``{image_id, kind, text, ann_ids}``. Kinds ``all`` and ``group`` are one union mask, ``negative`` is absent,
``count`` a question without masks, any other kind a single reference. Without ``refs``, every class gives one expression per image.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from geopix.types import SEG

LOG = logging.getLogger(__name__)
REQUESTS = ("[segment] can you segment {}?", "[segment] segment {}.", "[segment] where is {}?")


def convert_coco(annotations: Path, output: Path, *, images_root: Path | None = None, region: str | None = None) -> int:
    """Writes one record per image that has a dialogue; the same input gives the same bytes.

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
    document = _load(annotations)
    images_root = annotations.parent if images_root is None else images_root
    classes = {entry["id"]: entry["name"].lower().replace("_", " ").replace("-", " ") for entry in document.get("categories", [])}
    objects, refs = defaultdict(list), defaultdict(list)
    for entry in document["annotations"]:
        objects[entry["image_id"]].append(entry)
    for entry in document.get("refs", []):
        refs[entry["image_id"]].append(entry)
    images = [image for image in document["images"] if region is None or image.get("region") == region]
    stems = [Path(image["file_name"]).stem for image in images]
    unique = len(set(stems)) == len(stems)
    lines = []
    for image, stem in zip(images, stems, strict=True):
        key = stem if unique else Path(image["file_name"]).with_suffix("").as_posix()
        folder = os.path.relpath(images_root, output.parent)
        instances = _instances(objects[image["id"]], classes, _joined(folder, image["mask"]) if "mask" in image else None, key)
        dialogues = _from_refs(refs[image["id"]], instances, key) if "refs" in document else _from_classes(instances, key)
        if not dialogues:
            LOG.warning("%s has no expression and no instance that can be asked for; left out.", image["file_name"])
            continue
        record = {"image": _joined(folder, image["file_name"]), "key": key} | _origin(document, image)
        lines.append(json.dumps(record | {"instances": list(instances.values()), "dialogues": dialogues}, ensure_ascii=False))
    if not lines:
        regions = sorted({str(image.get("region")) for image in document["images"]})
        raise ValueError(f"{annotations} gives 0 records from {len(document['images'])} images with region={region!r}; found regions {regions}.")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"the annotations {path} do not exist.")
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        found = f"the fields {sorted(document)[:10]}" if isinstance(document, dict) else f"a {type(document).__name__}"
        raise ValueError(f"{path} is not COCO: expected an object with 'images' and 'annotations', found {found}.")
    return document


def _joined(folder: str, name: str) -> str:
    return Path(os.path.normpath(Path(folder) / name)).as_posix()


def _origin(document: dict[str, Any], image: dict[str, Any]) -> dict[str, str]:
    """Split, licence and source, as far as the file states them."""
    info = document.get("info", {})
    licences = {entry.get("id"): entry.get("name") for entry in document.get("licenses", [])}
    licence = licences.get(image.get("license")) or "; ".join(f"{part}: {info[part]}" for part in ("imagery", "labels") if info.get(part))
    source = info.get("source") or info.get("url") or info.get("description")
    return {name: value for name, value in (("split", image.get("region", image.get("split"))), ("licence", licence), ("source", source)) if value}


def _instances(entries: Iterable[dict[str, Any]], classes: dict[int, str], png: str | None, key: str) -> dict[int, dict[str, Any]]:
    """The image's instances by id. A crowd region covers several objects, so it can only be part of a group: distractor_only."""
    instances = {}
    for entry in entries:
        mask = {"png": png, "value": entry["inst"]} if png is not None and "inst" in entry else _mask(entry.get("segmentation"))
        if mask is None:
            LOG.warning("%s: annotation %s has no usable mask; left out.", key, entry["id"])
            continue
        instance: dict[str, Any] = {"id": entry["id"], "class": classes.get(entry["category_id"]) if "category_id" in entry else None}
        if len(box := entry.get("bbox", ())) == 4:
            instance["box"] = [box[0], box[1], round(box[0] + box[2], 3), round(box[1] + box[3], 3)]
        left_out = bool(entry.get("distractor_only", False) or entry.get("iscrowd", 0))
        instances[entry["id"]] = instance | {"mask": mask, "distractor_only": left_out}
    return instances


def _mask(segmentation: object) -> dict[str, Any] | None:
    """A mask as the record's format has it, from COCO polygons, an RLE of either kind, or a list that holds one RLE."""
    if isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict):
        segmentation = segmentation[0]
    if isinstance(segmentation, dict):
        return {"size": segmentation["size"], "counts": segmentation["counts"]}
    rings = [ring for ring in segmentation or () if len(ring) >= 6 and len(ring) % 2 == 0] if isinstance(segmentation, list) else []
    return {"polygon": rings} if rings else None


def _from_refs(refs: Iterable[dict[str, Any]], instances: dict[int, dict[str, Any]], key: str) -> list[dict[str, Any]]:
    dialogues, singles = [], []
    for ref in refs:
        text, kind, ids = ref["text"].strip(), ref["kind"], ref["ann_ids"]
        if kind == "count":
            dialogues.append(_dialogue("vqa/count", f"[vqa] {text[:1].lower()}{text[1:]}", str(len(ids)), []))
        elif kind == "negative" or not ids:
            dialogues.append(_dialogue("segment/absent", _request(text, key), f"{_capital(text)} is not in this image.", []))
        elif lost := [one for one in ids if one not in instances]:
            LOG.warning("%s: %r names the annotations %s, which the image does not have; left out.", key, text, lost)
        elif kind in ("all", "group") or len(ids) > 1:
            dialogues.append(_dialogue("segment/group", _request(text, key), f"{_capital(text)} are {SEG}.", [ids]))
        elif instances[ids[0]]["distractor_only"]:
            LOG.warning("%s: %r names annotation %s, which is distractor_only; left out.", key, text, ids[0])
        else:
            dialogues.append(_dialogue("segment/single", _request(text, key), f"{_capital(text)} is {SEG}.", [ids]))
            singles.append((text, ids[0]))
    return dialogues + _several(singles, key)


def _from_classes(instances: dict[int, dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """One expression per class: its only instance, or all of them as a group."""
    by_class = defaultdict(list)
    for instance in instances.values():
        by_class[instance["class"]].append(instance)
    dialogues, singles = [], []
    for name, members in by_class.items():
        if name is None:
            continue
        if len(members) == 1 and not members[0]["distractor_only"]:
            text, target = f"the {name}", members[0]["id"]
            dialogues.append(_dialogue("segment/single", _request(text, key), f"{_capital(text)} is {SEG}.", [[target]]))
            singles.append((text, target))
        else:
            ids = [member["id"] for member in members]
            dialogues.append(_dialogue("segment/group", _request(f"all the {_plural(name)}", key), f"All the {_plural(name)} are {SEG}.", [ids]))
    return dialogues + _several(singles, key)


def _several(singles: Sequence[tuple[str, int]], key: str) -> list[dict[str, Any]]:
    """Questions for two to four of the single references at once, no two of them for the same object."""
    first: dict[int, str] = {}
    for text, target in singles:
        first.setdefault(target, text)
    distinct = list(first.items())
    dialogues, start = [], 0
    while len(distinct) - start >= 2:
        part = distinct[start : start + 2 + _pick(f"{key}/{start}", 3)]
        start += len(part)
        texts = [text for _, text in part]
        prompt = f"[segment] please segment {', '.join(texts[:-1])} and {texts[-1]}."
        grounded = [f"{text} is {SEG}" for text in texts]
        answer = _capital(f"{', '.join(grounded[:-1])} and {grounded[-1]}.")
        dialogues.append(_dialogue("segment/multi", prompt, answer, [[target] for target, _ in part]))
    return dialogues


def _dialogue(task: str, prompt: str, answer: str, targets: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {"task": task, "turns": [{"prompt": prompt, "answer": answer}], "targets": targets}


def _request(text: str, key: str) -> str:
    return REQUESTS[_pick(f"{key}/{text}", len(REQUESTS))].format(text)


def _pick(text: str, choices: int) -> int:
    """A choice that depends on nothing but the text."""
    return zlib.crc32(text.encode("utf-8")) % choices


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plural(name: str) -> str:
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") and name[-2:-1] not in "aeiou" else f"{name}s"


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
