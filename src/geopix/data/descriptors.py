"""Masks as text: the run-length descriptors that a decoder-free model writes instead of ``[SEG]`` (Text4Seg, Lan et al. 2024, arXiv 2410.09855)."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

OUTSIDE = "others"
"""The label of a cell that the mask does not cover."""

_RUN = re.compile(r"(\S(?:.*\S)?) \*([1-9][0-9]*)")


def write_descriptors(mask: Bool[Tensor, "h w"], side: int, *, name: str = "target") -> str:
    """A mask as row-wise run-length text over ``side`` rows and columns that cover it whole.

    The form is Text4Seg's R-RLE: a row is its runs, ``label *length``, joined by ``"| "``; rows are joined by a line break and a space. A cell is inside where
    the mask covers at least half of it; what covers no cell so far is lost, which a finer grid avoids and pays for in text.

    Args:
        side: rows and columns of the grid; the paper's is 16.
        name: the label of the cells inside, such as the words that the question used.

    Raises:
        ValueError: when ``side`` is no positive number, or when a label could not be read back.

    Example:
        >>> print(write_descriptors(torch.tensor([[False, True], [True, True]]), 2, name="red ship"))
        others *1| red ship *1
         red ship *2
    """
    if side < 1:
        raise ValueError(f"descriptors need a grid of at least one cell; found side {side}.")
    if name == OUTSIDE or name != " ".join(name.split()) or not name or set("*|") & set(name):
        raise ValueError(f"the label {name!r} could not be read back; give words other than {OUTSIDE!r}, without '*', '|' or extra spaces.")
    inside = F.adaptive_avg_pool2d(mask.detach().cpu().double()[None], (side, side))[0] >= 0.5
    rows = []
    for row in inside:
        values, lengths = row.unique_consecutive(return_counts=True)
        rows.append("| ".join(f"{name if value else OUTSIDE} *{length}" for value, length in zip(values.tolist(), lengths.tolist(), strict=True)))
    return "\n ".join(rows)


def read_descriptors(text: str, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The mask that descriptors describe, each cell stretched over its share of ``size``; any label but ``others`` is inside.

    Args:
        text: as :func:`write_descriptors` writes it; its number of rows is the side of the grid.
        size: rows and columns of the mask.

    Raises:
        ValueError: when a run is not ``label *length``, or a row does not have as many cells as there are rows.
    """
    rows = [row.strip() for row in text.strip().split("\n")]
    grid = []
    for number, row in enumerate(rows, 1):
        cells: list[bool] = []
        for run in row.split("| "):
            found = _RUN.fullmatch(run)
            if found is None:
                raise ValueError(f"row {number} of the descriptors holds {run!r} where 'label *length' was expected; the text is cut off or no descriptor.")
            # A model may write any number: one cell more than a row holds is enough to refuse it.
            cells += [found[1] != OUTSIDE] * min(int(found[2][:9]), len(rows) + 1)
        if len(cells) != len(rows):
            found_cells = f"{len(cells)}" if len(cells) < len(rows) else f"more than {len(rows)}"
            raise ValueError(f"row {number} of the descriptors has {found_cells} cells but there are {len(rows)} rows; a grid is as wide as it is high.")
        grid.append(cells)
    return F.interpolate(torch.tensor(grid)[None, None].float(), size=size, mode="nearest-exact")[0, 0] > 0.5
