"""The part of a mask that its box holds equals the same part of the whole mask."""

import cv2
import numpy as np
import pytest
import torch

from geopix.rle import decode_box, encode_rle


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = [rng.random((rng.integers(1, 30), rng.integers(1, 30))) < share for share in (0, 0.01, 0.1, 0.5, 0.95, 1) for _ in range(40)]
    block, tall = np.zeros((20, 17), dtype=bool), np.zeros((20, 17), dtype=bool)
    block[3:8, 4:9] = True
    tall[15:, 5] = tall[:4, 6] = True  # one run, over the end of a column
    return [*made, block, tall]


def test_the_box_and_what_it_holds() -> None:
    for mask in masks():
        left, top, crop = decode_box(encode_rle(torch.from_numpy(mask)))
        rows, columns = crop.shape
        assert crop.flags.c_contiguous
        if mask.any():
            assert (left, top, columns, rows) == cv2.boundingRect(mask.view(np.uint8))
            assert np.array_equal(crop, mask[top : top + rows, left : left + columns])
        else:
            assert (rows, columns) == (0, 0)


def test_runs_of_no_pixel_change_nothing() -> None:
    assert decode_box({"size": [3, 2], "counts": "1201"})[2].tolist() == [[0, 1], [1, 1], [1, 1]], "1 of zeros, 2 of ones, 0 of zeros, 3 of ones"


def test_runs_that_do_not_add_up_are_refused() -> None:
    rle = encode_rle(torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"states the size \[4, 5\].*20 pixels.*hold 16"):
        decode_box({"size": [4, 5], "counts": rle["counts"]})
