"""Reading images: declared ranges, named bands, missing values, and files that are no images."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from geopix.data.build.measure import Limits, measure
from geopix.data.images import Scaling, image_size, read_image, read_original
from geopix.data.instruct import InstructRecords

REAL = Path(__file__).parents[2] / "shared" / "data" / "real"
PLACE = {"crs": "EPSG:32636", "transform": from_origin(500_000, 40_000, 0.5, 0.5)}


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **PLACE | options) as file:
        file.write(values)
    return path


def test_png_and_jpeg(tmp_path: Path) -> None:
    pixels = np.full((20, 30, 3), [255, 51, 0], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    for name, tolerance in (("a.png", 1e-6), ("a.jpg", 0.02)):
        image, place = read_image(tmp_path / name, None, Scaling())
        assert image.shape == (3, 20, 30)
        assert image.dtype == np.float32
        assert np.allclose(image[:, 5, 5], [1, 0.2, 0], atol=tolerance)
        assert place is None


def test_alpha_is_read_only_when_named(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 9, 4), [255, 51, 0, 102], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", None, Scaling())[0].shape == (3, 8, 9)
    assert image_size(tmp_path / "a.png") == (3, 8, 9)
    assert np.allclose(read_image(tmp_path / "a.png", [4, 1], Scaling())[0][:, 0, 0], [0.4, 1])


def test_a_palette_becomes_colours(tmp_path: Path) -> None:
    colours = Image.fromarray(np.repeat(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8), 4, axis=0))
    colours.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    assert np.allclose(read_image(tmp_path / "a.png", None, Scaling())[0][:, 0], [[1, 0], [0, 0], [0, 1]])
    assert image_size(tmp_path / "a.png") == (3, 4, 2)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8) > 0).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", None, Scaling())[0][0], np.eye(8))


@pytest.mark.parametrize("scale", [Scaling(), Scaling(20, 200), Scaling(-10.5, 300)])
@pytest.mark.parametrize("nodata", [None, 77])
def test_every_value_of_8_bits_is_scaled_by_the_range(tmp_path: Path, scale: Scaling, nodata: int | None) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    image, _ = read_image(write(tmp_path / "a.tif", values, nodata=nodata), None, scale)
    high = 255 if scale.high is None else scale.high
    expected = np.clip((values - np.float64(scale.low)) / (high - scale.low), 0, 1)
    assert np.allclose(image, np.where(values == nodata, 0, expected), atol=1e-6)
    assert image.flags.writeable


def test_uint16_needs_a_declared_range(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.linspace(100, 3000, 8 * 32 * 32).astype(np.uint16).reshape(8, 32, 32))
    with pytest.raises(ValueError, match=r"uint16.*min 100, 2 % below 15\d.*98 % below 294\d.*max 3000.*low=0 and high=294"):
        read_image(path, None, Scaling())
    image, place = read_image(path, [8, 1], Scaling(0, 2000))
    assert image.shape == (2, 32, 32)
    assert image[0].min() == 1
    assert image[1, 0, 0] == pytest.approx(0.05)
    assert place is not None
    assert place["transform"] == (0.5, 0, 500_000, 0, -0.5, 40_000)
    assert rasterio.CRS.from_wkt(place["crs"]).to_epsg() == 32636


def test_missing_values_become_0(tmp_path: Path) -> None:
    values = np.full((2, 3, 3), 0.5, dtype=np.float32)
    values[0, 0, 0], values[1, 0, 1], values[0, 2, 2] = np.nan, 9999, np.inf
    with pytest.raises(ValueError, match=r"float32.*min 0.5.*max 0.5"):
        read_image(write(tmp_path / "a.tif", values, nodata=9999), None, Scaling())
    image, _ = read_image(tmp_path / "a.tif", None, Scaling(0, 1))
    assert (image == 0).sum() == 3
    assert (image[0, 0, 0], image[1, 0, 1], image[0, 2, 2], image[1, 0, 0]) == (0, 0, 0, 0.5)


def test_missing_values_beyond_float32(tmp_path: Path) -> None:
    values = np.full((1, 2, 2), 3.0)
    values[0, 0, 0] = np.finfo(np.float64).min
    assert read_image(write(tmp_path / "a.tif", values, nodata=values[0, 0, 0]), None, Scaling(2, 4))[0].tolist() == [[[0, 0.5], [0.5, 0.5]]]


def test_8_bit_nodata_needs_all_bands(tmp_path: Path) -> None:
    values = np.full((3, 2, 2), 255, dtype=np.uint8)
    values[1:, 0, 0] = 100
    image, _ = read_image(write(tmp_path / "a.tif", values, nodata=255), None, Scaling())
    assert image[0, 0, 0] == 1
    assert image[:, 1, 1].tolist() == [0, 0, 0]


def test_bands_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "grey.tif", np.zeros((1, 4, 4), dtype=np.uint8))
    assert read_image(path, None, Scaling())[0].shape == (1, 4, 4)
    for bands in ([1, 2, 3], [0]):
        with pytest.raises(ValueError, match=r"grey.tif has 1 band.*asked for bands"):
            read_image(path, bands, Scaling())
    with pytest.raises(ValueError, match="bands is empty"):
        read_image(path, [], Scaling())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html><title>Quota exceeded</title>", "HTML page .*Quota exceeded"),
        (b"PK\x03\x04....", "zip"),
        (b"\x89PNG\r\n\x1a\n....", "PNG .*cut off"),
        (b"hello there", "text file"),
        (bytes(range(128, 255)), "no known image format"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (lambda: read_image(path, None, Scaling()), lambda: image_size(path)):
        with pytest.raises(ValueError, match=f"a.jpg cannot be read as an image: .*{words}"):
            read()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_cut_off_files(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name} cannot be read.*damaged"):
        read_image(tmp_path / name, None, Scaling())


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a.png does not exist\.$"):
        read_image(tmp_path / "a.png", None, Scaling())
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_image(tmp_path, None, Scaling())
    with pytest.raises(FileNotFoundError, match="forward slashes"):
        read_image(tmp_path / "images\\a.png", None, Scaling())


def test_a_range_upside_down() -> None:
    with pytest.raises(ValueError, match="low < high"):
        Scaling(10, 5)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images beside the project are absent")
def test_real_files() -> None:
    with pytest.raises(ValueError, match="uint16"):
        read_image(REAL / "vegas_torchsat" / "tiff_3channel_uint16.tif", None, Scaling())
    image, place = read_image(REAL / "vegas_torchsat" / "tiff_8channel_uint8.tif", [5, 3, 2], Scaling())
    assert image.shape == (3, 650, 500)
    assert place is not None
    assert 0.1 < image.mean() < 0.9
    hls, _ = read_image(REAL / "hls_10band" / "segmentation_test_0_input.tif", None, Scaling(0, 0.4))
    assert hls.shape == (10, 224, 224)


def test_a_window_of_a_georeferenced_image_lies_where_it_lies(tmp_path: Path) -> None:
    values = np.arange(3 * 40 * 60, dtype=np.float32).reshape(3, 40, 60) % 251
    place = rasterio.transform.from_origin(500000, 4000000, 2.0, 2.0)
    with rasterio.open(tmp_path / "large.tif", "w", driver="GTiff", width=60, height=40, count=3, dtype="uint8", crs="EPSG:32636", transform=place) as file:
        file.write(values.astype(np.uint8))
    whole, there = read_image(tmp_path / "large.tif", None, Scaling())
    part, here = read_image(tmp_path / "large.tif", None, Scaling(), window=[10, 5, 20, 30])
    assert np.array_equal(part, whole[:, 5:35, 10:30])
    assert there is not None
    assert here is not None
    assert (here["transform"][2], here["transform"][5]) == (500020.0, 3999990.0)
    with pytest.raises(ValueError, match=r"60 x 40 pixels; the window \[50, 0, 20, 10\]"):
        read_image(tmp_path / "large.tif", None, Scaling(), window=[50, 0, 20, 10])


@pytest.mark.parametrize("how", ["mask", "alpha"])
def test_what_a_mask_or_alpha_leaves_out_is_missing(tmp_path: Path, how: str) -> None:
    values = np.full((3 if how == "mask" else 4, 6, 8), 3000, dtype=np.uint16)
    there = np.ones((6, 8), dtype=np.uint16)
    there[:, :3] = 0
    values[3:] = there
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
        if how == "mask":
            with rasterio.open(path, "r+") as file:
                file.write_mask(there > 0)
    for window in (None, [2, 1, 4, 3]):
        image = read_original(path, None, Scaling(0, 3000), window)
        expected = there > 0 if window is None else there[1:4, 2:6] > 0
        assert np.array_equal(image.valid, expected)
        assert np.array_equal(image.values, np.broadcast_to(expected, image.values.shape))
    if how == "alpha":
        assert read_original(path, [1, 4], Scaling(0, 3000)).valid.all(), "an alpha band that is read is a band like others"


def test_a_pixel_has_data_where_any_band_has(tmp_path: Path) -> None:
    values = np.full((2, 3, 3), 0.5, dtype=np.float32)
    values[0, 0, 0], values[:, 1, 1] = np.nan, np.nan
    valid = read_original(write(tmp_path / "a.tif", values), None, Scaling(0, 1)).valid
    assert np.argwhere(~valid).tolist() == [[1, 1]]


def test_a_grid_without_a_crs_is_kept(tmp_path: Path) -> None:
    values = np.zeros((3, 8, 9), dtype=np.uint8)
    _, place = read_image(write(tmp_path / "a.tif", values, crs=None), None, Scaling())
    assert place == {"crs": "", "transform": (0.5, 0, 500_000, 0, -0.5, 40_000)}
    assert measure({"image": "a.tif"}, lambda name: tmp_path / name, Limits()).gsd is None


@pytest.mark.parametrize(("bend", "said"), [(0.0, "up to 0.00 pixels."), (12.0, "pixels, so what is drawn lies that far off")])
def test_control_points_say_where_an_image_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture, bend: float, said: str) -> None:
    grid = from_origin(500_000, 40_000, 0.5, 0.5)
    places = [(row, column, *(grid * (column + bend * (row == column == 0), row))) for row in (0, 40) for column in (0, 60)]
    points = [GroundControlPoint(row, column, x, y) for row, column, x, y in places]
    path = write(tmp_path / "a.tif", np.zeros((3, 40, 60), dtype=np.uint8), transform=None, gcps=points)
    with caplog.at_level(logging.INFO):
        _, place = read_image(path, None, Scaling())
        _, part = read_image(path, None, Scaling(), [10, 20, 5, 5])
    (told,) = [record for record in caplog.records if "4 control points" in record.message]
    assert said in told.message
    assert (told.levelno == logging.WARNING) == (bend > 0)
    assert place is not None
    assert part is not None
    assert rasterio.CRS.from_wkt(place["crs"]).to_epsg() == 32636
    assert place["transform"] == pytest.approx(tuple(grid)[:6], abs=bend or 1e-6)
    if not bend:
        assert part["transform"][2::3] == pytest.approx((500_005, 39_990))


def test_control_points_on_a_line_say_nothing_and_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = [GroundControlPoint(at, at, 500_000 + at, 40_000 - at) for at in (0, 5, 10)]
    path = write(tmp_path / "a.tif", np.zeros((3, 40, 60), dtype=np.uint8), transform=None, gcps=points)
    assert read_image(path, None, Scaling())[1] is None
    assert "the 3 control points of" in caplog.text


def test_a_record_says_where_its_image_lies_when_the_file_does_not(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    write(tmp_path / "b.tif", np.zeros((3, 8, 9), dtype=np.uint8))
    said = {"crs": "EPSG:32637", "transform": [2, 0, 400_000, 0, -2, 50_000]}
    talk = {"turns": [{"prompt": "[vqa] is it day?", "answer": "yes"}]}
    records = [{"image": name, "georeference": said, "dialogues": [talk]} for name in ("a.png", "b.tif")]
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    given = InstructRecords(path, size=8)
    given.check()
    assert given.sample(0, False).georeference == {"crs": rasterio.CRS.from_epsg(32637).to_wkt(), "transform": tuple(said["transform"])}
    own = given.sample(1, False).georeference
    assert own is not None
    assert own["transform"][0] == 0.5, "the file's own goes first"
    assert measure(records[0], lambda name: tmp_path / name, Limits()).gsd == pytest.approx(2, rel=0.01)
    path.write_text(json.dumps(records[0] | {"georeference": said | {"crs": "nowhere"}}))
    with pytest.raises(ValueError, match=r"the georeference of a.png names a CRS that is not known: 'nowhere'"):
        InstructRecords(path, size=8).check()
