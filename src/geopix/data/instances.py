"""The instances of a JSONL record as masks at the image's own size: COCO RLE, polygons, or numbers in a PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco
from torch import Tensor

from geopix.data.images import describe
from geopix.rle import decode_rle, decode_runs, rle_area
from geopix.types import RLE, SEG, Turn

EMPTY = "the mask of instances {} is empty; leave such instances out."


class InstanceMasks:
    """The masks of one record's instances; reads only those that are used, and each file once.

    Args:
        record: one line of the JSONL, parsed.
        locate: from a path in the record to a file.
        height, width: the image's own size in pixels.

    Raises:
        ValueError: when instances have no id, or two have the same.
    """

    def __init__(self, record: dict[str, Any], locate: Callable[[str], Path], height: int, width: int) -> None:
        self.locate = locate
        self.height, self.width = height, width
        self.instances = {entry["id"]: entry for entry in record.get("instances", []) if "id" in entry}
        self._pngs: dict[str, np.ndarray] = {}
        self._png_values: dict[str, frozenset[int]] = {}
        self._seen: dict[int | str, bool] = {}
        if len(self.instances) != len(record.get("instances", [])):
            raise ValueError("instances without an id, or with the same id twice; each needs its own.")

    def dialogue(self, entry: dict[str, Any]) -> tuple[tuple[Turn, ...], Bool[Tensor, "m h w"], tuple[str | None, ...]]:
        """Turns, own-size masks (one per ``[SEG]``) and their classes of one dialogue.

        Raises:
            FileNotFoundError, ValueError: when answers, targets and instances do not fit each other, or a mask is not what it should be.
        """
        turns, targets = self._said(entry)
        masks = [self._filled(ids) for ids in targets]
        classes = tuple(self._class(ids) for ids in targets)
        return turns, torch.stack(masks) if masks else torch.zeros(0, self.height, self.width, dtype=torch.bool), classes

    def check(self, entry: dict[str, Any]) -> None:
        """Looks for what :meth:`dialogue` would complain about; most masks need not be decoded for it, and none is twice.

        Raises:
            FileNotFoundError, ValueError: as :meth:`dialogue` does.
        """
        for ids in self._said(entry)[1]:
            if True not in {self._has_pixels(one) for one in ids}:  # all are looked at
                raise ValueError(EMPTY.format(ids))

    def _said(self, entry: dict[str, Any]) -> tuple[tuple[Turn, ...], list[list[int | str]]]:
        """The turns of a dialogue and the instances of each ``[SEG]``."""
        if not isinstance(entry, dict) or not entry.get("turns"):
            raise ValueError("a dialogue needs turns, a list of {prompt, answer}; found none.")
        turns = tuple(Turn(turn["prompt"], turn.get("answer", "")) for turn in entry["turns"])
        targets = entry.get("targets", [])
        written = sum(turn.answer.count(SEG) for turn in turns)
        if written != len(targets):
            raise ValueError(
                f"the answers hold {written} {SEG} but targets lists {len(targets)}; one list of instance ids per {SEG}, in order. "
                f"Answers: {[turn.answer for turn in turns]}"
            )
        return turns, [self._target(ids, entry.get("task", "segment/single")) for ids in targets]

    def _class(self, ids: Sequence[int | str]) -> str | None:
        names = {self.instances[one].get("class") for one in ids}
        return names.pop() if len(names) == 1 else None

    def _target(self, ids: object, task: str) -> list[int | str]:
        if not isinstance(ids, list) or not ids:
            raise ValueError(f"a {SEG} has the targets {ids!r}; expected a list of at least one instance id. What is absent has an answer without {SEG}.")
        if unknown := [one for one in ids if one not in self.instances]:
            raise ValueError(f"targets name the instances {unknown}, which the record does not hold; it holds {list(self.instances)[:20]}.")
        if len(ids) == 1 and not task.endswith("/group") and self.instances[ids[0]].get("distractor_only", False):
            raise ValueError(f"instance {ids[0]!r} is distractor_only and cannot be the one target of a {SEG} in a dialogue of task {task!r}.")
        return ids

    def _filled(self, ids: Sequence[int | str]) -> Bool[Tensor, "h w"]:
        mask = self.union(ids)
        if not mask.any():
            raise ValueError(EMPTY.format(ids))
        return mask

    def _has_pixels(self, name: int | str) -> bool:
        if name not in self._seen:
            spec, packed = self.instances[name].get("mask"), self._packed(name)
            if packed is not None and packed["size"] == [self.height, self.width]:
                self._seen[name] = rle_area(packed) > 0
            elif isinstance(spec, dict) and "png" in spec and self._png(spec["png"]).shape == (self.height, self.width):
                self._seen[name] = spec["value"] in self._values(spec["png"])
            else:
                self._seen[name] = bool(self.mask(name).any())
        return self._seen[name]

    def union(self, ids: Sequence[int | str]) -> Bool[Tensor, "h w"]:
        """Where any of the instances is."""
        union = torch.zeros(self.height, self.width, dtype=torch.bool)
        for one in ids:
            union |= self.mask(one)
        return union

    def class_union(self, ids: Sequence[int | str]) -> Bool[Tensor, "h w"]:
        """Where anything of the classes of the given instances is."""
        names = {self.instances[one].get("class") for one in ids}
        return self.union([one for one, entry in self.instances.items() if entry.get("class") in names])

    def mask(self, name: int | str) -> Bool[Tensor, "h w"]:
        """Where one instance is.

        Raises:
            FileNotFoundError, ValueError: when its mask is not there, cannot be decoded, or has another size than the image.
        """
        spec, packed = self.instances[name].get("mask"), self._packed(name)
        if packed is not None:
            mask = decode_rle(packed)
        elif isinstance(spec, dict) and "counts" in spec:
            mask = decode_runs(spec["size"], spec["counts"])
        elif isinstance(spec, dict) and "png" in spec:
            mask = torch.from_numpy(self._png(spec["png"]) == spec["value"])
        else:
            raise ValueError(f"instance {name!r} has no mask; expected {{size, counts}}, {{polygon}} or {{png, value}}, found {spec!r}.")
        if tuple(mask.shape) != (self.height, self.width):
            found = f"{mask.shape[0]} x {mask.shape[1]}"
            raise ValueError(f"the mask of instance {name!r} is {found} (rows x columns) but the image is {self.height} x {self.width}; they must agree.")
        return mask

    def _packed(self, name: int | str) -> RLE | None:
        """The mask of an instance as compressed RLE, where it is stored so or as a polygon."""
        spec = self.instances[name].get("mask")
        if isinstance(spec, dict) and isinstance(spec.get("counts"), str):
            return {"size": spec["size"], "counts": spec["counts"]}
        return self._polygon(name, spec["polygon"]) if isinstance(spec, dict) and "polygon" in spec and "counts" not in spec else None

    def _polygon(self, name: int | str, rings: Sequence[Sequence[float | int]]) -> RLE:
        if not rings or any(len(ring) < 6 or len(ring) % 2 for ring in rings):
            raise ValueError(f"instance {name!r}: a polygon is a list of rings [x, y, x, y, ...] of three points or more; found {str(rings)[:80]}.")
        right, bottom = max(max(ring[::2]) for ring in rings), max(max(ring[1::2]) for ring in rings)
        if right > 1.5 * self.width or bottom > 1.5 * self.height:
            reach = f"reaches x = {right:g}, y = {bottom:g}"
            raise ValueError(f"the polygon of instance {name!r} {reach} but the image is {self.height} x {self.width} (rows x columns); it is of another size.")
        filled = coco.merge(coco.frPyObjects([list(ring) for ring in rings], self.height, self.width))
        return {"size": [self.height, self.width], "counts": filled["counts"].decode("ascii")}

    def _png(self, path: str) -> np.ndarray:
        """Instance numbers of an 8-bit, 16-bit or palette PNG."""
        if path not in self._pngs:
            file = self.locate(path)
            if not file.is_file():
                raise FileNotFoundError(f"the mask {file} does not exist.")
            try:
                with Image.open(file) as image:
                    self._pngs[path] = np.asarray(image)
            except (UnidentifiedImageError, OSError) as error:
                raise ValueError(f"the mask {file} cannot be read: {describe(file)}.") from error
            if self._pngs[path].ndim != 2:
                raise ValueError(f"the mask {file} has {self._pngs[path].shape[2]} channels; expected one, whose values are instance numbers.")
        return self._pngs[path]

    def _values(self, path: str) -> frozenset[int]:
        """The numbers that a PNG holds."""
        if path not in self._png_values:
            values = self._png(path)
            found = np.flatnonzero(np.bincount(values.ravel())) if values.dtype.itemsize <= 2 else np.unique(values)
            self._png_values[path] = frozenset(found.tolist())
        return self._png_values[path]
