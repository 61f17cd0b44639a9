"""The command: the same bytes however it is run, resumable, and honest about what it leaves out."""

import json
import os
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from geopix.data.build.command import SHARED, main, parser
from geopix.data.records import instance, write_records
from geopix.data.sources.overview import readers

FAIR = Path(__file__).parents[2] / "shared" / "data" / "real" / "fair_buildings"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of 70 small scenes, and what is built from them by one process."""
    folder = tmp_path_factory.mktemp("scenes")
    run(folder / "built.jsonl", "--scenes", "standard", "--count", "70", "--size", "96", "--workers", "1")
    return folder


def run(output: Path, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "geopix", "data", "build", str(output), *options], check=True, capture_output=True)


def test_any_number_of_workers_gives_the_same_bytes(scenes: Path) -> None:
    run(scenes / "two.jsonl", "--records", str(scenes / "built.scenes.jsonl"), "--workers", "2")
    assert (scenes / "two.jsonl").read_bytes() == (scenes / "built.jsonl").read_bytes()
    sheets = [json.loads((scenes / f"{name}.datasheet.json").read_text()) for name in ("two", "built")]
    assert sheets[0] | {"set": ""} == sheets[1] | {"set": ""}
    assert not list(scenes.glob("*.part*")), "nothing is left behind"


def test_a_killed_run_goes_on_without_loss_or_duplicates(scenes: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = scenes / "killed.jsonl"
    command = [sys.executable, "-m", "geopix", "data", "build", str(output), "--records", str(scenes / "built.scenes.jsonl"), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        parts = output.with_name("killed.jsonl.parts")
        while not list(parts.glob("*.jsonl")) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    done = len(list(parts.glob("*.jsonl")))
    assert 0 < done < 3, "killed in the middle"
    assert not output.exists(), "an unfinished set is no set"
    (parts / "000002.jsonl.99.part").write_text("half a li")
    assert main(command[5:]) == 0
    assert "shards are there from an earlier run" in caplog.text
    assert output.read_bytes() == (scenes / "built.jsonl").read_bytes()
    sheet, whole = (json.loads((scenes / f"{name}.datasheet.json").read_text()) for name in ("killed", "built"))
    assert sheet | {"set": ""} == whole | {"set": ""}
    assert not parts.exists()


def test_parts_of_another_job_are_refused_and_restart_begins_anew(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, source = tmp_path / "built.jsonl", tmp_path / "few.jsonl"
    few = [json.loads(line) for line in (scenes / "built.scenes.jsonl").read_text().splitlines()[:2]]
    write_records(source, (record | {"image": str(scenes / record["image"])} for record in few))
    parts = output.with_name("built.jsonl.parts")
    parts.mkdir()
    (parts / "job.json").write_text('{"choices": {"seed": 1}}')
    assert main([str(output), "--records", str(source), "--workers", "1"]) == 3
    assert "parts of another job" in capsys.readouterr().err
    assert main([str(output), "--records", str(source), "--workers", "1", "--restart"]) == 0
    assert len(output.read_text().splitlines()) == 2


def test_what_cannot_be_read_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 90, dtype=np.uint8)
    image[10:30, 10:30] = (200, 30, 30)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    (tmp_path / "page.png").write_text("<html><title>404</title></html>")
    square = np.zeros((64, 64), dtype=np.uint8, order="F")
    square[10:30, 10:30] = 1
    packed = coco.encode(square)
    rle = {"size": [64, 64], "counts": packed["counts"].decode()}
    ship = instance(1, rle, of_class="ship")
    records = [
        {"image": "a.png", "key": "right", "instances": [ship, instance(2, {"polygon": [[40, 40, 60, 40, 60, 60, 40, 60]]}, of_class="ship")]},
        {"image": "gone.png", "key": "gone", "instances": [ship]},
        {"image": "page.png", "key": "page", "instances": [ship]},
        {"image": "a.png", "key": "cut", "instances": [instance(1, rle | {"counts": rle["counts"][:-2]}, of_class="ship")]},
        {"image": "a.png", "key": "small", "instances": [instance(1, {"size": [32, 32], "counts": rle["counts"]}, of_class="ship")]},
        {"image": "a.png", "key": "bare", "instances": [{"id": 1, "class": "ship"}]},
        {"image": "a.png", "key": "right", "instances": [ship]},
        {"image": "a.png", "key": "empty", "instances": []},
    ]
    source = tmp_path / "records.jsonl"
    write_records(source, records)
    with source.open("ab") as file:
        file.write(b'{"image": "a.png", "key": "ha')
    output = tmp_path / "out" / "built.jsonl"
    assert main([str(output), "--records", str(source), "--workers", "1"]) == 0
    held = [json.loads(line) for line in (output.parent / "built.quarantine.jsonl").read_text().splitlines()]
    told = {entry["where"].split(", ")[-1]: entry for entry in held}
    assert set(told) == {"line 7", "line 9", "gone", "page", "cut", "small", "bare"}
    assert "does not exist" in told["gone"]["what"]
    assert "HTML page" in told["page"]["what"]
    assert "not valid JSON" in told["line 9"]["what"]
    assert "line 1" in told["line 7"]["what"]
    made = {record["key"]: record for record in map(json.loads, output.read_text().splitlines())}
    assert made["right"]["image"] == "../a.png", "paths start from the new file"
    sheet = json.loads((output.parent / "built.datasheet.json").read_text())
    assert sum(sheet["left out"].values()) == 7
    assert sheet["totals"]["records"] + sheet["totals"].get("records left out: nothing can be said", 0) + 5 == sheet["totals"]["records read"] == 7
    assert "| ship | 2 |" in (output.parent / "built.datasheet.md").read_text()


def test_options_that_make_no_sense_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--scenes", "standard", "--workers", "0"], [], ["--records", "a.jsonl", "--scenes", "easy"]):
        with pytest.raises(SystemExit) as stop:
            main([str(tmp_path / "built.jsonl"), *words])
        assert stop.value.code == 2
    assert main([str(tmp_path / "built.jsonl"), "--records", str(tmp_path / "none.jsonl")]) == 3
    assert "none.jsonl do not exist" in capsys.readouterr().err
    source = tmp_path / "same.jsonl"
    source.write_text('{"image": "a.png"}\n')
    assert main([str(source), "--records", str(source)]) == 3


@pytest.mark.skipif(not FAIR.is_dir(), reason="the real buildings beside the project are absent")
def test_real_buildings_are_described(tmp_path: Path) -> None:
    from geopix.data.instruct import InstructRecords
    from geopix.data.sources.coco import convert_coco

    convert_coco(FAIR / "annotations.json", tmp_path / "records.jsonl", region="catanduanes")
    run(tmp_path / "built.jsonl", "--records", str(tmp_path / "records.jsonl"), "--workers", "1")
    records = [json.loads(line) for line in (tmp_path / "built.jsonl").read_text().splitlines()]
    assert len(records) == 4
    for record in records:
        assert 0.13 < record["measured"]["gsd"] < 0.15, "metres on the ground, not of the web map"
        hidden = {entry["id"] for entry in record["instances"] if entry.get("distractor_only")}
        marked = {thing["id"] for thing in record["measured"]["things"] if thing["rejected"] == "marked by its source"}
        assert marked <= hidden
        for dialogue in record["dialogues"]:
            assert dialogue["task"].split("/")[0] in ("segment", "refer", "caption", "vqa")
            assert all(proof["text"] for proof in dialogue["provenance"]["sentences"])
    InstructRecords(tmp_path / "built.jsonl", size=64).check()
    run(tmp_path / "kept.jsonl", "--records", str(tmp_path / "records.jsonl"), "--workers", "1", "--keep")
    InstructRecords(tmp_path / "kept.jsonl", size=64).check()  # also of dialogues that ask for what this command would not
    sheet = json.loads((tmp_path / "built.datasheet.json").read_text())
    assert sheet["totals"]["dialogues of the input, left out"] > 20
    assert os.path.isfile(tmp_path / "built.datasheet.md")


def test_a_set_is_described_as_its_reader_finds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.full((64, 64, 3), 90, dtype=np.uint8)
    image[10:30, 10:30] = (200, 30, 30)
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "set" / f"{name}.png"), image[..., ::-1])
    square = {"segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]], "bbox": [10, 10, 20, 20], "category_id": 1}
    document = {
        "images": [{"id": number, "file_name": f"{name}.png", "split": split} for number, (name, split) in enumerate([("a", "train"), ("b", "test")])],
        "annotations": [square | {"id": number, "image_id": number} for number in range(2)],
        "categories": [{"id": 1, "name": "storage_tank"}],
    }
    (tmp_path / "set" / "all.json").write_text(json.dumps(document))
    output = tmp_path / "built.jsonl"
    words = ["--reader", "coco", "--annotations", "all.json", "--root", str(tmp_path / "set"), "--split", "test", "--workers", "1"]
    assert main([*words, str(output)]) == 0
    (record,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert (record["key"], record["image"], record["split"]) == ("b", "set/b.png", "test")
    assert {"segment/single", "vqa/count"} <= {dialogue["task"] for dialogue in record["dialogues"]}
    assert all("provenance" in dialogue for dialogue in record["dialogues"]), "what the reader itself says of them is replaced"
    assert main([str(tmp_path / "no.jsonl"), "--reader", "coco", "--root", str(tmp_path / "set")]) == 3
    assert "annotations.json do not exist" in capsys.readouterr().err
    for wrong in (["--reader", "coca", "--root", "."], ["--reader", "coco", "--tile", "3"], ["--records", "a.jsonl", "--tile", "3"]):
        with pytest.raises(SystemExit) as stop:
            main([str(output), *wrong])
        assert stop.value.code == 2
    assert "Did you mean coco" in capsys.readouterr().err


def test_options_of_readers_are_not_options_of_the_command() -> None:
    own = {action.dest for action in parser()._actions}
    for reader in readers():
        assert not own & set(signature(reader).parameters) - set(SHARED), reader
