"""``geopix data check``: each kind of bad input is told by record, in one report, and repaired or set aside as asked."""

import copy
import json
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geopix.data import schema
from geopix.data.instruct import InstructRecords
from geopix.data.quality import report
from geopix.data.quality.fix import fix_file
from geopix.data.quality.leaks import near_pairs
from geopix.data.quality.pictures import look_at
from geopix.data.quality.report import Findings
from geopix.data.quality.survey import survey
from geopix.rle import encode_rle
from tests.commands import geopix

SIDE = 64


def picture(path: Path, seed: int = 0, **options: object) -> None:
    """A smooth random picture: none is like another."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, **options)


def talk(prompt: str = "[segment] where is the ship?", answer: str = "It is [SEG].", targets: object = ((1,),), task: str = "segment/single") -> dict:
    return {"task": task, "turns": [{"prompt": prompt, "answer": answer}], "targets": [list(ids) for ids in targets]}


def ship(**changes: object) -> dict:
    return {"id": 1, "class": "ship", "box": [8, 8, 24, 20], "mask": {"polygon": [[8, 8, 24, 8, 24, 20, 8, 20]]}} | changes


def record(key: str, **changes: object) -> dict:
    return {"image": f"{key}.png", "key": key, "instances": [ship()], "dialogues": [talk()]} | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("abcd"):
        picture(tmp_path / f"{name}.png", seed)
    return tmp_path


def write(folder: Path, *records: object, name: str = "r.jsonl") -> Path:
    lines = [one if isinstance(one, bytes) else json.dumps(one, ensure_ascii=False).encode() for one in records]
    (folder / name).write_bytes(b"\n".join(lines) + b"\n")
    return folder / name


def found(path: Path, **options: object) -> Findings:
    return survey([path], workers=1, **options)[0]


def kinds(path: Path, **options: object) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in found(path, **options).problems))


def test_a_file_without_fault_has_none(folder: Path) -> None:
    findings = found(write(folder, record("a"), record("b", split="val"), record("c", split="train")))
    assert findings.problems == []
    assert findings.counts == {"records": 3, "dialogues": 3, "instances": 3}
    assert findings.splits == {"val": 1, "train": 1}
    assert "no problem found" in findings.as_text()


BAD = {
    "json": (b'{"image": "a.png",', report.UNREADABLE),
    "an array": ([1], report.UNREADABLE),
    "form": (record("a", dialogues=[{"turns": [{"question": "x"}]}]), report.FORM),
    "no image": (record("a", image="none.png"), report.NO_IMAGE),
    "windows path": (record("a", image=".\\a.png"), report.BACKSLASH),
    "latin-1": (json.dumps(record("a", source="Kärnten"), ensure_ascii=False).encode("latin-1"), report.ENCODING),
    "other size": (record("a", instances=[ship(mask={"size": [64, 128], "counts": [64 * 128 - 5, 5]})]), report.MASK_SIZE),
    "larger polygon": (record("a", instances=[ship(box=None, mask={"polygon": [[0, 0, 640, 0, 640, 640]]})]), report.MASK_SIZE),
    "cut-off mask": (record("a", instances=[ship(mask={"size": [64, 64], "counts": [100, 5]})]), report.BAD_MASK),
    "no mask file": (record("a", instances=[ship(mask={"png": "m.png", "value": 1})]), report.NO_MASK_FILE),
    "empty mask": (record("a", instances=[ship(mask={"size": [64, 64], "counts": [4096]})]), report.EMPTY_MASK),
    "box elsewhere": (record("a", instances=[ship(box=[40, 40, 60, 60])]), report.BOX_MASK),
    "box outside": (record("a", instances=[ship(box=[8, 8, 24, 200])]), report.BOX_OUTSIDE),
    "box inverted": (record("a", instances=[ship(box=[24, 8, 8, 20])]), report.BOX_INVERTED),
    "two of one id": (record("a", instances=[ship(), ship()]), report.IDS),
    "seg": (record("a", dialogues=[talk(answer="[SEG] [SEG]")]), report.SEGS),
    "unknown target": (record("a", dialogues=[talk(targets=[[7]])]), report.SEGS),
    "distractor": (record("a", instances=[ship(distractor_only=True)]), report.SEGS),
    "target without mask": (record("a", instances=[{"id": 1}]), report.SEGS),
    "empty text": (record("a", dialogues=[talk(prompt="  ")]), report.EMPTY_TEXT),
    "stated size": (record("a", image_size=[64, 65]), report.IMAGE_SIZE),
    "asked twice": (record("a", dialogues=[talk(), talk()]), report.QUESTION),
}


@pytest.mark.parametrize("name", BAD)
def test_each_fault_is_told_alone_with_its_line_and_key(folder: Path, name: str) -> None:
    bad, kind = BAD[name]
    findings = found(write(folder, record("b"), bad, record("c")))
    assert [problem.kind for problem in findings.problems] == [kind]
    told = findings.problems[0]
    assert (told.line, told.key) == (2, "" if kind == report.UNREADABLE else "a")
    assert findings.counts["records"] == 3
    assert f"- {kind}: 1" in findings.as_text()
    assert told.what in findings.as_text()


def test_a_half_written_last_line(folder: Path) -> None:
    path = write(folder, record("a"), record("b"))
    path.write_bytes(path.read_bytes()[:-40])
    assert kinds(path) == {report.HALF: 1}


def test_files_that_are_no_images_or_whole(folder: Path) -> None:
    (folder / "page.png").write_text("<html><title>Quota exceeded</title></html>")
    with zipfile.ZipFile(folder / "zip.png", "w") as archive:
        archive.writestr("x", "y")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:900])
    (folder / "empty.png").write_bytes(b"")
    (folder / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    findings = found(write(folder, *(record(name) for name in ("page", "zip", "half", "empty", "lfs"))))
    assert [problem.kind for problem in findings.problems] == [report.BAD_IMAGE] * 5
    for problem, words in zip(findings.problems, ("HTML page", "zip archive", "cut off or damaged", "0 bytes", "git-lfs pointer"), strict=True):
        assert words in problem.what


def test_unusual_images_are_counted_and_are_no_fault(folder: Path) -> None:
    shutil.copy(folder / "a.png", folder / "wrong.jpg")
    Image.open(folder / "b.png").convert("L").save(folder / "grey.png")
    Image.open(folder / "c.png").convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)).save(folder / "deep.png")
    values = np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE)
    values[0, 0, :5], values[0, 1, 0] = np.nan, -9999
    place = {"crs": "EPSG:32636", "transform": rasterio.transform.from_origin(5, 6, 1, 1)}
    with rasterio.open(folder / "gaps.tif", "w", driver="GTiff", count=1, height=SIDE, width=SIDE, dtype="float32", nodata=-9999, **place) as file:
        file.write(values)
    names = ("wrong.jpg", "grey.png", "alpha.png", "deep.png", "gaps.tif")
    findings = found(write(folder, *(record(name, image=name) for name in names)))
    assert findings.problems == []
    assert findings.noted == {
        "PNG file with another ending": 1,
        "image with an alpha band": 1,
        "image of one band": 3,
        "uint16 image, whose range must be declared": 1,
        "float32 image, whose range must be declared": 1,
        "image with NaN or infinity": 1,
        "image with nodata": 1,
    }


def test_no_instance_and_ten_thousand(folder: Path) -> None:
    many = [{"id": number, "class": "tree", "mask": {"polygon": [[0, 0, 4, 0, 4, 4]]}} for number in range(10_000)]
    findings = found(write(folder, record("a", instances=[], dialogues=[talk("what?", "a ship", [], "vqa/open")]), record("b", instances=many, dialogues=[])))
    assert findings.problems == []
    assert {note.kind for note in findings.notes} == {
        "record without instances",
        "record of 10000 instances or more",
        "record without dialogues, which training refuses",
    }
    assert findings.counts["instances"] == 10_000


def test_files_that_are_no_records(folder: Path) -> None:
    (folder / "page.jsonl").write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(ValueError, match=r"no JSONL: it is an HTML page .* title 'Sign in'"):
        found(folder / "page.jsonl")
    assert kinds(write(folder, b"")) == {report.UNREADABLE: 1}


def test_vocabulary_and_fields_that_nothing_reads(folder: Path) -> None:
    path = write(folder, record("a", instanzen=[]), record("b", instances=[ship(), ship(id=2, **{"class": "boat"})]))
    findings = found(path, vocabulary=frozenset({"ship"}))
    assert [(problem.kind, problem.line) for problem in findings.problems] == [(report.CLASS, 2)]
    assert [note.kind for note in findings.notes] == ["field 'instanzen', which nothing reads"]


def test_double_keys_and_questions(folder: Path) -> None:
    again = record("x", image="a.png")
    findings = found(write(folder, record("a"), record("a", image="b.png"), again))
    assert [(problem.kind, problem.line) for problem in findings.problems] == [(report.KEY, 2), (report.QUESTION, 3)]


def test_leaks_between_splits_and_between_files(folder: Path) -> None:
    shutil.copy(folder / "b.png", folder / "copy.png")
    Image.open(folder / "c.png").save(folder / "near.jpg", quality=60)
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)).save(folder / "flat1.png")
    Image.fromarray(np.full((SIDE, SIDE, 3), 91, dtype=np.uint8)).save(folder / "flat2.png")
    other = talk("[segment] segment the ship.")
    train = [record(name, split="train", dialogues=[other]) for name in ("a", "b", "c", "d", "flat1")]
    test = [record("A", image="a.png"), record("B", image="copy.png"), record("C", image="near.jpg"), record("flat2")]
    one = found(write(folder, *train, *(entry | {"split": "test"} for entry in test)))
    assert [(problem.kind, problem.line) for problem in one.problems] == [(report.LEAK_PATH, 1), (report.LEAK_BYTES, 2), (report.LEAK_NEAR, 3)]
    assert "line 8, C" in one.problems[2].what
    both = survey([write(folder, *test, name="test.jsonl"), write(folder, *(e | {"split": None} for e in train), name="train.jsonl")], workers=1)
    assert [len(findings.problems) for findings in both] == [0, 3]
    assert kinds(write(folder, *(entry | {"split": "train"} for entry in [*train, *test]))) == {}, "within a split nothing leaks"


@pytest.mark.parametrize("nodata", [-9999.0, -3.4e38])
def test_gaps_make_no_image_like_another(tmp_path: Path, nodata: float) -> None:
    for number in range(10):
        picture(tmp_path / f"{number}.png", number)
        values = np.asarray(Image.open(tmp_path / f"{number}.png"), dtype=np.float32).transpose(2, 0, 1) / 100
        values[:, :, :12] = nodata
        place = {"crs": "EPSG:32636", "transform": rasterio.transform.from_origin(5, 6, 1, 1), "nodata": nodata}
        with rasterio.open(tmp_path / f"{number}.tif", "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="float32", **place) as file:
            file.write(values)
    looks = [look_at(tmp_path / f"{number}.tif") for number in range(10)]
    assert all("image with nodata" in look.remarks for look in looks)
    assert not any(look.perceptual is None for look in looks)
    hashes = (np.array([getattr(look, name) for look in looks], dtype=np.uint64) for name in ("perceptual", "gradient"))
    assert list(near_pairs(*hashes)) == []


def test_fix_repairs_what_it_can_and_sets_the_rest_aside(folder: Path) -> None:
    lines = [BAD[name][0] for name in BAD]
    lines = [line | {"key": f"k{number}"} if isinstance(line, dict) else line for number, line in enumerate(lines)]
    # one image for all: the questions would be doubles
    lines = [
        line | {"dialogues": [entry | {"turns": [turn | {"prompt": f"{turn['prompt']}{number}"} for turn in entry["turns"]]} for entry in line["dialogues"]]}
        if isinstance(line, dict) and "question" not in str(line) and line["dialogues"][0]["turns"][0]["prompt"].strip()
        else line
        for number, line in enumerate(lines)
    ]
    path = write(folder, record("b"), *lines)
    before = path.read_bytes()
    (folder / "new").mkdir()
    out, quarantine = folder / "new" / "r.jsonl", folder / "new" / "q.jsonl"
    fixed = fix_file(path, found(path).problems, out, quarantine)
    assert path.read_bytes() == before
    repaired = {"windows path", "latin-1", "box elsewhere", "box outside", "box inverted", "asked twice"}
    assert fixed.written == 1 + len(repaired)
    assert set(fixed.repairs) == set(report.REPAIRED.values())
    assert sum(fixed.quarantined.values()) == len(BAD) - len(repaired)
    assert found(out).problems == []
    InstructRecords(out, size=32).check()
    kept = {entry["key"]: entry for entry in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert all(entry["image"] in ("../a.png", "../b.png") for entry in kept.values())
    assert kept["a"]["source"] == "Kärnten"
    assert all(entry["instances"][0]["box"] == [8, 8, 24, 20] for entry in kept.values())
    aside = [json.loads(line) for line in quarantine.read_text(encoding="utf-8").splitlines()]
    names = list(BAD)
    assert {names[entry["line"] - 2] for entry in aside} == set(BAD) - repaired
    for entry in aside:
        assert entry["problems"][0]["kind"] == BAD[names[entry["line"] - 2]][1]
        assert entry["problems"][0]["what"]
        assert entry["text"] == before.split(b"\n")[entry["line"] - 1].decode()


def test_fix_keeps_the_first_of_a_double_key_and_the_test_side_of_a_leak(folder: Path) -> None:
    path = write(
        folder,
        record("a", split="train", image="none.png"),
        record("a", split="train"),
        record("a", split="train", image="b.png"),
        record("t", split="test", image="a.png", dialogues=[talk("[segment] what?")]),
    )
    fixed = fix_file(path, found(path).problems, folder / "new.jsonl", folder / "q.jsonl")
    assert [json.loads(line)["image"] for line in (folder / "new.jsonl").read_text().splitlines()] == ["b.png", "a.png"]
    assert fixed.quarantined == {report.NO_IMAGE: 1, report.LEAK_PATH: 1}
    assert found(folder / "new.jsonl").problems == []


def test_nothing_is_written_over_the_input(folder: Path) -> None:
    path = write(folder, record("a"))
    with pytest.raises(ValueError, match="in place"):
        fix_file(path, [], folder / "." / "r.jsonl", folder / "q.jsonl")


def test_boxes_without_masks_are_turned_and_clipped(folder: Path) -> None:
    boxes = [{"id": 1, "box": [20, 10, 8, 30]}, {"id": 2, "box": [-9, 5, 30, 90]}, {"id": 3, "box": [100, 100, 120, 120]}]
    path = write(folder, *(record(key, instances=[box], dialogues=[talk(answer="yes", targets=[])]) for key, box in zip("abc", boxes, strict=True)))
    fixed = fix_file(path, found(path).problems, folder / "new.jsonl", folder / "q.jsonl")
    assert [json.loads(line)["instances"][0]["box"] for line in (folder / "new.jsonl").read_text().splitlines()] == [[8, 10, 20, 30], [0, 5, 30, 64]]
    assert fixed.quarantined == {report.BOX_OUTSIDE: 1}


def test_the_mask_of_a_window_fits_the_window(folder: Path) -> None:
    mask = np.zeros((16, 32), dtype=bool)
    mask[2:6, 3:9] = True
    instance = {"id": 1, "class": "ship", "box": [3, 2, 9, 6], "mask": encode_rle(torch.from_numpy(mask))}
    assert kinds(write(folder, record("a", window=[8, 4, 32, 16], instances=[instance]))) == {}
    assert kinds(write(folder, record("a", window=[8, 4, 32, 90], instances=[instance]))) == {report.BAD_IMAGE: 1}


def test_windows_of_one_file_leak_where_they_overlap_and_may_be_asked_alike(folder: Path) -> None:
    windows = {"a": [0, 0, 32, 32], "b": [32, 0, 32, 32], "c": [16, 16, 16, 40], "d": None}
    records = [record(key, image="a.png", instances=[], dialogues=[talk(answer="yes", targets=[])], window=window) for key, window in windows.items()]
    split = [one | {"split": name} for one, name in zip(records, ("train", "test", "val", "test"), strict=True)]
    assert kinds(write(folder, *split[:2])) == {}, "side by side"
    assert [(problem.kind, problem.key) for problem in found(write(folder, *split[:3])).problems] == [(report.LEAK_PATH, "a")]
    whole = found(write(folder, *split)).problems
    assert sorted((problem.kind, problem.key) for problem in whole) == [(report.LEAK_PATH, "a"), (report.LEAK_PATH, "d")]
    assert any("a.png[16, 16, 16, 40] (val, line 3, c)" in problem.what for problem in whole)
    assert kinds(write(folder, records[0], records[0] | {"key": "again"})) == {report.QUESTION: 1}


def test_processes_give_what_one_gives(folder: Path) -> None:
    path = write(folder, *(record(f"k{number}", image="a.png" if number % 2 else "none.png", dialogues=[]) for number in range(300)))
    one, two = (survey([path], workers=count)[0] for count in (1, 2))
    assert one.as_json() == two.as_json()
    assert len(one.problems) == 150


def test_the_command(folder: Path) -> None:
    good = geopix("data", "check", write(folder, record("a")))
    assert (good.code, good.err) == (0, "")
    assert "1 records, 1 dialogues, 1 instances" in good.out
    path = write(folder, record("a", image=".\\a.png"), record("b", image="none.png"))
    bad = geopix("data", "check", path, "--fix", folder / "new.jsonl")
    assert bad.code == 3
    assert "2 problem(s) in 2 line(s)" in bad.out
    assert "line 2, b: the image" in bad.out
    assert "new.jsonl: 1 records; repaired: paths with forward slashes 1" in bad.out
    assert "new.quarantine.jsonl: 1 records; missing image 1" in bad.out
    assert geopix("data", "check", folder / "new.jsonl").code == 0
    as_json = geopix("data", "check", path, "--json")
    assert as_json.code == 3
    assert {kind: len(problems) for kind, problems in json.loads(as_json.out)[0]["problems"].items()} == {report.BACKSLASH: 1, report.NO_IMAGE: 1}
    aside = geopix("data", "check", path, "--quarantine", folder / "q.jsonl")
    assert "q.jsonl: 2 records" in aside.out
    assert [json.loads(line)["line"] for line in (folder / "q.jsonl").read_text().splitlines()] == [1, 2]
    (folder / "v.txt").write_text("boat\n")
    assert report.CLASS in geopix("data", "check", write(folder, record("a")), "--vocabulary", folder / "v.txt").out
    assert geopix("data", "check", path, "--limit", 0).code == 3
    assert geopix("data", "check", path, path, "--fix", folder / "x.jsonl").code == 2
    assert geopix("data", "check", folder / "none.jsonl").err.startswith("geopix: the records")


def test_the_quick_test_of_the_form_passes_what_the_schema_passes_and_nothing_else(folder: Path) -> None:
    validator, accepts = schema._validator(), schema._accepts()
    rng = random.Random(0)
    whole = record("a", split=None, gsd=0.3, window=[0, 0, 4, 4], georeference={"crs": "EPSG:4326", "transform": [1, 0, 0, 0, -1, 0]}, image_size=[4, 4])
    whole["dialogues"][0] |= {"references": ["a"], "provenance": {"rule": "x"}, "task": "segment/single"}
    others = [
        None,
        True,
        1,
        -1,
        0,
        2.5,
        1.0,
        "",
        "a",
        "a\\b",
        "[SEG]",
        "/a",
        [],
        [1, 2],
        [[1]],
        [0.5] * 4,
        {},
        {"png": "a", "value": 1},
        {"polygon": [[1] * 6]},
    ]
    refused = 0
    for _ in range(600):
        changed: Any = copy.deepcopy(whole)
        place = changed
        while isinstance(place, dict | list) and place:
            name = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if rng.random() < 0.4 or not isinstance(place[name], dict | list):
                if rng.random() < 0.2:
                    del place[name]
                else:
                    place[name] = rng.choice(others)
                break
            place = place[name]
        valid = validator.is_valid(changed)
        refused += not valid
        assert accepts(changed) == valid or (valid and "1.0" in json.dumps(changed)), "whole floats as integers are left to the validator"
        assert (schema.fault(changed) is None) == valid
    assert 200 < refused < 500
