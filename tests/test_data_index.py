"""The saved index of a JSONL: what it tells without reading records, when it holds, and who shares it."""

import json
import multiprocessing
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geopix.data import index as index_module
from geopix.data.index import ARRAYS, Index, open_index, scan
from geopix.data.instruct import InstructRecords, RealImages
from geopix.data.order import position

TASKS = [("segment/single", "vqa/count"), ("vqa/count",), (), ("caption/scene", "segment/group", "segment/single")]


def line(number: int, split: str | None = None) -> str:
    talks = [{"task": task, "turns": [{"prompt": "p", "answer": "a"}]} for task in TASKS[number % len(TASKS)]]
    return json.dumps({"image": "a.png", "key": f"k{number}", "dialogues": talks} | ({} if split is None else {"split": split}))


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    return write(tmp_path / "r.jsonl", [line(number, "val" if number % 3 else "train") for number in range(30)])


@pytest.fixture
def saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(index_module, "SAVED_FROM", 0)
    return path


def equal(first: Index, second: Index) -> bool:
    same = all(np.array_equal(vars(first)[name], vars(second)[name]) for name in ARRAYS)
    return same and (first.split_names, first.task_names) == (second.split_names, second.task_names)


def test_tasks_and_splits_are_those_of_the_records(path: Path) -> None:
    records = InstructRecords(path, size=8, split="train")
    assert [records.record(index)["key"] for index in range(len(records))] == [f"k{number}" for number in range(0, 30, 3)]
    assert [records.tasks(index) for index in range(len(records))] == [TASKS[number % 4] for number in range(0, 30, 3)]
    assert records.task_counts() == Counter(task for number in range(0, 30, 3) for task in TASKS[number % 4])
    assert InstructRecords(path, size=8).task_counts() == Counter(task for number in range(30) for task in TASKS[number % 4])
    assert [records.line(index) for index in range(3)] == [1, 4, 7]


def test_records_that_a_mix_allows(path: Path) -> None:
    source = RealImages(path, 8, split="val")
    numbers = [number for number in range(30) if number % 3]
    for mix, wanted in (({"caption": 1.0}, {3}), ({"vqa": 1.0}, {0, 1}), ({"segment/group": 1.0, "vqa": 0.0}, {3}), ({"refer": 1.0}, set())):
        found = source.having(mix)
        assert found is not None
        assert [numbers[place] for place in found] == [number for number in numbers if number % 4 in wanted]
    assert source.kinds == {"segment/single", "segment/group", "vqa/count", "caption/scene"}
    shown = {position(source, number, {"caption": 1.0})[0] for number in range(len(source.having({"caption": 1.0}) or ()))}
    assert shown == set(np.asarray(source.having({"caption": 1.0})).tolist())
    assert RealImages(write(path.with_name("all.jsonl"), [line(0), line(4)]), 8).having({"vqa": 1.0}) is None, "every record has one"


def test_a_key_is_found_without_reading_other_records(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = InstructRecords(path, size=8, split="train")
    read = []
    monkeypatch.setattr(records, "_read", lambda row, of=records._read: read.append(row) or of(row))
    assert records.original("k9").path.name == "a.png"
    assert set(read) == {9}
    with pytest.raises(KeyError, match="k1"):
        records.original("k1")


def test_a_small_file_leaves_no_index_beside_it(path: Path) -> None:
    open_index(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.png", "r.jsonl"]


def test_a_saved_index_equals_a_new_one_and_is_mapped(saved: Path) -> None:
    fresh = scan(saved)
    for index in (open_index(saved), open_index(saved)):
        assert equal(index, fresh)
        assert all(isinstance(vars(index)[name], np.memmap) for name in ARRAYS if vars(index)[name].size)
    assert fresh.folder is None


def test_the_file_is_not_read_when_its_index_is_saved(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(saved)
    monkeypatch.setattr(index_module, "scan", lambda path: pytest.fail("the file was read"))
    assert len(open_index(saved)) == 30


def test_a_changed_file_gets_a_new_index_and_the_old_one_goes(saved: Path) -> None:
    before = open_index(saved)
    write(saved, [line(number) for number in range(7)])
    assert len(open_index(saved)) == 7
    state = saved.stat()
    changed = saved.read_text().replace("caption/scene", "caption/place")
    saved.write_text(changed)
    os.utime(saved, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert saved.stat().st_size == state.st_size
    assert "caption/place" in open_index(saved).task_names
    assert len(list(saved.with_name("r.jsonl.index").iterdir())) == 1
    assert before.tasks_of(0) == TASKS[0], "who still holds the old one goes on reading it"


def test_a_damaged_index_is_made_anew(saved: Path) -> None:
    folder = open_index(saved).folder
    assert folder is not None
    (folder / "offsets.npy").write_bytes(b"\x93NUMPY")
    assert len(open_index(saved)) == 30
    (folder / "names.json").unlink()
    assert len(open_index(saved)) == 30


def test_where_the_folder_cannot_be_written_the_cache_takes_the_index(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    saved.with_name("r.jsonl.index").write_text("a file where the folder should be")
    folder = open_index(saved).folder
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "cache")
    assert open_index(saved).folder == folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(saved))
    assert open_index(saved).folder is None, "in memory, where nothing can be written"


def _open(path: str, at: str, told: "multiprocessing.Queue[tuple[int, str]]") -> None:
    index_module.SAVED_FROM = 0
    while not os.path.exists(at):
        pass
    index = open_index(Path(path))
    told.put((len(index), str(index.folder)))


def test_several_processes_make_it_at_once(saved: Path, tmp_path: Path) -> None:
    write(saved, [line(number) for number in range(3000)])
    context = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[tuple[int, str]] = context.Queue()
    ranks = [context.Process(target=_open, args=(str(saved), str(tmp_path / "go"), told)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    (tmp_path / "go").touch()
    found = {told.get(timeout=60) for _ in ranks}
    for rank in ranks:
        rank.join(60)
    assert {count for count, _ in found} == {3000}
    assert len({folder for _, folder in found}) == 1
    assert len(list(saved.with_name("r.jsonl.index").iterdir())) == 1, "nothing half-written is left"


def test_a_worker_gets_the_place_of_the_index_and_not_a_copy(saved: Path) -> None:
    write(saved, [line(number) for number in range(5000)])
    records = InstructRecords(saved, size=8)
    sent = pickle.dumps(records)
    assert len(sent) < 2000
    assert len(pickle.loads(sent)) == 5000
    in_memory = scan(saved)
    assert equal(pickle.loads(pickle.dumps(in_memory)), in_memory)


def test_lines_that_are_no_records_keep_their_place(tmp_path: Path) -> None:
    raw = b'\xef\xbb\xbf{"image": "a"}\r\n\n  \n{half\n[1]\n{"image": "b", "split": "val", "dialogues": [3, {"task": 5}]}'
    (tmp_path / "r.jsonl").write_bytes(raw)
    index = scan(tmp_path / "r.jsonl")
    assert index.lines.tolist() == [1, 4, 5, 6]
    assert [raw[start:].split(b"\n")[0][:7] for start in index.offsets.tolist()][1:] == [b"{half", b"[1]", b'{"image']
    assert index.split_counts() == {None: 1, "val": 1}
    assert index.of_split("val").tolist() == [1, 2, 3], "unreadable lines stay, so that a check tells them"
    assert index.of_split("test").tolist() == [1, 2]
    assert index.tasks_of(3) == ("segment/single", "5")


def test_an_empty_file_has_an_empty_index(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b"\n")
    index = scan(tmp_path / "r.jsonl")
    assert (len(index), index.task_counts(), index.of_split("x").tolist()) == (0, Counter(), [])
    assert index.allowed(lambda task: True).tolist() == []


def test_what_is_no_jsonl_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b"PK\x03\x04 zip")
    with pytest.raises(ValueError, match="is no JSONL: it is a zip archive"):
        open_index(tmp_path / "r.jsonl")
