"""What predict leaves behind: files that open elsewhere, masks that come back equal, and nothing overwritten."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.warp import transform_bounds, transform_geom

from geopix.outputs import Answered, AnswerWriter, split_turns
from geopix.polygons import vectorise
from geopix.rle import decode_rle
from geopix.types import Georeference

UTM = CRS.from_epsg(32631).to_wkt()
NORTH_UP = (0.3, 0.0, 448262.1234567, 0.0, -0.3, 5411932.7654321)
TURNED = (0.2, 0.1, 448262.1, 0.1, -0.2, 5411932.7)


def _image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), 90, dtype=np.uint8)


def _masks(number: int, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.rand(number, height, width, generator=torch.Generator().manual_seed(number)) > 0.8


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_masks_come_back_equal_and_statuses_are_told_apart(tmp_path: Path) -> None:
    writer, masks = AnswerWriter(tmp_path), _masks(3)
    blank = torch.zeros(1, 40, 60, dtype=torch.bool)
    single = blank.clone()
    single[0, 5:9, 7:20] = True
    files = writer.write(
        "one",
        _image(),
        [
            Answered("the tanks", "Here: [SEG], [SEG], [SEG].", masks, scores=tuple({"probability": value} for value in (0.9, 0.8, 0.7))),
            Answered("is there a ship?", "No.", blank[:0]),
            Answered("the plane", "It is [SEG].", blank),
            Answered("the pool", "It is [SEG].", single, labels=("pool",)),
        ],
        source=Path("somewhere/one.png"),
    )
    assert set(files) == {"picture"}
    (line,) = _lines(tmp_path)
    assert (line["key"], line["image"], line["size"], line["files"]) == ("one", str(Path("somewhere/one.png")), [40, 60], {"picture": "one.png"})
    tanks, ship, plane, pool = line["dialogues"]
    assert [d["status"] for d in line["dialogues"]] == ["ok", "no_mask", "empty_mask", "ok"]
    assert [d["index"] for d in line["dialogues"]] == [[1, 2, 3], [], [4], [5]]
    assert torch.equal(torch.stack([decode_rle(rle) for rle in tanks["masks"]]), masks)
    assert tanks["area_px"] == masks.sum((1, 2)).tolist()
    assert tanks["labels"] == ["the tanks (1)", "the tanks (2)", "the tanks (3)"]
    assert [score["probability"] for score in tanks["scores"]] == [0.9, 0.8, 0.7]
    assert ship["masks"] == []
    assert plane["boxes"] == [None]
    assert (pool["boxes"], pool["area_px"], pool["labels"]) == ([[7, 5, 20, 9]], [52], ["pool"])
    assert writer.counts == {"ok": 2, "no_mask": 1, "empty_mask": 1}


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED])
@pytest.mark.parametrize(("number", "size"), [(1, (40, 60)), (3, (40, 60)), (4, (40, 60)), (2, (600, 530))])
def test_geotiff_has_the_masks_crs_and_grid_exactly(tmp_path: Path, transform: tuple[float, ...], number: int, size: tuple[int, int]) -> None:
    masks = _masks(number, *size) & (torch.arange(size[1]) < 60) & (torch.arange(size[0]) < 40)[:, None]
    labels = tuple(f"Größe {i}" for i in range(number))
    answered = Answered("all", "[SEG]" * number, masks, labels=labels)
    files = AnswerWriter(tmp_path).write("a", _image(*size), [answered], georeference={"crs": UTM, "transform": transform})
    with rasterio.open(files["masks"]) as raster:
        assert np.array_equal(raster.read(), masks.numpy().astype(np.uint8))
        assert raster.crs == CRS.from_wkt(UTM)
        assert raster.transform[:6] == pytest.approx(transform, rel=0, abs=0)
        assert raster.descriptions == labels
        assert raster.nodata is None
        assert raster.dtypes == ("uint8",) * number
        assert all(flags == [rasterio.enums.MaskFlags.all_valid] for flags in raster.mask_flag_enums)
        assert raster.compression.name == "deflate"
        assert raster.profile["tiled"] == (max(size) > 512)


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED])
def test_polygons_have_the_area_of_the_mask_and_the_winding_of_geojson(transform: tuple[float, ...]) -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[3:20, 5:30] = True
    mask[8:12, 10:15] = False  # a hole
    mask[20:24, 30:33] = True  # touches the first only at a corner
    place: Georeference = {"crs": UTM, "transform": transform}
    features = vectorise(mask, place, {"label": "ship"})
    assert len(features) == 2
    assert all(feature["properties"] == {"label": "ship"} for feature in features)
    area = 0.0
    for feature in features:
        for index, ring in enumerate(feature["geometry"]["coordinates"]):
            assert ring[0] == ring[-1]
            assert all(2 < lon < 3 and 48 < lat < 49.5 for lon, lat in ring)
            assert (_area(ring) > 0) == (index == 0)
        metres = transform_geom("EPSG:4326", CRS.from_wkt(UTM), feature["geometry"])
        area += sum(_area(ring) for ring in metres["coordinates"])
    pixel = abs(transform[0] * transform[4] - transform[1] * transform[3])
    assert area == pytest.approx(int(mask.sum()) * pixel, rel=1e-4)


def _area(ring: list) -> float:
    x, y = (np.array(ring)[:, i] - np.array(ring)[0, i] for i in (0, 1))
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_geojson_names_prompt_label_and_the_number_of_the_band(tmp_path: Path) -> None:
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    masks[0, :5, :5] = masks[2, 10:12, 10:12] = True
    answered = [Answered("first", "[SEG] [SEG]", masks[:2]), Answered("second", "[SEG]", masks[2:], labels=("hut",))]
    files = AnswerWriter(tmp_path).write("a", _image(), answered, georeference={"crs": UTM, "transform": NORTH_UP})
    features = json.loads(files["vectors"].read_text())["features"]
    assert [feature["properties"] for feature in features] == [
        {"prompt": "first", "label": "first (1)", "index": 1},
        {"prompt": "second", "label": "hut", "index": 3},
    ]


def test_without_masks_there_is_no_raster(tmp_path: Path) -> None:
    none = Answered("is there a ship?", "No.", _masks(1)[:0])
    files = AnswerWriter(tmp_path).write("a", _image(), [none], georeference={"crs": UTM, "transform": NORTH_UP})
    assert set(files) == {"picture"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "answers.jsonl"]


@pytest.mark.parametrize("crs", ["", 'LOCAL_CS["site grid",UNIT["metre",1]]'])
def test_a_grid_that_leads_nowhere_on_earth_gives_a_raster_and_a_warning(tmp_path: Path, crs: str) -> None:
    with pytest.warns(UserWarning, match="no CRS that leads to the earth"):
        files = AnswerWriter(tmp_path).write("a", _image(), [Answered("x", "[SEG]", _masks(1))], georeference={"crs": crs, "transform": NORTH_UP})
    assert set(files) == {"picture", "masks"}
    with rasterio.open(files["masks"]) as raster:
        assert raster.transform[:6] == NORTH_UP
    with pytest.raises(ValueError, match="no CRS"):
        vectorise(_masks(1)[0], {"crs": "", "transform": NORTH_UP})


def test_keys_become_names_that_are_safe_and_differ(tmp_path: Path) -> None:
    writer, none = AnswerWriter(tmp_path / "out"), [Answered("x", "No.", _masks(1)[:0])]
    keys = ["../up/a b", "train/1", "train__1", "TRAIN/1", "a:b*?", "/", "ü" * 300, "ü" * 299 + "o", "odd\udc80"]
    names = [writer.write(key, _image(), none)["picture"] for key in keys]
    assert len(set(names)) == len(keys)
    assert names[1].name == "train__1.png"
    assert all(name.parent == tmp_path / "out" and name.exists() for name in names)
    assert [line["key"] for line in _lines(tmp_path / "out")] == keys
    with pytest.raises(ValueError, match=r"'train/1' was written before"):
        writer.write("train/1", _image(), none)


def test_earlier_answers_are_kept_unless_told(tmp_path: Path) -> None:
    none, some = [Answered("x", "No.", _masks(1)[:0])], [Answered("x", "[SEG]", _masks(1))]
    place: Georeference = {"crs": UTM, "transform": NORTH_UP}
    AnswerWriter(tmp_path)  # an earlier run that wrote nothing stands in nobody's way
    AnswerWriter(tmp_path).write("a", _image(), some, georeference=place)
    (tmp_path / "mine.png").write_bytes(b"mine")
    before = (tmp_path / "answers.jsonl").read_text()
    with pytest.raises(ValueError, match=r"callbacks.output FOLDER, or say --trainer.callbacks.overwrite true"):
        AnswerWriter(tmp_path)
    assert (tmp_path / "answers.jsonl").read_text() == before
    writer = AnswerWriter(tmp_path, overwrite=True)
    writer.write("b", _image(), none)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "b.png", "mine.png"]
    with pytest.raises(ValueError, match="is it an input"):
        writer.write("mine", _image(), none)
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    assert [line["key"] for line in _lines(tmp_path)] == ["b"]


@pytest.mark.parametrize("when", ["picture", "line", "place"])
def test_a_killed_run_stands_in_no_later_runs_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    some, place = [Answered("x", "[SEG]", _masks(1))], {"crs": UTM, "transform": NORTH_UP}
    writer = AnswerWriter(tmp_path)
    writer.write("a", _image(), some, georeference=place)
    with monkeypatch.context() as patch:
        patch.setattr({"picture": "geopix.outputs._write_geojson", "line": "geopix.outputs._records", "place": "pathlib.Path.replace"}[when], killed)
        with pytest.raises(KeyboardInterrupt):
            writer.write("b", _image(), some, georeference=place)
    listed = {name for line in _lines(tmp_path) for name in line["files"].values()}
    assert {path.name for path in tmp_path.iterdir()} <= listed | {"answers.jsonl", "unfinished.part"}
    with (tmp_path / "answers.jsonl").open("a") as lines:
        lines.write('{"key": "c", "image": nu')
    again = AnswerWriter(tmp_path, overwrite=True)
    for key in "abc":
        again.write(key, _image(), some, georeference=place)
    assert len(list(tmp_path.iterdir())) == 1 + 3 * 3


def test_a_foreign_index_or_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("hello\n")
    with pytest.raises(ValueError, match="not of geopix"):
        AnswerWriter(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="need a folder"):
        AnswerWriter(tmp_path / "answers.jsonl")


def test_numbers_that_disagree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 2 \[SEG\] but 1 masks"):
        Answered("x", "[SEG] [SEG]", _masks(1))
    with pytest.raises(ValueError, match="1 labels for 2 masks"):
        Answered("x", "[SEG] [SEG]", _masks(2), labels=("one",))
    with pytest.raises(ValueError, match="own size first"):
        AnswerWriter(tmp_path).write("a", _image(41), [Answered("x", "[SEG]", _masks(1))])
    assert _lines(tmp_path) == []


def test_turns_share_out_the_masks_of_a_dialogue() -> None:
    masks = _masks(3)
    first, second, third = split_turns(["a", "b", "c"], ["[SEG]", "No.", "[SEG] and [SEG]"], masks)
    assert torch.equal(first.masks, masks[:1])
    assert second.status == "no_mask"
    assert torch.equal(third.masks, masks[1:])
    with pytest.raises(ValueError, match="but 2 masks"):
        split_turns(["a", "b"], ["[SEG]", "[SEG]"], masks)


def test_a_real_georeference_survives(tmp_path: Path) -> None:
    scene = Path(__file__).parents[2] / "shared" / "data" / "real" / "atlanta_solaris" / "sample_geotiff_custom_proj.tif"
    if not scene.exists():
        pytest.skip("the real images are not beside this checkout")
    with rasterio.open(scene) as raster:
        crs, transform, size = raster.crs, raster.transform, raster.shape
        west, south, east, north = transform_bounds(crs, "EPSG:4326", *raster.bounds)
    masks = torch.zeros(1, *size, dtype=torch.bool)
    masks[0, 100:140, 200:260] = True
    place: Georeference = {"crs": crs.to_wkt(), "transform": tuple(transform)[:6]}
    files = AnswerWriter(tmp_path).write("scene", _image(*size), [Answered("a roof", "[SEG]", masks)], georeference=place)
    with rasterio.open(files["masks"]) as raster:
        assert raster.crs == crs
        assert raster.transform == transform
        assert np.array_equal(raster.read(1), masks[0].numpy())
    (feature,) = json.loads(files["vectors"].read_text())["features"]
    longitude, latitude = np.mean(feature["geometry"]["coordinates"][0][:4], axis=0)
    assert longitude == pytest.approx(west + 230 / size[1] * (east - west), abs=0.06 * (east - west))
    assert latitude == pytest.approx(north - 120 / size[0] * (north - south), abs=0.06 * (north - south))
