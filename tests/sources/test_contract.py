"""What holds for every reader of a public format; readers are found by themselves, and one without a miniature fails."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from geopix.data.instruct import InstructRecords
from geopix.data.records import line_of, write_records
from geopix.data.schema import fault
from geopix.data.source import collate
from geopix.data.sources.overview import markdown, readers
from geopix.data.sources.public import PublicSet, convert
from geopix.data.sources.reader import Reader, Report, from_folder
from geopix.rle import decode_rle
from tests.sources.layouts import LAYOUTS, Miniature

READERS = readers()


@pytest.fixture
def miniature(request: pytest.FixtureRequest, tmp_path: Path) -> Miniature:
    return LAYOUTS[request.param](tmp_path / "set")


each = pytest.mark.parametrize("miniature", [reader for reader in READERS if reader in LAYOUTS], indirect=True, ids=lambda reader: reader.__name__)


def test_every_reader_has_a_miniature() -> None:
    assert set(READERS) == set(LAYOUTS)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_reader_says_what_is_known_about_its_set(reader: type[Reader]) -> None:
    about = reader.about
    assert all(text.strip() for text in (about.name, about.publication, about.licence, about.protocol))
    assert about.counted in ("images", "dialogues")
    assert all(sentence.endswith(".") for sentence in about.uncertain)
    assert reader.__doc__
    assert "root:" in reader.__doc__, "arguments are explained where --help shows them"


@each
def test_masks_survive_the_way_from_layout_to_records(miniature: Miniature, tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    for number, (reader, expected) in enumerate(zip(miniature.readers, miniature.masks, strict=True)):
        report, path = Report(), tmp_path / "out" / f"{number}.jsonl"
        write_records(path, (from_folder(record, path.parent) for record in reader.records(report)))
        for kind, count in report.counts.items():
            counts[kind] = counts.get(kind, 0) + count
        assert sum(report.counts[kind] for kind in {entry["kind"] for entry in report.quarantine}) == len(report.quarantine)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert {line["key"] for line in lines if any(talk["targets"] for talk in line["dialogues"])} == set(expected)
        records = InstructRecords(path, size=32)
        if not lines:
            continue
        records.check()
        for index, line in enumerate(lines):
            assert fault(line) is None
            assert not Path(line["image"]).is_absolute()
            assert line.get("split") == reader.split
            assert line["licence"]
            assert line["source"]
            truth = records.sample(index, True).truth
            assert truth is not None
            drawn = next((masks for masks in truth if masks), ())
            for mask, true in zip(drawn, expected.get(line["key"], []), strict=True):
                found = decode_rle(mask).numpy()
                iou = np.logical_and(found, true).sum() / np.logical_or(found, true).sum()
                assert iou == 1 if miniature.exact else iou >= 0.99
    assert {kind: counts.get(kind) for kind in miniature.counts} == miniature.counts


@each
def test_the_same_folder_gives_the_same_records(miniature: Miniature) -> None:
    for reader in miniature.readers:
        first, second = ([line_of(record) for record in reader.records(Report())] for _ in range(2))
        assert first == second


def told_about(reader: Reader, whole: list[str], path: Path) -> list[str]:
    """What is said when a folder is read that was whole before: one error, or what was left out."""
    report = Report()
    try:
        found = list(reader.records(report))
        if [line_of(record) for record in found] == whole:
            write_records(path, found)
            InstructRecords(path, size=32).check()
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    return [f"{entry['where']}: {entry['what']}" for entry in report.quarantine]


@each
def test_damaged_files_are_told(miniature: Miniature, tmp_path: Path) -> None:
    """By the reader or, where the header of a picture is whole and its end is missing, by the check that follows."""
    reader = miniature.readers[0]
    whole = [line_of(record) for record in reader.records(Report())]
    assert miniature.damage
    for name in miniature.damage:
        path = reader.root / name
        stored = path.read_bytes()
        for content in (None, b"<html><title>Quota exceeded</title></html>", stored[: len(stored) // 2]):
            if content and not content.startswith(b"<html") and path.suffix == ".txt":
                continue  # a list cut between its lines is a shorter list
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            told = told_about(reader, whole, tmp_path / "records.jsonl")
            names = (path.name, path.parent.name, path.stem.split(".")[0])
            assert any(part in text for part in names for text in told), (name, content, told)
        path.write_bytes(stored)


def told_by_convert(reader: Reader, path: Path) -> list[str]:
    try:
        report = convert(reader, path)
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    return [f"{entry['where']}: {entry['what']}" for entry in report.quarantine]


@each
def test_a_file_of_another_structure_is_one_error(miniature: Miniature, tmp_path: Path) -> None:
    reader = miniature.readers[0]
    for name in miniature.damage:
        path = reader.root / name
        stored = path.read_bytes()
        contents = {".json": ["[]", "{}", "[1]", '[{"x": 1}]', '{"images": [1], "annotations": [{}], "questions": 3}'], ".p": [pickle.dumps([{"x": 1}])]}
        contents |= {".pkl": [pickle.dumps(3), pickle.dumps([3, {"mask": 3}])], ".jsonl": ["3\n", '{"x": 1}\n'], ".xml": ["<annotation/>"], ".geojson": ["{}"]}
        for content in contents.get(path.suffix, []):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            told = told_by_convert(reader, tmp_path / "records.jsonl")
            assert any(part in text for part in (str(reader.root), path.name, path.stem, reader.about.name) for text in told), (name, content, told)
        path.write_bytes(stored)


@each
def test_another_folder_is_refused_with_what_was_expected(miniature: Miniature, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for reader in miniature.readers[:1]:
        other = type(reader)(**vars(reader) | {"root": tmp_path / "empty"})
        with pytest.raises(FileNotFoundError) as told:
            list(other.records(Report()))
        assert str(tmp_path / "empty") in str(told.value)
        assert len(str(told.value)) < 700


@each
def test_a_public_set_is_a_source(miniature: Miniature, tmp_path: Path) -> None:
    for reader, expected in zip(miniature.readers, miniature.masks, strict=True):
        source = PublicSet(reader, 32, cache=tmp_path / "cache")
        if not list(reader.records(Report())):
            with pytest.raises(ValueError, match="0 records"):
                source.check()
            continue
        source.check()
        assert source.count
        assert source.bands == 3
        assert reader.about.name in source.title
        assert len({source.identity, *(PublicSet(reader, 32, cache=tmp_path / "cache", **read).identity for read in ({"high": 9}, {"seed": 1}))}) == 3
        batch = collate([source.sample(index, truth=True) for index in range(source.count)])
        assert len(batch.dialogues) >= source.count
        assert bool(len(batch.masks)) == bool(expected)
        files = sorted((tmp_path / "cache").iterdir())
        PublicSet(reader, 32, cache=tmp_path / "cache").check()
        assert sorted((tmp_path / "cache").iterdir()) == files, "converted once"


def test_a_changed_folder_is_read_anew(tmp_path: Path) -> None:
    miniature = LAYOUTS[READERS[0]](tmp_path / "set")
    convert(miniature.readers[0], tmp_path / "one.jsonl")
    assert json.loads((tmp_path / "one.report.json").read_text())["records"] == len((tmp_path / "one.jsonl").read_text().splitlines())


def test_the_page_about_public_sets_is_what_the_readers_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert markdown(READERS) in page, "renew it by python -m geopix.data.sources.overview"
