"""``geopix data``: help at once, exit codes, and conversion by any reader."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from geopix import cli_data_convert
from geopix.data.records import Record, dialogue, instance
from geopix.data.sources import overview
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from tests.commands import geopix


@dataclass(frozen=True)
class Toy(Reader):
    """Names in a text file.

    Args:
        root: the folder that holds names.txt.
        split: train or test.
        answer: what is said.
    """

    root: Path
    split: Literal["train", "test"] = "train"
    answer: str = "yes"

    about = About(name="Toy-Set", publication="nowhere", licence="CC0", protocol="accuracy", splits={"train": 3}, uncertain=("Everything.",))

    def records(self, report: Report) -> Iterator[Record]:
        names = (self.root / "names.txt").read_text().split()
        compare_counts(self.about, self.split, len(names), report)
        for name in names:
            if not (self.root / f"{name}.png").is_file():
                report.leave_out("missing image", name, f"{name}.png is not there")
                continue
            mask = {"png": str(self.root / f"{name}.png"), "value": 7}
            record = {"image": str(self.root / f"{name}.png"), "key": name, "split": self.split, "instances": [instance(1, mask)]}
            yield record | {"dialogues": [dialogue("vqa/presence", [("a?", self.answer)])]}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (cli_data_convert, overview):
        monkeypatch.setattr(module, "readers", lambda: [Toy])
    Image.fromarray(np.full((8, 8), 7, dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "names.txt").write_text("a b")
    return tmp_path


def test_help_comes_without_heavy_imports() -> None:
    heavy = "{'torch', 'numpy', 'lightning'} & set(sys.modules)"
    code = f"import sys; from geopix.__main__ import run\ntry: run(sys.argv[1:])\nexcept SystemExit: print(sorted({heavy}))"
    for words in (["data", "--help"], ["data", "check", "--help"], ["data", "split", "--help"]):
        said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
        assert said.startswith("usage: geopix data")
        assert said.endswith("[]\n")


@pytest.mark.parametrize("verb", ["check", "stats", "show", "split"])
def test_each_verb_has_help_and_refuses_what_it_does_not_know(verb: str) -> None:
    said = geopix("data", verb, "--help")
    assert (said.code, f"usage: geopix data {verb}" in said.out) == (0, True)
    refused = geopix("data", verb, "x.jsonl", "--nonsense")
    assert refused.code == 2
    assert refused.err.startswith("geopix: ")
    assert "\n" not in refused.err.strip()


def test_unknown_verbs_and_missing_files() -> None:
    assert geopix("data").code == 0
    said = geopix("data", "chekc")
    assert (said.code, "check, stats, show, split, convert, build" in said.err) == (2, True)
    for verb in ("stats", "show"):
        assert geopix("data", verb, "none.jsonl").code == 3


def test_build_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geopix.data.build.command", SimpleNamespace(main=lambda args: len(args)))
    assert geopix("data", "build", "a", "b").code == 2


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "geopix.data.quality.survey", None)
    said = geopix("data", "check", tmp_path)
    assert (said.code, "install the extra: geopix[data]" in said.err) == (2, True)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"image": "none.png"}\n')
    for words in ("stats", "check"):
        command = [sys.executable, "-m", "geopix", "data", words, str(tmp_path / "r.jsonl")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.close()
            _, errors = process.communicate()
        assert b"Pipe" not in errors
        assert b"Traceback" not in errors
        assert process.returncode == 0


def test_convert_writes_records_quarantine_and_counts(toy: Path) -> None:
    out = toy / "out" / "toy.jsonl"
    for name in ("toy", "Toy-set"):
        said = geopix("data", "convert", name, "--root", toy, "--out", out, "--answer", "no")
        assert said.code == 0, said.err
    assert f"{out}: 1 records of Toy-Set, split train; CC0" in said.out
    assert "missing image: 1 (left out)" in said.out
    assert "count differs from the publication: 1" in said.out
    record = json.loads(out.read_text())
    assert (record["image"], record["instances"][0]["mask"]["png"]) == ("../a.png", "../a.png")
    assert record["dialogues"][0]["turns"][0]["answer"] == "no"
    assert json.loads((toy / "out" / "toy.quarantine.jsonl").read_text()) == {"kind": "missing image", "where": "b", "what": "b.png is not there"}
    assert geopix("data", "check", out).code == 0


def test_convert_warns_where_the_publication_counts_otherwise(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    geopix("data", "convert", "toy", "--root", toy, "--out", toy / "toy.jsonl")
    assert "Toy-Set train: the folder lists 2 images, the publication 3." in caplog.text
    caplog.clear()
    geopix("data", "convert", "toy", "--root", toy, "--split", "test", "--out", toy / "toy.jsonl")
    assert "publication 3" not in caplog.text


def test_convert_refuses_what_it_cannot_do(toy: Path) -> None:
    assert geopix("data", "convert", "toy", "--root", toy, "--spl", "test", "--out", toy / "toy.jsonl").code == 2, "options are written in full"
    said = geopix("data", "convert", "tyo", "--root", toy, "--out", toy / "x.jsonl")
    assert (said.code, "Did you mean" in said.err) == (2, True)
    assert geopix("data", "convert", "toy", "--root", toy).code == 2
    assert geopix("data", "convert", "toy", "--root", toy, "--out", toy / "x.jsonl", "--split", "val").code == 2
    assert geopix("data", "convert", "toy", "--root", toy / "none", "--out", toy / "x.jsonl").code == 3
    (toy / "names.txt").write_text("b")
    empty = geopix("data", "convert", "toy", "--root", toy, "--out", toy / "x.jsonl")
    assert (empty.code, "gives 0 records" in empty.err, (toy / "x.jsonl").exists()) == (3, True, False)


def test_the_list_says_what_is_known_of_each_set(toy: Path) -> None:
    said = geopix("data", "convert").out
    for words in ("Toy: Toy-Set", "licence:            CC0", "splits (images):    train 3", "scored by:          accuracy", "uncertain:          Everything."):
        assert words in said


def test_every_reader_of_the_package_is_found() -> None:
    names = [reader.__name__ for reader in overview.readers()]
    assert {"RRSISD", "GeoPixInstruct"} <= set(names)
    assert geopix("data", "convert", "rrsisd", "--help").code == 0
