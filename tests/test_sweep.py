"""Sweeps: what is run, resumed, kept and told."""

import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml

from geopix.sweep.folder import locked, read_metrics
from geopix.sweep.run import Job, run
from tests.commands import TINY
from tests.sweeps import MEMORY, SEEDS, STUB, calls, refused, small, sweep, table


def test_the_product_is_run_and_told_with_mean_and_deviation(tmp_path: Path) -> None:
    sweep("--config", TINY, *MEMORY, *SEEDS, "--output", tmp_path)
    assert len(calls(tmp_path)) == 12
    assert calls(tmp_path)[:2] == ["memory=null,seed=0: fit", "memory=null,seed=0: test --ckpt_path last"]
    rows = table(tmp_path / "trials.csv")
    assert [(row["memory"], row["seed"], row["state"]) for row in rows] == [(each, seed, "done") for each in ("null", "ClasswiseMemory") for seed in "012"]
    assert [float(row["single/giou"]) for row in rows] == pytest.approx([0.5, 0.6, 0.7, 0.75, 0.85, 0.95])
    assert (rows[0]["steps"], rows[0]["minutes"], rows[0]["parameters"], rows[3]["parameters"]) == ("3", "1.5", "1000", "1200")
    for row, values in zip(table(tmp_path / "summary.csv"), ([0.5, 0.6, 0.7], [0.75, 0.85, 0.95]), strict=True):
        assert float(row["single/giou mean"]) == pytest.approx(np.mean(values))
        assert float(row["single/giou std"]) == pytest.approx(np.std(values, ddof=1))
        assert row["single/giou n"] == row["planned"] == "3"
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| ClasswiseMemory | 3 of 3 | 0.850 ± 0.100 (3) | 0.500 ± 0.000 (3) |" in page
    assert "6 of 6 trials ended. Measured: test." in page
    assert (tmp_path / "trials.png").stat().st_size > 10_000


def test_a_trial_can_be_run_again_by_hand(tmp_path: Path) -> None:
    small(tmp_path, "--max_steps", 6)
    folder = tmp_path / "seed=1"
    trial = yaml.safe_load((folder / "trial.yaml").read_text(encoding="utf-8"))
    assert (trial["seed_everything"], trial["trainer"]["max_steps"], trial["trainer"]["default_root_dir"]) == (1, 6, str(folder))
    by_hand = (folder / "command.txt").read_text(encoding="utf-8").splitlines()
    assert by_hand[0].endswith(f"geopix fit --config {folder / 'trial.yaml'}")
    assert by_hand[1].endswith(f"geopix test --config {folder / 'trial.yaml'} --ckpt_path last")
    assert f"geopix fit --config {TINY} --trainer.max_steps 6 --seed_everything 1" in by_hand[4]
    result = json.loads((tmp_path / "seed=1.json").read_text(encoding="utf-8"))
    assert result["command"][0] == f"geopix fit --config {TINY} --trainer.max_steps 6 --seed_everything 1"
    assert result["validations"][-1] == {"step": 3, "val/single/giou": pytest.approx(0.06)}, "counts are left out"


def test_what_has_ended_is_not_run_again(tmp_path: Path) -> None:
    small(tmp_path)
    assert "0 of 3 trials are to be run" in small(tmp_path).out
    assert len(calls(tmp_path)) == 6
    (tmp_path / "seed=1.json").unlink()
    small(tmp_path)
    assert len(calls(tmp_path)) == 6, "its folder holds all that the result is made of"
    assert (tmp_path / "seed=1.json").is_file()
    sweep("--config", TINY, "--vary", "seed_everything", 0, 1, 2, 3, "--output", tmp_path)
    assert calls(tmp_path)[6:] == ["seed=3: fit", "seed=3: test --ckpt_path last"]


def test_a_trial_that_another_sweep_has_run_is_taken_from_there(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    small(one)
    words = ("--config", TINY, "--vary", "seed_everything", 1, 5, "--vary", "model.net.memory", "null", "geopix.memory.classwise.ClasswiseMemory")
    base = "null" if "memory: null" in (one / "seed=1" / "trial.yaml").read_text(encoding="utf-8") else "ClasswiseMemory"
    assert f"in {one / 'seed=1.json'}" in sweep(*words, "--output", two, "--reuse", one, "--dry_run").out
    assert not list(two.glob("*.json")), "a dry run writes nothing"
    said = sweep(*words, "--output", two, "--reuse", one)
    assert f"seed=1,memory={base}: the same as {one / 'seed=1.json'}" in said.out
    assert "3 of 4 trials are to be run" in said.out
    assert not any(line.startswith(f"seed=1,memory={base}") for line in calls(two))
    result = json.loads((two / f"seed=1,memory={base}.json").read_text(encoding="utf-8"))
    before = json.loads((one / "seed=1.json").read_text(encoding="utf-8"))
    assert result["axes"]["seed_everything"] == "1"
    assert result["metrics"] == before["metrics"]
    assert result["reused"] == str(one / "seed=1.json")
    assert "0 of 4 trials are to be run" in sweep(*words, "--output", two).out
    assert "holds no result of a trial" in refused(*words, "--output", two, "--reuse", tmp_path / "none")
    assert "3 of 4 trials are to be run" not in sweep(*words, "--output", tmp_path / "more", "--reuse", one, "--no-test").out, "a test is no validation"


def test_a_failed_trial_stops_nothing_and_is_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "fail-1").touch()
    said = small(tmp_path, code=1)
    assert [row["state"] for row in table(tmp_path / "trials.csv")] == ["done", "failed", "done"]
    assert "seed=1 failed in geopix fit (exit code 3)" in said.err
    assert "  Epoch 0: 20%\n  RuntimeError: the loss is not a number" in said.err
    assert "1 of 3 trials failed" in said.err
    assert "2 of 3 trials ended" in said.out
    assert "0.850 ± 0.141 (2)" in said.out, "nothing stands for the one that failed"
    assert json.loads((tmp_path / "seed=1" / "failed.json").read_text())["tail"][-1] == "RuntimeError: the loss is not a number"

    before = calls(tmp_path)
    assert "RuntimeError" in small(tmp_path, code=1).err
    assert calls(tmp_path) == before, "a failure is not tried again unless that is asked for"
    (tmp_path / "fail-1").unlink()
    small(tmp_path, "--retry_failed")
    assert calls(tmp_path)[len(before) :] == ["seed=1: fit --ckpt_path last", "seed=1: test --ckpt_path last"]
    assert not (tmp_path / "seed=1" / "failed.json").exists()


def test_an_interrupted_trial_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "hang-1").touch()
    small(tmp_path, "--trial", "seed=0")
    trial = yaml.safe_load((tmp_path / "seed=0" / "trial.yaml").read_text())
    text = yaml.safe_dump(
        {**trial, "seed_everything": 1, "trainer": {**trial["trainer"], "default_root_dir": str(tmp_path / "seed=1")}}, sort_keys=False, width=140
    )
    stop, folder = threading.Event(), tmp_path / "seed=1"
    job = Job("seed=1", {"seed_everything": "1"}, folder, text, {"init_from": None}, [], program=STUB)
    outcomes: list[dict] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(job, stop)))
    thread.start()
    while not (folder / "checkpoints" / "last.ckpt").is_file():
        thread.join(0.05)
    states = {row.split()[0]: row.split()[1] for row in small(tmp_path, "--dry_run").out.splitlines()[2:]}
    assert states == {"seed=0": "finished", "seed=1": "running", "seed=2": "pending"}
    stop.set()
    thread.join()
    assert outcomes == [{"name": "seed=1", "state": "interrupted"}]
    assert not (folder / "failed.json").exists()
    (tmp_path / "hang-1").unlink()
    small(tmp_path)
    assert [line for line in calls(tmp_path) if line.startswith("seed=1")] == ["seed=1: fit", "seed=1: fit --ckpt_path last", "seed=1: test --ckpt_path last"]


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path: Path) -> None:
    with locked(tmp_path / "seed=1") as held:
        assert held is not None
        assert "seed=1: is being run by another process" in small(tmp_path, code=1).out
    assert sorted({line.split(":")[0] for line in calls(tmp_path)}) == ["seed=0", "seed=2"]


def test_a_training_that_begins_from_weights_does_not_begin_again_when_it_resumes(tmp_path: Path) -> None:
    (tmp_path / "weights.ckpt").touch()
    (tmp_path / "fail-0").touch()
    args = ("--init_from", tmp_path / "weights.ckpt", "--trial", "seed=0")
    small(tmp_path, *args, code=1)
    (tmp_path / "fail-0").unlink()
    small(tmp_path, *args, "--retry_failed")
    assert calls(tmp_path) == ["seed=0: fit", "seed=0: fit --ckpt_path last --init_from null", "seed=0: test --ckpt_path last"]


def test_shares_of_several_machines_are_everything_once(tmp_path: Path) -> None:
    for share in ("1/2", "2/2"):
        small(tmp_path, "--only", share)
    assert [line for line in calls(tmp_path) if "fit" in line] == ["seed=0: fit", "seed=2: fit", "seed=1: fit"]
    assert [row["state"] for row in table(tmp_path / "trials.csv")] == ["done"] * 3


def test_several_trials_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "fail-0").touch()
    small(tmp_path, "--jobs", 3, code=1)
    assert [row["state"] for row in table(tmp_path / "trials.csv")] == ["failed", "done", "done"]
    assert os.environ.get("OMP_NUM_THREADS") is None, "threads are shared out to the trials alone"


def test_without_a_test_the_last_validation_is_compared(tmp_path: Path) -> None:
    said = small(tmp_path, "--no-test")
    assert all("fit" in line for line in calls(tmp_path))
    assert "Measured: last validation." in said.out
    assert [float(row["val/single/giou"]) for row in table(tmp_path / "trials.csv")] == pytest.approx([0.03, 0.06, 0.09])
    small(tmp_path)
    assert [line.split(": ")[1] for line in calls(tmp_path)[3:]] == ["test --ckpt_path last"] * 3, "the trainings are there already"


def test_a_trial_without_anything_to_compare_has_failed(tmp_path: Path) -> None:
    (tmp_path / "silent").touch()
    assert "no validation was made, so there is nothing to compare" in small(tmp_path, "--no-test", code=1).err
    assert "geopix test ended without writing metrics.json" in small(tmp_path, "--retry_failed", code=1).err


def test_numbers_of_an_earlier_test_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    small(tmp_path, "--trial", "seed=1")
    for name in ("seed=1.json", "seed=1/fitted.json"):
        (tmp_path / name).unlink()
    (tmp_path / "silent").touch()
    assert "ended without writing metrics.json" in small(tmp_path, "--trial", "seed=1", code=1).err


def test_numbers_of_several_benchmarks_are_there_when_all_are(tmp_path: Path) -> None:
    benchmarks = ("rrsis_d", "benchmarks/refsegrs.yaml")
    for name, giou in (("rrsis_d", 0.5), ("refsegrs", 1)):
        assert read_metrics(tmp_path, benchmarks) is None
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"metrics": {"single/giou": giou}}))
    assert read_metrics(tmp_path, benchmarks) == {"rrsis_d:single/giou": 0.5, "refsegrs:single/giou": 1.0}


# ---------------------------------------------------------------- what is kept


def test_results_that_are_kept_elsewhere_count(tmp_path: Path) -> None:
    small(tmp_path / "one", "--results", tmp_path / "kept", "--trial", "seed=1")
    small(tmp_path / "two", "--results", tmp_path / "kept")
    assert [line for line in calls(tmp_path / "two") if "fit" in line] == ["seed=0: fit", "seed=2: fit"]
    assert [row["state"] for row in table(tmp_path / "kept" / "trials.csv")] == ["done"] * 3
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "kept" / "seed=1.json").read_text())["config"]), "where it ran is no part of a result"


def test_results_of_other_values_are_refused_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    small(tmp_path)
    told = refused("--config", TINY, *SEEDS, "--output", tmp_path, "--data.test.count", 7)
    assert "seed=0.json was made with other values" in told
    assert re.search(r"data\.test\.init_args\.count +2 +7", told), told
    small(tmp_path, "--data.test.count", 7, "--keep_results")
    small(tmp_path, "--trainer.enable_progress_bar", "true")
    assert len(calls(tmp_path)) == 6, "a progress bar changes no number"


def test_results_of_trials_that_are_not_planned_must_be_of_the_same_experiment(tmp_path: Path) -> None:
    short = ("--config", TINY, "--vary", "seed_everything", 0, 1, "--output", tmp_path, "--max_steps", 3)
    sweep(*short)
    long = ("--config", TINY, "--vary", "seed_everything", 2, 3, "--output", tmp_path, "--max_steps", 4)
    told = refused(*long)
    assert "seed=0.json was made with other values" in told
    assert re.search(r"trainer\.max_steps +3 +4", told), told
    assert len(calls(tmp_path)) == 4, "nothing was run"
    assert "Means mix results of other values (trainer.max_steps): seed=0, seed=1." in sweep(*long, "--keep_results").out
    assert "Means mix results of other values (trainer.max_steps)" in sweep("--table", tmp_path).out


def test_results_of_trials_that_are_not_planned_count_where_they_fit(tmp_path: Path) -> None:
    part = tmp_path / "part.yaml"
    part.write_text("class_path: geopix.memory.classwise.ClasswiseMemory\n")
    sweep("--config", TINY, "--vary", "model.net.memory", part, "--vary", "data.train.seed", 5, "--output", tmp_path / "run")
    said = sweep("--config", TINY, "--vary", "model.net.memory", "null", "--vary", "data.train.seed", 5, 6, "--output", tmp_path / "run")
    assert "3 of 3 trials ended" in said.out
    assert "Means mix" not in said.out
    path = tmp_path / "run" / "memory=part,seed=5.json"
    path.write_text(path.read_text().replace(str(part), str(tmp_path / "gone.yaml")))
    said = sweep("--config", TINY, "--vary", "model.net.memory", "null", "--vary", "data.train.seed", 5, 6, "--output", tmp_path / "run")
    assert "part,seed=5.json is counted and cannot be compared" in said.err


def test_results_of_other_versions_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geopix.sweep.same.version", lambda name: "2.15.0+cpu")
    monkeypatch.setattr("geopix.sweep.same.__version__", "0.2.0")
    small(tmp_path / "one")
    for seed, versions in (
        (0, {"torch": "2.15.0", "geopix": "0.1.0"}),
        (1, {"torch": "2.14.1", "geopix": "0.2.0"}),
        (2, {"torch": "2.15.0", "geopix": "0.2.0"}),
    ):
        path = tmp_path / "one" / f"seed={seed}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "versions": {**versions, "python": "2.7", "lightning": "1.0"}}))
    notice = "made by other versions than now (geopix 0.2.0, torch 2.15.0+cpu): 1 with geopix 0.1.0, 1 with torch 2.14.1; remove"
    assert small(tmp_path / "one").err.count(notice) == 1
    assert sweep("--config", TINY, *SEEDS, "--output", tmp_path / "two", "--reuse", tmp_path / "one").err.count(notice) == 1
    path = tmp_path / "one" / "seed=2.json"
    for old in ("seed=0.json", "seed=1.json"):
        (tmp_path / "one" / old).write_text(path.read_text().replace('"seed_everything": 2', f'"seed_everything": {old[5]}'))
    assert "other versions" not in small(tmp_path / "one").err


def test_what_another_configuration_left_is_set_aside(tmp_path: Path) -> None:
    small(tmp_path, "--trial", "seed=0")
    (tmp_path / "seed=0.json").unlink()
    said = small(tmp_path, "--trial", "seed=0", "--data.test.count", 7)
    assert f"what was there is now in {tmp_path / 'seed=0~1'}" in said.err
    assert (tmp_path / "seed=0~1" / "checkpoints" / "last.ckpt").is_file()
    assert calls(tmp_path)[2] == "seed=0: fit", "not from the checkpoint of the other"


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    small(tmp_path)
    assert "holds another sweep" in refused("--config", TINY, *MEMORY, "--output", tmp_path)


def test_tables_are_made_again_from_results_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "run", "--results", tmp_path / "kept", "--only", "1/2", "--jobs", 2)
    for name in ("table.md", "trials.csv", "summary.csv", "trials.png"):
        (tmp_path / "kept" / name).unlink()
    said = sweep("--table", tmp_path / "kept")
    command = f"`geopix sweep --config {TINY} --vary seed_everything 0 1 2 --output {tmp_path / 'run'} --results {tmp_path / 'kept'}`"
    assert (tmp_path / "kept" / "table.md").read_text(encoding="utf-8").startswith(command), "the command of all, not of this share"
    assert "2 of 3 trials ended" in said.out
    assert [row["state"] for row in table(tmp_path / "kept" / "trials.csv")] == ["done", "missing", "done"]
    assert (tmp_path / "kept" / "trials.png").is_file()
    assert "absent/n_acc" not in sweep("--table", tmp_path / "kept", "--show", "single/*").out
    monkeypatch.setenv("COLUMNS", "60")
    shown = ("--show", "single/giou", "--show", "absent/n_acc")
    assert "No room here for absent/n_acc: see table.md." in sweep("--table", tmp_path / "kept", *shown).out
    monkeypatch.setenv("COLUMNS", "300")
    assert "No room" not in sweep("--table", tmp_path / "kept", *shown).out
    assert "matches no metric" in refused("--table", tmp_path / "kept", "--show", "double/*")
    assert "holds no results of a sweep" in refused("--table", tmp_path / "run")
    (tmp_path / "kept" / "other.json").write_text("{}")
    assert "other.json is no result of this sweep" in refused("--table", tmp_path / "kept")
