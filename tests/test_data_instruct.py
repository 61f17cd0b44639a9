"""The JSONL format: what a record gives, and what check() says about records that are wrong."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geopix.data.augment import turned
from geopix.data.instances import InstanceMasks
from geopix.data.instruct import InstructRecords, RealImages
from geopix.data.module import _Planned
from geopix.data.source import collate
from geopix.rle import decode_rle, encode_rle

RLE = {"size": [12, 16], "counts": "V1480000000n2"}  # rows 2-5, columns 3-7
ROWS_7_9 = torch.zeros(12, 16, dtype=torch.bool)
ROWS_7_9[7:10, 9:15] = True


def instances() -> list[dict]:
    runs = [115, 3, 9, 3, 9, 3, 9, 3, 9, 3, 9, 3, 14]
    return [
        {"id": 1, "class": "tank", "box": [3, 2, 8, 6], "mask": RLE},
        {"id": "b", "class": "ship", "mask": {"size": [12, 16], "counts": runs}},
        {"id": 3, "class": "ship", "mask": {"polygon": [[0, 0, 4, 0, 4, 2, 0, 2]]}},
        {"id": 4, "class": "ship", "mask": {"png": "ids.png", "value": 300}, "distractor_only": True},
    ]


def talk(answer: str, targets: list, task: str = "segment/single", prompt: str = "[segment] where is it?") -> dict:
    return {"task": task, "turns": [{"prompt": prompt, "answer": answer}], "targets": targets}


def record(**changes: object) -> dict:
    dialogues = [
        talk("Sure, it is [SEG].", [[1]]),
        talk("Sure, they are [SEG].", [["b", 3, 4]], "segment/group"),
        talk("Sure, they are [SEG] and [SEG].", [["b"], [1, 3]], "segment/multi"),
        talk("2", [], "vqa/count"),
    ]
    return {"image": "a.png", "key": "a", "split": "train", "instances": instances(), "dialogues": dialogues} | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(np.full((12, 16, 3), 51, dtype=np.uint8)).save(tmp_path / "a.png")
    ids = np.zeros((12, 16), dtype=np.uint16)
    ids[11] = 300
    Image.fromarray(ids).save(tmp_path / "ids.png")
    return tmp_path


def write(folder: Path, *records: object) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "records.jsonl"


def problems(path: Path, whole: int = 50, **options: object) -> str:
    with pytest.raises(ValueError, match=r"records\.jsonl") as error:
        InstructRecords(path, size=32, **options).check(whole=whole)
    return str(error.value)


def test_a_record_becomes_a_sample(folder: Path) -> None:
    records = InstructRecords(write(folder, record()), size=32)
    records.check()
    sample = records.sample(0, True)
    assert sample.image.shape == (3, 32, 32)
    assert sample.image[:, 16, 16].tolist() == pytest.approx([0.2] * 3)
    assert (sample.key, sample.georeference, records.num_bands()) == ("a", None, 3)
    single, group, multi, count = sample.dialogues
    assert [dialogue.task for dialogue in sample.dialogues] == ["segment/single", "segment/group", "segment/multi", "vqa/count"]
    assert (single.classes, group.classes, multi.classes, count.classes) == (("tank",), ("ship",), ("ship", None), ())
    assert [dialogue.masks.shape[0] for dialogue in sample.dialogues] == [1, 1, 2, 0]
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[2:6, 3:8] = True
    assert sample.truth is not None
    assert torch.equal(decode_rle(sample.truth[0][0]), inside)
    assert torch.equal(decode_rle(sample.truth[2][0]), ROWS_7_9)
    whole = decode_rle(sample.truth[1][0])
    assert (whole[7:10, 9:15].all(), whole[:2, :4].all(), whole[11].all(), int(whole.sum())) == (True, True, True, 18 + 8 + 16)
    assert torch.equal(single.masks[0, 4:28], inside.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert sample.unions is None, "one target has two classes"


def test_all_true_answers_reach_the_scores_and_nothing_else(folder: Path) -> None:
    texts = ["Two ships.", "Two ships at sea."]
    caption = talk(texts[0], [], "caption/scene", "[caption] describe the image.") | {"references": texts}
    count = talk("2", [], "vqa/count")
    sample = InstructRecords(write(folder, record(dialogues=[count, caption])), size=32).sample(0, True)
    batch = collate([sample])
    assert batch.references == ((), tuple(texts))
    assert collate([sample], join=2).references == (tuple(texts),), "of the last turn"
    assert collate([replace(sample, dialogues=sample.dialogues[::-1])], join=2).references == ((),)
    assert texts[1] not in str(batch.dialogues), "what the language model is given"
    assert [dialogue.references for dialogue in turned(sample, "h").dialogues] == [(), ()], "what was said of another view"
    assert "dialogues[0].references is 'Two ships.'; expected a list of texts" in problems(
        write(folder, record(dialogues=[caption | {"references": texts[0]}]))
    )


def test_the_documented_record(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    document = json.loads(page.split("```json")[1].split("```")[0])
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((12, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / "harbour.tif")
    Image.fromarray(np.full((12, 16), 3, dtype=np.uint8)).save(tmp_path / "masks" / "harbour.png")
    records = InstructRecords(write(tmp_path, document), size=16)
    records.check()
    assert [len(dialogue.masks) for dialogue in records.sample(0, True).dialogues] == [1, 2, 1, 0, 0]


def test_without_truth_and_with_some_dialogues(folder: Path) -> None:
    records = InstructRecords(write(folder, record()), size=32)
    sample = records.sample(0, False, [3, 0])
    assert (sample.truth, sample.unions) == (None, None)
    assert [dialogue.task for dialogue in sample.dialogues] == ["vqa/count", "segment/single"]


def test_unions_hold_all_of_the_class(folder: Path) -> None:
    sample = InstructRecords(write(folder, record()), size=32).sample(0, True, [0, 1])
    assert sample.unions is not None
    assert sample.unions[0] == sample.truth[0], "the only tank"
    assert int(decode_rle(sample.unions[1][0]).sum()) == 42


def test_splits_and_lines_are_found_without_reading_all(folder: Path) -> None:
    path = write(folder, record(key="a"), "", record(key="b", split="val"), record(key="ü", split="val"))
    assert len(InstructRecords(path, size=8)) == 3
    val = InstructRecords(path, size=8, split="val")
    assert [val.sample(index, False).key for index in range(len(val))] == ["b", "ü"]
    found = problems(path, split="test")
    assert "0 records with split='test'; found splits {'train': 1, 'val': 2}" in found


def test_geotiff_bands_and_range(folder: Path) -> None:
    values = np.stack([np.full((12, 16), 1000), np.full((12, 16), 2000)]).astype(np.uint16)
    place = {"crs": "EPSG:32636", "transform": rasterio.transform.from_origin(5, 6, 1, 1)}
    with rasterio.open(folder / "a.tif", "w", driver="GTiff", count=2, height=12, width=16, dtype="uint16", **place) as file:
        file.write(values)
    path = write(folder, record(image="a.tif"))
    assert "uint16, and no range is declared" in problems(path)
    sample = InstructRecords(path, size=16, bands=[2], high=4000).sample(0, False)
    assert sample.image.shape == (1, 16, 16)
    assert sample.image[0, 8, 8] == 0.5
    assert sample.georeference is not None
    assert "a.tif has 2 band(s)" in problems(path, bands=[1, 2, 3], high=4000)
    assert "uint16, and no range is declared" in problems(path, whole=0)
    assert "the window [8, 0, 16, 12] (left, top, width, height) does not lie in it" in problems(write(folder, record(window=[8, 0, 16, 12])), whole=0)
    assert "different numbers of bands: 3 (x), 2 (y)" in problems(write(folder, record(key="x"), record(key="y", image="a.tif")), high=4000)


@pytest.mark.parametrize("whole", [50, 0], ids=["read", "looked at"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "b.png"}, r"line 1, a: the image .*b.png does not exist"),
        ({"image": "ids.jsonl"}, r"cannot be read as an image: it is a git-lfs pointer"),
        ({"dialogues": [talk("[SEG] [SEG] [SEG]", [[1], ["b"]])]}, r"line 1, a, dialogue 0: the answers hold 3 \[SEG\] but targets lists 2"),
        ({"dialogues": [talk("[SEG]", [[1, 9]])]}, r"name the instances \[9\]"),
        ({"dialogues": [talk("[SEG]", [[4]])]}, r"instance 4 is distractor_only"),
        ({"dialogues": [talk("[SEG]", [[]])]}, r"expected a list of at least one instance id"),
        ({"dialogues": [talk("[SEG]", [1])]}, r"expected a list of at least one instance id"),
        ({"dialogues": [talk("[SEG]", [[1]], prompt="where is [SEG]?")]}, r"a prompt must not contain"),
        ({"dialogues": []}, r"no dialogues"),
        ({"dialogues": [{"turns": []}]}, r"turns is \[\]; expected a list of at least one {prompt, answer}"),
        ({"dialogues": [{"turns": [{"question": "x"}]}]}, r"field is missing: 'prompt'"),
        ({"instances": instances() + instances()[:1]}, r"same id twice"),
        ({"instances": [{"id": 1, "mask": encode_rle(torch.ones(6, 8, dtype=torch.bool))}]}, r"instance 1 is 6 x 8 .* image is 12 x 16"),
        ({"instances": [{"id": 1, "mask": {"size": [12, 16], "counts": [5, 7]}}]}, r"192 pixels, but its runs hold 12"),
        ({"instances": [{"id": 1, "mask": {"polygon": [[0, 0, 64, 0, 64, 48]]}}]}, r"reaches x = 64, y = 48 .* 12 x 16"),
        ({"instances": [{"id": 1, "mask": {"polygon": [[0, 0, 4, 4]]}}]}, r"three points or more"),
        ({"instances": [{"id": 1, "mask": {"png": "ids.png", "value": 7}}]}, r"mask of instances \[1\] is empty"),
        ({"instances": [{"id": 1, "mask": {"png": "a.png", "value": 7}}]}, r"a.png has 3 channels"),
        ({"instances": [{"id": 1, "mask": {"png": "none.png", "value": 7}}]}, r"none.png does not exist"),
        ({"instances": [{"id": 1}]}, r"instance 1 has no mask"),
    ],
)
def test_what_is_wrong_is_told(folder: Path, changes: dict, words: str, whole: int) -> None:
    (folder / "ids.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    base = record(dialogues=[talk("[SEG]", [[1]])])
    found = problems(write(folder, base | changes), whole)
    assert re.search(words, found), found
    assert "1 problem(s) in the first 1 records" in found


def test_what_only_pixels_show_is_told_when_they_are_read(folder: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(folder / "cut.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-150])
    records = InstructRecords(write(folder, record(), record(key="cut", image="cut.jpg")), size=32)
    records.check(whole=1)
    assert "line 2, cut: " in problems(folder / "records.jsonl", whole=2)
    with pytest.raises(ValueError, match=r"cut.jpg cannot be read as an image: it begins like a JPEG"):
        records.sample(1, False)


def test_no_mask_is_decoded_twice_and_few_at_all_to_look_at_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    whole = InstanceMasks.mask
    monkeypatch.setattr(InstanceMasks, "mask", lambda self, name: decoded.append(name) or whole(self, name))
    InstructRecords(write(folder, record()), size=32).check(whole=0)
    assert sorted(map(str, decoded)) == ["b"], "runs that are not compressed"


def test_all_problems_come_at_once(folder: Path) -> None:
    path = write(folder, record(), "{not json", record(), "[1, 2]", record(key="c", image="images\\c.png"), record(key="d", dialogues=[talk("[SEG]", [])]))
    found = problems(path)
    assert "5 problem(s)" in found
    assert "line 2 is not valid JSON" in found
    assert "line 3: the key 'a' was given to line 1" in found
    assert "line 4: expected an object" in found
    assert "forward slashes" in found
    assert "line 6, d, dialogue 0: the answers hold 1 [SEG] but targets lists 0" in found
    InstructRecords(path, size=8).check(limit=1)


def test_files_that_are_no_records(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="do not exist"):
        InstructRecords(folder / "none.jsonl", size=8)
    with pytest.raises(ValueError, match="git-lfs pointer"):
        InstructRecords(write(folder, "version https://git-lfs.github.com/spec/v1"), size=8)
    assert "0 records. The file holds no line" in problems(write(folder, ""))


def test_as_a_source(folder: Path) -> None:
    source = RealImages(write(folder, record(), record(key="b")), 32, dialogues=2)
    source.check()
    assert (source.count, source.bands) == (2, 3)
    sample = source.sample(1, {"segment": 1.0})
    assert len(sample.dialogues) == 2
    assert {dialogue.task.split("/")[0] for dialogue in sample.dialogues} == {"segment"}
    assert [dialogue.task for dialogue in source.sample(0, {"segment": 0.0, "vqa": 1.0}).dialogues] == ["vqa/count"]
    assert len(RealImages(folder / "records.jsonl", 32).sample(0).dialogues) == 4
    with pytest.raises(ValueError, match="leaves none of the dialogues"):
        source.sample(0, {"caption": 1.0})
    batch = collate([source.sample(0, truth=True), source.sample(1, truth=True)])
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.truth is not None
    assert len(batch.truth) == len(batch.masks)


def test_all_that_a_source_is_read_with_identifies_it(folder: Path) -> None:
    path = write(folder, record())
    changes = [{"high": 200}, {"low": 1}, {"bands": [1]}, {"root": folder}, {"dialogues": 1}, {"seed": 1}, {"size": 64}, {"split": "train"}]
    named = [RealImages(path, **change).identity for change in ({}, *changes)]
    assert len(set(named)) == len(named)
    assert RealImages(path).identity == named[0]
    write(folder, record(key="b"))
    assert RealImages(path).title == RealImages(path).identity.split(";")[0]
    assert RealImages(path).identity != named[0], "the file was written again"


def test_every_epoch_draws_other_dialogues_of_an_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    talks = [{"task": "vqa/count", "turns": [{"prompt": f"[vqa] question {number}?", "answer": str(number)}]} for number in range(12)]
    (tmp_path / "one.jsonl").write_text(json.dumps({"image": "one.png", "dialogues": talks}) + "\n", encoding="utf-8")
    source = RealImages(tmp_path / "one.jsonl", 8, dialogues=2)
    asked = [[talk.turns[0].answer for talk in source.sample(0, {"vqa": 1.0}, epoch=epoch).dialogues] for epoch in range(60)]
    assert len({answer for epoch in asked for answer in epoch}) == 12, "drawn the same in every epoch, ten of twelve would never be learnt"
    assert asked[3] == [talk.turns[0].answer for talk in source.sample(0, {"vqa": 1.0}, epoch=3).dialogues]
    planned = _Planned(source, [(0, {"vqa": 1.0})], seed=1)
    assert len({planned[number].dialogues[0].turns[0].answer for number in range(30)}) > 4
