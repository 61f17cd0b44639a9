"""What a test leaves, and that one which was killed goes on where it stopped."""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch

from geopix.data.module import GeoPixData
from geopix.decoders.dot import DotDecoder
from geopix.evaluation.compare import as_markdown, compare
from geopix.evaluation.folder import _hardly_draws, read_result
from geopix.evaluation.names import is_detail
from geopix.results import Results
from geopix.types import Batch, Drawing, Prediction
from tests import tiny, toys

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:Found .* module.* in eval mode")
IMAGES = 7


class Killed(toys.Guessing):
    """Guesses until its process is killed, so to speak."""

    last = 10_000

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(tiny.model(decoder=DotDecoder))
        self.seen: list[str] = []

    def answer(self, batch: Batch) -> Prediction:
        if len(self.seen) >= self.last:
            raise KeyboardInterrupt
        self.seen += batch.keys
        return super().answer(batch)


def run(folder: Path, task: Killed, *, protocol: str = "generate", **settings: int | bool) -> dict[str, float]:
    task.protocol = protocol  # type: ignore[assignment]
    trainer = toys.trainer(folder, Results(resamples=50, pictures=2, **settings))
    return dict(trainer.test(task, datamodule=GeoPixData(test=toys.Toys(IMAGES), batch_size=2), verbose=False)[0])


def killed(folder: Path, after: int) -> None:
    task = Killed()
    task.last = after
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(folder, task)


def test_a_test_leaves_numbers_samples_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged = run(tmp_path, Killed())
    said = json.loads((tmp_path / "metrics.json").read_text())
    assert said.keys() >= {
        "protocol", "definition", "data", "data_fingerprint", "images", "dialogues", "remarks", "command", "version", "versions", "seed", "checkpoint",
        "config_sha256", "precision", "device", "interval", "metrics", "intervals", "definitions",
    }  # fmt: skip
    defined = [pattern for pattern in said["definitions"] if pattern not in ("single/*", "segment/*", "vqa/*")]
    assert "vqa/oa" in defined
    assert not [name for name in said["metrics"] if not any(fnmatchcase(name, pattern) for pattern in said["definitions"])]
    assert not [name for name in said["metrics"] if name.startswith("single/") and not any(fnmatchcase(name, pattern) for pattern in defined)]
    assert (said["images"], said["dialogues"]) == (IMAGES, IMAGES * len(toys.KINDS))
    for name, value in said["metrics"].items():
        if not is_detail(name):
            assert value == pytest.approx(logged[name], abs=1e-5), "what is logged and what is written must be one number"
    low, high = said["intervals"]["single/giou"]
    assert low < said["metrics"]["single/giou"] < high
    assert not [name for name in said["intervals"] if name.endswith("count")]
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert len(lines) == said["dialogues"]
    assert {"key", "answers", "drawn", "pairs"} <= json.loads(lines[0]).keys()
    assert "<html" in (tmp_path / "report.html").read_text()[:300]
    assert not list(tmp_path.glob("journal-*"))
    assert str(tmp_path / "report.html") in capsys.readouterr().out


def test_a_killed_test_scores_the_rest_alone(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Killed())
    killed(tmp_path / "parts", after=4)
    assert (tmp_path / "parts" / "journal-0.jsonl").is_file()
    task = Killed()
    assert run(tmp_path / "parts", task) == whole
    assert task.seen == ["toy-4", "toy-5", "toy-6"]
    one, other = ((tmp_path / name / "samples.jsonl").read_text() for name in ("whole", "parts"))
    assert one == other
    assert not list((tmp_path / "parts").glob("journal-*"))


def test_a_line_that_was_cut_off_is_scored_again(tmp_path: Path) -> None:
    killed(tmp_path, after=4)
    journal = tmp_path / "journal-0.jsonl"
    journal.write_text(journal.read_text()[:-20])
    task = Killed()
    run(tmp_path, task)
    assert task.seen[0] == "toy-2"


def test_a_journal_of_another_test_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed(tmp_path, after=4)
    task = Killed()
    run(tmp_path, task, protocol="generate_named")
    assert len(task.seen) == IMAGES
    assert "the journal of another test was in the folder" in capsys.readouterr().err


def test_a_journal_in_another_precision_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed(tmp_path, after=4)
    task = Killed()
    trainer = toys.trainer(tmp_path, Results(resamples=50, pictures=0), precision="bf16-mixed")
    trainer.test(task, datamodule=GeoPixData(test=toys.Toys(IMAGES), batch_size=2), verbose=False)
    assert len(task.seen) == IMAGES
    assert "the journal of another test was in the folder" in capsys.readouterr().err
    assert json.loads((tmp_path / "metrics.json").read_text())["precision"] == "bf16-mixed"


def test_a_journal_of_other_data_of_the_same_name_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Brighter(toys.Toys):
        @property
        def identity(self) -> str:
            return f"{self.title}, high 255"

    killed(tmp_path, after=4)
    task = Killed()
    data = GeoPixData(test=Brighter(IMAGES), batch_size=2)
    toys.trainer(tmp_path, Results(resamples=50, pictures=0)).test(task, datamodule=data, verbose=False)
    assert len(task.seen) == IMAGES
    assert "the journal of another test was in the folder" in capsys.readouterr().err


def test_a_test_that_was_killed_before_it_wrote_its_results_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("geopix.results.write_result", full)
        with pytest.raises(OSError, match="no space"):
            run(tmp_path, Killed())
    assert not (tmp_path / "metrics.json").exists()
    assert run(tmp_path, Killed()) == run(tmp_path / "whole", Killed())


def test_a_part_of_a_set_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = toys.trainer(tmp_path, Results(resamples=20, pictures=0), limit_test_batches=2)
    trainer.test(Killed(), datamodule=GeoPixData(test=toys.Toys(IMAGES), batch_size=2), verbose=False)
    (remark,) = [each for each in json.loads((tmp_path / "metrics.json").read_text())["remarks"] if each.startswith("only")]
    assert remark.startswith("only 4 of 7 images were scored")
    assert remark in capsys.readouterr().out
    assert not [each for each in json.loads((tmp_path / "metrics.json").read_text())["remarks"] if each.startswith("only 7")]


def test_a_journal_is_forgotten_where_that_is_asked(tmp_path: Path) -> None:
    killed(tmp_path, after=4)
    task = Killed()
    run(tmp_path, task, resume=False)
    assert len(task.seen) == IMAGES


def test_a_model_that_never_writes_seg_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Silent(Killed):
        def answer(self, batch: Batch) -> Prediction:
            given = super().answer(batch)
            nothing = Drawing(torch.zeros(0, 8, 8), torch.zeros(0, dtype=torch.long))
            return Prediction(tuple(("",) * len(answers) for answers in given.answers), nothing)

    run(tmp_path, Silent())
    (remark,) = json.loads((tmp_path / "metrics.json").read_text())["remarks"][-1:]
    assert remark.startswith("the model never writes [SEG]")
    assert remark in capsys.readouterr().out


def test_runs_are_compared_on_the_same_images_alone(tmp_path: Path) -> None:
    class Better(Killed):
        def answer(self, batch: Batch) -> Prediction:
            answers = tuple(tuple(turn.answer for turn in turns) for turns in batch.dialogues)
            return Prediction(answers, Drawing(batch.masks.float() * 2 - 1, batch.dialogue_index))

    run(tmp_path / "guess", Killed())
    run(tmp_path / "better", Better())
    rows = {row.name: row for row in compare([tmp_path / "guess", tmp_path / "better"], resamples=100)}
    change = rows["single/giou"].changes[0]
    assert change is not None
    assert 0 < change[0] < change[1]
    assert rows["single/giou"].values[1] == 1.0
    assert "| single/giou |" in as_markdown(list(rows.values()), ["guess", "better"])
    other = tmp_path / "other"
    toys.trainer(other, Results(resamples=50, pictures=0)).test(Killed(), datamodule=GeoPixData(test=toys.Toys(5), batch_size=2), verbose=False)
    with pytest.raises(ValueError, match="were not tested on the same questions"):
        compare([tmp_path / "guess", other])
    with pytest.raises(ValueError, match="holds no finished test"):
        compare([tmp_path / "guess", tmp_path])
    with pytest.raises(ValueError, match="at least two"):
        compare([other])


def test_altered_samples_are_noticed(tmp_path: Path) -> None:
    run(tmp_path, Killed())
    samples = tmp_path / "samples.jsonl"
    samples.write_text("\n".join(samples.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match="altered or cut off"):
        read_result(tmp_path)
    samples.write_text(samples.read_text()[:-20])
    with pytest.raises(ValueError, match=r"samples.jsonl, line \d+, was altered or cut off"):
        read_result(tmp_path)
    samples.write_text(json.dumps({"key": "toy-0#0"}) + "\n")
    with pytest.raises(ValueError, match="line 1, was written by another version of geopix, or altered: 'size' does not fit"):
        read_result(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json was altered or cut off"):
        read_result(tmp_path)


def test_answers_with_empty_masks_are_not_blamed_on_words() -> None:
    (empty,) = _hardly_draws({"answers/no_seg": 0.0, "answers/empty_mask": 1.0, "answers/fewer": 0.0})
    assert empty.startswith("100% of the answers that should have masks have [SEG] with empty masks: ")
    assert "evidence" in empty
    (mixed,) = _hardly_draws({"answers/no_seg": 0.5, "answers/empty_mask": 0.1, "answers/fewer": 0.05})
    assert mixed.startswith("50% of the answers that should have masks are without [SEG], 10% of the answers")
    assert "not trained to write [SEG]" in mixed
    (foreign,) = _hardly_draws({"absent/t_acc": 0.2})
    assert foreign.startswith("80% of the answers that should have masks have none")
    assert not _hardly_draws({"absent/t_acc": 0.6})
    assert not _hardly_draws({"vqa/oa": 0.1})
    assert not _hardly_draws({"answers/no_seg": 0.3, "answers/empty_mask": 0.1, "answers/fewer": 0.5})
