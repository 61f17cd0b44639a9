"""Pictures: sizes, legends that are there, colours that differ, and nothing that text or odd sizes can break."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geopix.pictures import contact_sheet, curves, overlay, panel, to_rgb
from geopix.typeset import colours

GROUND = 100


def _image(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GROUND, dtype=np.uint8)


def _masks(number: int, height: int, width: int) -> np.ndarray:
    masks = np.zeros((number, height, width), dtype=bool)
    for index in range(number):
        row, column = divmod(index, 5)
        masks[index, row * height // 6 : row * height // 6 + height // 8, column * width // 6 : column * width // 6 + width // 8] = True
    return masks


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_reduced() -> None:
    small = overlay(_image(64, 64), _masks(2, 64, 64), ["a", "b"])
    assert small.shape[1] == 384
    assert small.shape[0] > 384
    large = overlay(_image(1000, 2048), _masks(2, 1000, 2048), ["a", "b"])
    assert large.shape[1] == 1600
    assert 781 < large.shape[0] < 1100
    beside = overlay(_image(1000, 100), _masks(1, 1000, 100), ["a"])
    assert beside.shape[0] == 1000
    assert beside.shape[1] == 100 + 384


def test_every_mask_has_its_colour_in_image_and_legend() -> None:
    number = 24
    drawn = overlay(_image(400, 400), _masks(number, 400, 400), [f"thing {i}" for i in range(number)])
    above, legend = drawn[:400], drawn[400:]
    for colour in colours()[:number]:
        assert (above == colour).all(-1).any()
        assert (legend == colour).all(-1).any()


def test_colours_are_distinct() -> None:
    palette = np.array(colours(), dtype=float)
    distance = np.linalg.norm(palette[:, None] - palette[None], axis=-1)
    assert distance[~np.eye(len(palette), dtype=bool)].min() > 30


def test_pixels_far_from_a_mask_are_unchanged_and_the_image_is_not_written_to() -> None:
    image, mask = _image(400, 400), np.zeros((1, 400, 400), dtype=bool)
    mask[0, 100:200, 100:200] = True
    drawn = overlay(image, mask, ["a"])
    assert (image == GROUND).all()
    assert (drawn[220:400, :400] == GROUND).all()
    assert (drawn[110:190, 110:190] != GROUND).any(-1).all()


def test_masks_thinner_than_a_pixel_of_the_reduced_picture_are_still_drawn() -> None:
    mask = np.zeros((1, 4000, 4000), dtype=bool)
    mask[0, 2001, 3001] = True
    drawn = overlay(_image(4000, 4000), mask, ["a"])
    assert (drawn[:1600] != GROUND).any()


def test_no_mask_says_so_and_an_empty_one_is_listed() -> None:
    none = overlay(_image(64, 64), np.zeros((0, 64, 64), dtype=bool), [])
    assert (none[:384] == GROUND).all()
    assert (none[384:] < 200).any()
    empty = overlay(_image(64, 64), np.zeros((1, 64, 64), dtype=bool), ["a"])
    assert (empty[:384] == GROUND).all()
    assert (empty[384:] == colours()[0]).all(-1).any()


def test_any_text_can_be_written_and_long_text_makes_the_panel_longer() -> None:
    masks = _masks(2, 64, 64)
    odd = "Größe 漢字 \udc80 \x00 \n\t 🛩 " + "x" * 500
    short = overlay(_image(64, 64), masks, ["a", "b"], [("Where?", "Here [SEG], there [SEG].")])
    long = overlay(_image(64, 64), masks, [odd, ""], [(odd, odd + "[SEG][SEG]."), ("", "")])
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0] + 200


def test_the_answer_shows_the_chip_of_each_mask() -> None:
    masks = _masks(2, 64, 64)
    without = overlay(_image(64, 64), masks, ["a", "b"], [("Where?", "Here and there.")])
    chips = overlay(_image(64, 64), masks, ["a", "b"], [("Where?", "Here [SEG]."), ("And?", "There [SEG].")])
    for colour in colours()[:2]:
        assert (chips[384:] == colour).all(-1).sum() > 1.5 * (without[384:] == colour).all(-1).sum()


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 masks"):
        overlay(_image(64, 64), _masks(2, 64, 64), ["a"])


def test_panel_has_three_columns_and_survives_missing_and_extra_masks() -> None:
    image, masks = _image(96, 96), _masks(3, 96, 96)
    missing = panel(image, "Which?", masks, masks[:2], "[SEG] [SEG]", "[SEG] [SEG] [SEG]")
    extra = panel(image, "Which?", masks[:1], masks[:2], "[SEG] [SEG]", "[SEG]")
    nothing = panel(image, "Is there one?", masks[:0], masks[:0], "", "No.")
    assert missing.shape[1] == extra.shape[1] == nothing.shape[1] == 3 * 384 + 2 * 12
    third = colours()[2]
    assert (missing[:, 396:780] == third).all(-1).any()
    assert (missing[-120:, 792:] == third).all(-1).any()  # listed as not drawn
    assert not (extra == third).all(-1).any()


def test_contact_sheet_holds_every_picture() -> None:
    cells = [np.full((10 + i, 20, 3), 10 * i, dtype=np.uint8) for i in range(3)]
    sheet = contact_sheet(cells, columns=2)
    assert sheet.shape == (11 + 12 + 3 * 12, 2 * 20 + 3 * 12, 3)
    assert all((sheet == 10 * i).all(-1).sum() == (10 + i) * 20 for i in range(3))
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])


@pytest.mark.parametrize(("number", "expected"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (8, [0, 1, 2])])
def test_to_rgb_shows_the_first_three_bands_or_grey(number: int, expected: list[int]) -> None:
    image = np.linspace(0, 1, number * 4, dtype=np.float32).reshape(number, 2, 2)
    wanted = np.rint(image[expected] * 255).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(to_rgb(image), wanted)
    assert np.array_equal(to_rgb(torch.from_numpy(image)), wanted)


def test_to_rgb_bands_stretch_and_what_is_not_a_number() -> None:
    image = np.stack([np.full((4, 4), 0.25), np.linspace(0.1, 0.2, 16).reshape(4, 4)]).astype(np.float32)
    assert to_rgb(image, [1]).max() == 51
    stretched = to_rgb(image, [1], stretch=(0, 100))
    assert (stretched.min(), stretched.max()) == (0, 255)
    image[0, 0, 0] = np.nan
    assert to_rgb(image)[0, 0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="cannot show bands"):
        to_rgb(image, [0, 1, 2])


def test_curves_are_a_png_whose_marks_show(tmp_path: Path) -> None:
    history = {
        "train/loss": [(i, 1 / (i + 1)) for i in range(100)],
        "train/nan": [(0, float("nan"))],
        "val/giou": [(50, 0.3)],
        "val/" + "long" * 20: [(50, 0.3), (99, 0.4)],
    }
    curves(history, tmp_path / "new" / "plain.png")
    curves(history, tmp_path / "marked.png", marks=[(0, "read"), (40, "segment")])
    with Image.open(tmp_path / "new" / "plain.png") as first, Image.open(tmp_path / "marked.png") as second:
        assert first.format == second.format == "PNG"
        plain, marked = np.asarray(first), np.asarray(second)
    assert 400 < plain.shape[0] < 1000
    assert 600 < plain.shape[1] < 2000
    assert not np.array_equal(plain, marked)
    curves({}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0
