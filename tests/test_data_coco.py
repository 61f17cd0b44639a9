"""COCO, with and without referring expressions, to records."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geopix.data.instruct import InstructRecords
from geopix.data.sources.coco import convert_coco, main
from geopix.rle import decode_rle

FAIR = Path(__file__).parents[2] / "shared" / "data" / "real" / "fair_buildings"


def coco(folder: Path, **changes: object) -> Path:
    (folder / "in" / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        Image.fromarray(np.zeros((12, 16, 3), dtype=np.uint8)).save(folder / "in" / "images" / f"{name}.png")
    square = [[0, 0, 4, 0, 4, 4, 0, 4]]
    document = {
        "info": {"description": "made by a test"},
        "licenses": [{"id": 7, "name": "CC0"}],
        "images": [
            {"id": 1, "file_name": "images/a.png", "height": 12, "width": 16, "region": "north", "license": 7},
            {"id": 2, "file_name": "images/b.png", "height": 12, "width": 16, "region": "south", "license": 7},
        ],
        "categories": [{"id": 1, "name": "Storage-Tank"}, {"id": 2, "name": "ship"}, {"id": 3, "name": "bus"}],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "segmentation": square, "iscrowd": 0},
            {"id": 11, "image_id": 1, "category_id": 2, "bbox": [3, 2, 5, 4], "segmentation": [{"size": [12, 16], "counts": "V1480000000n2"}]},
            {"id": 12, "image_id": 1, "category_id": 3, "bbox": [3, 2, 5, 4], "segmentation": square},
            {
                "id": 13,
                "image_id": 1,
                "category_id": 3,
                "bbox": [9, 7, 6, 3],
                "iscrowd": 1,
                "segmentation": {"size": [12, 16], "counts": [115, 3, 9, 3, 9, 3, 9, 3, 9, 3, 9, 3, 14]},
            },
            {"id": 14, "image_id": 1, "category_id": 2, "bbox": [0, 0, 0, 0], "segmentation": [[1, 1, 2, 2]]},
            {"id": 15, "image_id": 2, "category_id": 2, "bbox": [0, 0, 4, 4], "segmentation": square},
            {"id": 16, "image_id": 2, "category_id": 2, "bbox": [0, 0, 4, 4], "segmentation": square},
        ],
    }
    (folder / "in" / "coco.json").write_text(json.dumps(document | changes))
    return folder / "in" / "coco.json"


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def asked(record: dict) -> dict[str, tuple[str, str, list]]:
    return {dialogue["task"]: (dialogue["turns"][0]["prompt"], dialogue["turns"][0]["answer"], dialogue["targets"]) for dialogue in record["dialogues"]}


def test_plain_coco(tmp_path: Path) -> None:
    output = tmp_path / "out" / "records.jsonl"
    assert convert_coco(coco(tmp_path), output) == 2
    first, second = read(output)
    assert first["image"] == "../in/images/a.png"
    assert (first["key"], first["split"], first["licence"], first["source"]) == ("a", "north", "CC0", "made by a test")
    assert [(one["id"], one["class"], one["distractor_only"]) for one in first["instances"]] == [
        (10, "storage tank", False),
        (11, "ship", False),
        (12, "bus", False),
        (13, "bus", True),
    ], "a crowd is never a single target; a polygon of two points is no mask"
    assert first["instances"][1]["box"] == [3, 2, 8, 6]
    singles = [dialogue["targets"] for dialogue in first["dialogues"] if dialogue["task"] == "segment/single"]
    assert singles == [[[10]], [[11]]]
    prompt, answer, targets = asked(first)["segment/group"]
    assert "all the buses" in prompt
    assert (answer, targets) == ("All the buses are [SEG].", [[12, 13]])
    prompt, answer, targets = asked(first)["segment/multi"]
    assert prompt == "[segment] please segment the storage tank and the ship."
    assert (answer, targets) == ("The storage tank is [SEG] and the ship is [SEG].", [[10], [11]])
    assert list(asked(second)) == ["segment/group"]
    records = InstructRecords(output, size=32)
    records.check()
    crowd = records.sample(0, True).truth
    assert crowd is not None
    assert int(decode_rle(crowd[2][0]).sum()) == 16 + 18


def test_refs(tmp_path: Path) -> None:
    refs = [
        {"image_id": 1, "kind": "colour", "text": "the white tank", "ann_ids": [10]},
        {"image_id": 1, "kind": "position", "text": "the tank at the top", "ann_ids": [10]},
        {"image_id": 1, "kind": "position", "text": "the crowd", "ann_ids": [13]},
        {"image_id": 1, "kind": "all", "text": "all buses", "ann_ids": [12, 13]},
        {"image_id": 1, "kind": "count", "text": "How many buses are there?", "ann_ids": [12, 13]},
        {"image_id": 1, "kind": "negative", "text": "the airplane", "ann_ids": []},
    ]
    output = tmp_path / "records.jsonl"
    assert convert_coco(coco(tmp_path, refs=refs), output) == 1, "the second image has no expression"
    (record,) = read(output)
    tasks = [dialogue["task"] for dialogue in record["dialogues"]]
    assert tasks == ["segment/single", "segment/single", "segment/group", "vqa/count", "segment/absent"], "two words for one object make no multi"
    assert asked(record)["vqa/count"] == ("[vqa] how many buses are there?", "2", [])
    prompt, answer, targets = asked(record)["segment/absent"]
    assert "the airplane" in prompt
    assert (answer, targets) == ("The airplane is not in this image.", [])
    InstructRecords(output, size=32).check()


def test_command_line_is_deterministic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path)
    contents = set()
    for _ in range(2):
        main([str(source), str(tmp_path / "r.jsonl"), "--region", "south"])
        contents.add((tmp_path / "r.jsonl").read_bytes())
    assert len(contents) == 1
    assert capsys.readouterr().out.startswith("1 records in")


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0 records.*region='east'; found regions \['north', 'south'\]"):
        convert_coco(coco(tmp_path), tmp_path / "r.jsonl", region="east")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="is not COCO"):
        convert_coco(tmp_path / "x.json", tmp_path / "r.jsonl")
    (tmp_path / "x.json").write_text("<html>")
    with pytest.raises(ValueError, match="not valid JSON"):
        convert_coco(tmp_path / "x.json", tmp_path / "r.jsonl")
    with pytest.raises(FileNotFoundError, match="do not exist"):
        convert_coco(tmp_path / "none.json", tmp_path / "r.jsonl")


@pytest.mark.skipif(not FAIR.is_dir(), reason="the real buildings beside the project are absent")
def test_real_buildings(tmp_path: Path) -> None:
    output = tmp_path / "all.jsonl"
    assert convert_coco(FAIR / "annotations.json", output) == 11
    records = InstructRecords(output, size=64)
    records.check()
    assert len(InstructRecords(output, size=64, split="kampala")) == 7
    assert convert_coco(FAIR / "annotations.json", tmp_path / "c.jsonl", region="catanduanes") == 4
    every = next(number for number, task in enumerate(records.tasks(4)) if task == "segment/group")
    sample = records.sample(4, True, [every])
    assert sample.truth is not None
    with Image.open(FAIR / "masks" / f"{sample.key}.png") as image:
        assert torch.equal(decode_rle(sample.truth[0][0]), torch.from_numpy(np.asarray(image) > 0))
    assert sample.georeference is not None
    assert sample.truth == sample.unions
    kinds = {task for index in range(11) for task in records.tasks(index)}
    assert kinds == {"segment/single", "segment/group", "segment/absent", "segment/multi", "vqa/count"}
