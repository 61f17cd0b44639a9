"""``geopix data stats`` and ``show``: numbers of a file whose content is known, plots, a page, and pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geopix.data.quality.stats import measure_file, percentiles, table
from tests.commands import geopix


def square(name: int, x: int, y: int, side: int, of_class: str | None = "ship") -> dict:
    return {"id": name, "class": of_class, "mask": {"polygon": [[x, y, x + side, y, x + side, y + side, x, y + side]]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(np.full((60, 90, 3), 120, dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.tile(np.arange(60, dtype=np.uint16) * 500, (60, 1))).save(tmp_path / "b.png")
    talk = {"task": "segment/single", "turns": [{"prompt": "where is the red ship at the left?", "answer": "The red ship is [SEG]."}], "targets": [[1]]}
    count = {"task": "vqa/count", "turns": [{"prompt": "how many?", "answer": "2"}, {"prompt": "which colour?", "answer": "Red, and blue"}]}
    records = [
        {"image": "a.png", "key": "a", "split": "train", "gsd": 0.5, "instances": [square(1, 0, 0, 10), square(2, 75, 45, 8)], "dialogues": [talk, count]},
        {"image": "b.png", "key": "b/2", "instances": [square(1, 25, 25, 10, None), {"id": 9, "class": "ship"}], "dialogues": []},
        {"image": "none.png"},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "r.jsonl"


def test_the_numbers_are_those_of_the_file(path: Path) -> None:
    found = measure_file(path, workers=1)
    assert (found.records, found.unmeasured, len(found.troubles)) == (2, 1, 1)
    assert "line 3: the image" in found.troubles[0]
    assert found.classes == {"ship": 2, "(no class)": 1}
    assert found.areas == {"ship": [100, 64], "(no class)": [100]}
    assert found.sides == [5.0, 4.0]
    assert found.places == {"top left": 1, "bottom right": 1, "middle middle": 1}
    assert found.sizes == {"60 x 90": 1, "60 x 60": 1}
    assert found.tasks == {"segment/single": 1, "vqa/count": 1}
    assert found.colours == {"red": 3, "blue": 1}
    assert found.place_words == {"left": 1}
    assert (found.prompts, found.answers, found.per_image) == ([8, 2, 2], [5, 1, 3], [2, 2])
    said = table(found)
    assert "not measured: 1 lines, 1 instances" in said
    assert re.search(r"ship\s+2\s+66\.7%\s+82\s+98", said)
    assert percentiles([]) == {"count": 0}
    assert percentiles([1, 2, 3])["median"] == 2


def test_the_page_needs_no_other_file(path: Path, tmp_path: Path) -> None:
    said = geopix("data", "stats", path, "--out", tmp_path / "out")
    assert said.code == 3, "a line could not be measured"
    assert "not measured: line 3" in said.err
    page = (tmp_path / "out" / "stats.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert len(sources) >= 9
    assert set(sources) == {"data:image/png;base64,"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    pictures = sorted(file.name for file in (tmp_path / "out").glob("*.png"))
    assert {"instances_per_class.png", "where_instances_are.png", "side_of_an_instance_in_metres.png"} <= set(pictures)
    assert len(pictures) == len(sources)
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["classes"] == {"ship": 2, "(no class)": 1}
    first = {file: (tmp_path / "out" / file).read_bytes() for file in [*pictures, "stats.html"]}
    geopix("data", "stats", path, "--out", tmp_path / "again")
    assert {file: (tmp_path / "again" / file).read_bytes() for file in first} == first


def test_an_empty_file_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("\n")
    said = geopix("data", "stats", tmp_path / "r.jsonl", "--out", tmp_path / "out")
    assert said.code == 3
    assert "0 records" in said.out


def test_records_are_shown_with_masks_and_words(path: Path, tmp_path: Path) -> None:
    said = geopix("data", "show", path, "--out", tmp_path / "out")
    assert said.code == 3
    assert "line 3 cannot be shown: the image" in said.err
    names = [Path(line).name for line in said.out.split()]
    assert names == ["000001_a.png", "000002_b_2.png"]
    drawn = np.asarray(Image.open(tmp_path / "out" / names[0]))
    assert drawn.shape[0] > drawn.shape[1] * 60 / 90, "the words stand below the image"
    corner, middle = drawn[4:20, 4:20].reshape(-1, 3), drawn[100:140, 180:220].reshape(-1, 3)
    assert np.abs(corner.mean(0) - 120).max() > 20, "the mask of the first ship"
    assert np.abs(middle.mean(0) - 120).max() < 2, "no mask there"


def test_one_record_is_shown_by_its_key(path: Path, tmp_path: Path) -> None:
    assert [Path(line).name for line in geopix("data", "show", path, "--out", tmp_path / "out", "--key", "b/2").out.split()] == ["000002_b_2.png"]
    said = geopix("data", "show", path, "--out", tmp_path / "out", "--key", "c")
    assert (said.code, "no record" in said.err) == (3, True)
