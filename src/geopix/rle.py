"""Masks as COCO run-length encoding and back; the counts are always text, as JSON needs.

The format (pycocotools, ``maskApi.c``): runs of 0 and 1 in turn, zeros first, down the columns; from the fourth run on each is stored as its
difference from the run two before; numbers are cut into groups of five bits, least significant first, 32 marks that more follow, 48 makes it ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pycocotools import mask as coco
from torch import Tensor

from geopix.types import RLE


def encode_rle(mask: Bool[Tensor, "h w"]) -> RLE:
    """One mask as compressed COCO RLE, its counts as ``str``."""
    packed = coco.encode(np.asfortranarray(mask.detach().cpu().numpy().astype(np.uint8)))
    height, width = mask.shape
    return {"size": [int(height), int(width)], "counts": packed["counts"].decode("ascii")}


def decode_rle(rle: RLE) -> Bool[Tensor, "h w"]:
    """The mask that a compressed COCO RLE holds, on the CPU, at the size that the RLE states.

    Raises:
        ValueError: when the runs do not add up to that size. (pycocotools' own decoder leaves memory as it finds it in that case.)
    """
    return decode_runs(rle["size"], _runs(rle["counts"]))


def decode_box(rle: RLE) -> tuple[int, int, UInt8[np.ndarray, "rows columns"]]:
    """The part of a compressed RLE that its box holds, for things that are small beside their image: left, top, and the pixels, 0 or 1.

    Raises:
        ValueError: as :func:`decode_rle` does.
    """
    height, width = (int(side) for side in rle["size"])
    runs = _runs(rle["counts"])
    _require_sum(height, width, runs)
    ends = np.cumsum(runs)[1::2]
    lengths = runs[1::2]
    if not lengths.all():  # runs of no pixel
        ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    if not len(ends):
        return 0, 0, np.zeros((0, 0), dtype=np.uint8)
    (columns, rows), last_columns = divmod(ends - lengths, height), (ends - 1) // height
    left, right = int(columns[0]), int(last_columns[-1]) + 1
    crosses = (columns < last_columns).any()  # what runs on into the next column touches the last row and the first
    top, bottom = (0, height) if crosses else (int(rows.min()), int((rows + lengths).max()))
    starts = (columns - left) * (bottom - top) + rows - top
    steps = np.zeros((right - left) * (bottom - top) + 1, dtype=np.int8)
    steps[starts] = 1
    steps[starts + lengths] -= 1
    filled = steps[:-1].cumsum(dtype=np.int8).view(np.uint8).reshape(right - left, bottom - top)
    return left, top, np.ascontiguousarray(filled.T)


def rle_area(rle: RLE) -> int:
    """Pixels of a compressed RLE, without decoding it.

    Raises:
        ValueError: as :func:`decode_rle` does.
    """
    runs = _runs(rle["counts"])
    _require_sum(int(rle["size"][0]), int(rle["size"][1]), runs)
    return int(runs[1::2].sum())


def decode_runs(size: Sequence[int], runs: Sequence[int] | Int64[np.ndarray, " runs"]) -> Bool[Tensor, "h w"]:
    """The mask of an uncompressed COCO RLE: lengths of runs of 0 and 1 in turn, zeros first, down the columns.

    Args:
        size: rows and columns.
        runs: their sum is the number of pixels.

    Raises:
        ValueError: when it is not.
    """
    height, width = (int(side) for side in size)
    lengths = np.asarray(runs, dtype=np.int64)
    _require_sum(height, width, lengths)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return torch.from_numpy(np.ascontiguousarray(values.reshape(width, height).T))


def _require_sum(height: int, width: int, runs: Int64[np.ndarray, " runs"]) -> None:
    if len(runs) == 0 or runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(
            f"an RLE states the size {[height, width]} (rows, columns), {height * width} pixels, but its runs hold {int(runs.sum())}; "
            "its counts were cut off, altered or belong to another size."
        )


def _runs(counts: str) -> Int64[np.ndarray, " runs"]:
    """Lengths of runs from compressed counts; nonsense in gives lengths that do not add up."""
    groups = np.frombuffer(counts.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(groups < 32)
    if len(ends) == 0 or ends[-1] != len(groups) - 1 or groups.min() < 0 or groups.max() > 63:
        return np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = 5 * (np.arange(len(groups)) - np.repeat(starts, ends - starts + 1))
    differences = np.add.reduceat((groups & 31) << np.minimum(place, 58), starts)
    differences -= np.where(groups[ends] & 16, 1 << np.minimum(place[ends] + 5, 62), 0)
    runs = differences.copy()
    runs[1::2] = differences[1::2].cumsum()
    runs[2::2] = differences[2::2].cumsum()
    return runs
