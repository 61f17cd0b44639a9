"""Sweeps on a Ray cluster, which a test starts for itself where Ray is installed."""

from pathlib import Path

import pytest

from tests.commands import TINY
from tests.sweeps import calls, sweep, table

pytest.importorskip("ray", reason="Ray, of the extra geopix[sweep], is not installed")


def test_a_cluster_runs_trials_stops_those_behind_and_isolates_failures(tmp_path: Path) -> None:
    args = ("--config", TINY, "--vary", "seed_everything", 0, 2, 1, "--output", tmp_path)
    for name in ("slow", "fail-0"):
        (tmp_path / name).touch()
    said = sweep(*args, "--ray", "local", "--asha", "val/single/giou", "--jobs", 1, code=1)
    assert [row["state"] for row in table(tmp_path / "trials.csv")] == ["failed", "done", "stopped"]
    assert "RuntimeError: the loss is not a number" in said.err
    assert "1 of 3 trials ended, 1 were stopped early" in said.out, "a trial that was stopped is in no mean"

    (tmp_path / "slow").unlink()
    before = len(calls(tmp_path))
    assert "2 of 3 trials ended." in sweep(*args, code=1).out
    assert calls(tmp_path)[before:] == ["seed=1: fit --ckpt_path last", "seed=1: test --ckpt_path last"], "without --asha it goes on to its end"
