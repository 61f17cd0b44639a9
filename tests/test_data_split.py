"""``geopix data split``: shares are met, the same seed gives the same, and nothing that belongs together is divided."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from geopix.data.quality.split import METRES, split_records, write_split
from tests.commands import geopix

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def picture(path: Path, seed: int, side: int = 32) -> None:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)


def write(folder: Path, records: list[dict]) -> Path:
    (folder / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "r.jsonl"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    records = []
    for number in range(60):
        picture(tmp_path / f"i{number}.png", number)
        name = "rare" if number % 10 == 0 else "ship"
        records.append({"image": f"i{number}.png", "key": f"k{number}", "instances": [{"id": 1, "class": name}]})
    return write(tmp_path, records)


def test_shares_are_met_and_the_seed_decides(many: Path) -> None:
    first = split_records(many, SHARES, workers=1)
    assert Counter(first) == {"train": 48, "val": 6, "test": 6}
    assert split_records(many, SHARES, workers=1) == first
    assert split_records(many, SHARES, seed=1, workers=1) != first


def test_the_split_does_not_depend_on_where_the_files_lie(many: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path.parent / "moved" / "deep")
    assert split_records(tmp_path.parent / "moved" / "deep" / "r.jsonl", SHARES, workers=1) == split_records(many, SHARES, workers=1)


def test_an_image_and_its_near_copies_stay_together(tmp_path: Path) -> None:
    records = []
    for number in range(12):
        picture(tmp_path / f"i{number}.png", number, 128)
        shutil.copy(tmp_path / f"i{number}.png", tmp_path / f"same{number}.png")
        Image.open(tmp_path / f"i{number}.png").resize((96, 96)).save(tmp_path / f"near{number}.jpg", quality=80)
        records += [{"image": name} for name in (f"i{number}.png", f"same{number}.png", f"near{number}.jpg", f"./i{number}.png")]
    names = split_records(write(tmp_path, records), {"a": 1, "b": 1}, workers=1)
    groups = [set(names[4 * number : 4 * number + 4]) for number in range(12)]
    assert all(len(group) == 1 for group in groups)
    assert Counter(names) == {"a": 24, "b": 24}


def test_tiles_of_one_scene_stay_together(tmp_path: Path) -> None:
    stems = [f"P{scene:04}__1024__{x}___{y}" for scene in range(6) for x in (0, 824) for y in (0, 824)]
    for number, stem in enumerate(stems):
        picture(tmp_path / f"{stem}.png", number)
    path = write(tmp_path, [{"image": f"{stem}.png"} for stem in stems])
    names = split_records(path, {"train": 2, "test": 1}, by="place", workers=1)
    by_scene = defaultdict(set)
    for stem, name in zip(stems, names, strict=True):
        by_scene[stem[:5]].add(name)
    assert all(len(found) == 1 for found in by_scene.values())
    assert Counter(names) == {"train": 16, "test": 8}
    assert any(len({names[4 * scene + tile] for tile in range(4)}) > 1 for scene in range(6)) is False
    scattered = split_records(path, {"train": 2, "test": 1}, workers=1)
    assert any(len(set(scattered[4 * scene : 4 * scene + 4])) > 1 for scene in range(6)), "by image they would be divided"


def test_tiles_of_one_cell_or_that_overlap_stay_together(tmp_path: Path) -> None:
    records = []
    places = [(0, 1000), (200, 1000), (1975, 5000), (1995, 5000), (9000, 9000), (9100, 9100), (30_000, 1000)]
    for number, (east, north) in enumerate(places):
        picture(tmp_path / f"i{number}.png", number)
        transform = [1 / METRES, 0, east / METRES, 0, -1 / METRES, north / METRES]
        records.append({"image": f"i{number}.png", "georeference": {"crs": "EPSG:4326", "transform": transform}})
    path = write(tmp_path, records)
    for seed in range(5):
        names = split_records(path, {"a": 1, "b": 1}, by="place", seed=seed, cell=2000, workers=1)
        assert len(set(names)) == 2
        assert len(set(names[:2])) == 1, "one cell"
        assert len(set(names[2:4])) == 1, "they overlap across the border of a cell"
        assert len(set(names[4:6])) == 1
    with pytest.raises(ValueError, match=r"1 group.* smaller --cell"):
        split_records(path, {"a": 1, "b": 1}, by="place", cell=10_000_000, workers=1)
    records[0]["georeference"]["crs"] = "no such thing"
    with pytest.raises(ValueError, match="line 1: the CRS of its georeference is none"):
        split_records(write(tmp_path, records), {"a": 1, "b": 1}, by="place", workers=1)


def test_windows_of_one_file_are_divided_by_place_alone(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 64, 256), dtype=np.uint8)
    profile = {"driver": "GTiff", "count": 3, "height": 64, "width": 256, "dtype": "uint8", "crs": "EPSG:32636"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, transform=rasterio.transform.from_origin(500_000, 100_000, 10, 10)) as file:
        file.write(values)
    records = [{"image": "a.tif", "key": str(left), "window": [left, 0, 64, 64]} for left in (0, 32, 128, 192)]
    path = write(tmp_path, records)
    with pytest.raises(ValueError, match=r"1 group.* windows of one georeferenced file are divided --by place"):
        split_records(path, {"a": 1, "b": 1}, workers=1)
    for seed in range(4):
        names = split_records(path, {"a": 1, "b": 1}, by="place", seed=seed, cell=320, workers=1)
        assert names[0] == names[1], "they overlap"
        assert set(names) == {"a", "b"}


def test_rare_classes_reach_every_split(many: Path) -> None:
    for seed in range(4):
        names = split_records(many, {"train": 1, "val": 1, "test": 1}, by="class", seed=seed, workers=1)
        counts = write_split(many, names, many.with_name("split.jsonl"))
        assert [counts[name]["rare"] for name in ("train", "val", "test")] == [2, 2, 2]
        assert [counts[name][""] for name in ("train", "val", "test")] == [20, 20, 20]


def test_what_cannot_be_read_is_not_divided(many: Path) -> None:
    many.write_text(many.read_text() + '{"image": "none.png"}\n{"image')
    with pytest.raises(ValueError, match=r"(?s)2 record\(s\) cannot be divided; .*line 61: the image .*line 62: "):
        split_records(many, SHARES, workers=1)


def test_the_command(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "split.jsonl"
    said = geopix("data", "split", many, "--shares", "train=0.8", "test=0.2", "--out", out)
    assert (said.code, said.err) == (0, "")
    assert "records                           48          12" in said.out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"k{number}" for number in range(60)]
    assert Counter(line["split"] for line in lines) == {"train": 48, "test": 12}
    assert lines[0]["image"] == "../i0.png"
    before = out.read_bytes()
    geopix("data", "split", many, "--shares", "train=0.8", "test=0.2", "--out", out)
    assert out.read_bytes() == before
    assert geopix("data", "check", out).code == 0
    for words, told in ((["train"], "NAME=NUMBER"), (["train=0"], "above 0"), (["a=1", "a=1"], "different names")):
        refused = geopix("data", "split", many, "--shares", *words, "--out", out)
        assert (refused.code, told in refused.err) == (2, True)
    assert geopix("data", "split", many, "--shares", "a=1", "--out", many).code == 2


@pytest.mark.parametrize(("pattern", "words"), [("^s_.*", "has no group"), ("(", "is no regular expression")])
def test_a_pattern_that_names_no_scene_is_refused_before_an_image_is_read(tmp_path: Path, pattern: str, words: str) -> None:
    said = geopix("data", "split", tmp_path / "none.jsonl", "--shares", "a=1", "--by", "place", "--scene", pattern, "--out", tmp_path / "out.jsonl")
    assert said.code == 2
    assert said.err.startswith("geopix: argument --scene: ")
    assert words in said.err
