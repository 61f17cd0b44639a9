"""Masks as COCO run-length encoding and back; the counts are always text, as JSON needs.

The format (pycocotools, ``maskApi.c``): runs of 0 and 1 in turn, zeros first, down the columns; from the fourth run on each is stored as its
difference from the run two before; numbers are cut into groups of five bits, least significant first, 32 marks that more follow, 48 makes it ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64
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


def adds_up(rle: RLE) -> bool:
    """Whether the runs of a compressed RLE hold as many pixels as its size states; only then may pycocotools decode it."""
    runs = _runs(rle["counts"])
    return len(runs) > 0 and int(runs.min()) >= 0 and int(runs.sum()) == int(rle["size"][0]) * int(rle["size"][1])


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
    if len(lengths) == 0 or lengths.min() < 0 or lengths.sum() != height * width:
        raise ValueError(
            f"an RLE states the size {[height, width]} (rows, columns), {height * width} pixels, but its runs hold {int(lengths.sum())}; "
            "its counts were cut off, altered or belong to another size."
        )
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return torch.from_numpy(np.ascontiguousarray(values.reshape(width, height).T))


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
