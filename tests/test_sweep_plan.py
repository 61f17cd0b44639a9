"""Sweeps: what they consist of, and what is refused before anything starts."""

import re
from pathlib import Path

import pytest

from geopix.sweep.plan import Axis, Plan, labels
from tests.commands import ROOT, TINY
from tests.sweeps import SEEDS, refused, small


def test_a_trial_is_named_after_its_values() -> None:
    axes = (Axis("model.net.memory", ("configs/memory/low_rank.yaml", "null")), Axis("seed_everything", ("0", "1")))
    names = [trial.name for trial in Plan(("base.yaml",), (), axes).trials]
    assert names == ["memory=low_rank,seed=0", "memory=low_rank,seed=1", "memory=null,seed=0", "memory=null,seed=1"]


def test_names_are_safe_short_and_never_the_same() -> None:
    values = ("[1, 0]", "[1,0]", "[0, 1]", "a/x.yaml", "b/x.yaml", "x", "X", "../up", "v" * 300, "v" * 299, "1e-3")
    names = [trial.name for trial in Plan(("base.yaml",), (), (Axis("model.net.decoder.levels", values),)).trials]
    assert len({name.casefold() for name in names}) == len(values)
    assert all(re.fullmatch(r"levels=[\w.+~-]{1,60}", name) for name in names), names
    assert names[-1] == "levels=1e-3"
    longer = [trial.name for trial in Plan((), (), tuple(Axis(f"model.part{at}", ("v" * 39, "w" * 39)) for at in range(8))).trials]
    assert len(set(longer)) == 256
    assert max(map(len, longer)) < 200


def test_a_name_does_not_depend_on_the_other_values() -> None:
    few, more = (Plan((), (), (Axis("model.x", values),)).trials for values in (("[1, 0]", "b.yaml"), ("7", "b.yaml", "[1, 0]", "c.yaml")))
    assert {trial.name for trial in few} < {trial.name for trial in more}


def test_labels_of_axes_tell_them_apart() -> None:
    assert labels(["data.seed", "seed_everything"]) == ["seed", "seed_everything"]
    assert labels(["model.net.llm.lora.rank", "model.net.memory.rank"]) == ["lora.rank", "memory.rank"]


def test_the_words_of_a_trial_are_in_the_order_in_which_they_must_be_read() -> None:
    axes = (Axis("config", ("more.yaml",)), Axis("model.net.memory", ("low.yaml",)), Axis("model.x", ("-1e-3",)))
    plan = Plan(("base.yaml",), ("--model.net.memory.slots", "4", "--data.batch_size=3", "--benchmark", "a", "b"), axes)
    words = "--config base.yaml --config more.yaml --data.batch_size=3 --benchmark a b --model.net.memory low.yaml --model.x=-1e-3 --model.net.memory.slots 4"
    assert plan.words(plan.trials[0]) == words.split()
    assert plan.words() == ["--config", "base.yaml", "--data.batch_size=3", "--benchmark", "a", "b"]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--vary", "model.net.memry", "null"], ["trial memry=null", 'unknown option "--model.net.memry"', "did you mean  --model.net.memory"]),
        (["--vary", "model.net.memory.slotz", 2, 4], ["trial slotz=2", '"slotz" for ClasswiseMemory', "did you mean  slots"]),
        (["--vary", "model.net.memory", "configs/memory/lowrank.yaml"], ["does not exist", "did you mean  configs/memory/low_rank.yaml"]),
        (["--vary", "model.net.memory", "configs/memories/*.yaml"], ["no file matches configs/memories/*.yaml"]),
        ([*SEEDS, *SEEDS], ["the axis seed_everything is there twice"]),
        (["--vary", "model.net.memory.slots", 2, 4, 2], ["has a value twice", "found     2"]),
        (["--vary", "model.optimizer.lr", "1.0e-3", "0.001"], ["has a value twice", "as 1.0e-3 and as 0.001"]),
        (["--vary", "data.batch_size", 2, "many"], ["trial batch_size=many", "data.batch_size", "many"]),
        (["--vary", "model.net.llm.lora", "null", "~"], ["has a value twice"]),
        (["--vary", "model.net.decoder", "geopix.decoders.dot.DotDecoder", "DotDecoder"], ["two trials are the same", "model.net.decoder changes nothing"]),
        ([*SEEDS, "--trainer.max_epochs", -1], ["never ends", "--max_steps N or --max_minutes M"]),
        ([*SEEDS, "--data.test", "null"], ["cannot be tested", "--no-test"]),
        ([*SEEDS, "--data.batchsize", 4], ["the base of the sweep", "did you mean  --data.batch_size"]),
        ([*SEEDS, "--seed_everything", 4], ["--seed_everything is given to every trial and varied as well"]),
        ([*SEEDS, "--dryrun"], ["did you mean --dry_run"]),
        ([*SEEDS, "--only", "4/3"], ["expected  I/N"]),
        ([*SEEDS, "--trial", "seed=3"], ["there is no trial seed=3", "did you mean  seed="]),
        ([*SEEDS, "--max_steps", 5, "--max_minutes", 5], ["one budget"]),
        ([*SEEDS, "--max_steps", 5, "--trainer.max_steps", 6], ["drop one of the two"]),
        ([*SEEDS, "--max_minutes", 0], ["above 0"]),
        ([*SEEDS, "--asha", "val/single/giou"], ["--asha needs --ray"]),
        ([*SEEDS, "--ckpt_path", "last"], ["a trial resumes by itself"]),
        (["--vary", "trainer.default_root_dir", "a", "b"], ["cannot be varied", "--output"]),
        (["--vary", "seed_everything"], ["has no values"]),
        ([], ["nothing varies"]),
    ],
    ids=lambda value: " ".join(map(str, value[:3])) if value and isinstance(value[0], str | int) else None,
)
def test_a_mistake_is_told_before_anything_starts(args: list[object], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = refused("--config", TINY, "--output", tmp_path / "out", *args)
    assert [part for part in said if part not in told] == [], told
    assert not (tmp_path / "out").exists()


def test_a_base_is_needed_and_must_exist() -> None:
    assert "--config FILE" in refused(*SEEDS)
    assert "did you mean" in refused("--config", ROOT / "configs" / "quikstart.yaml", *SEEDS)
    assert "--config base.yaml" in refused("base.yaml", "--config", TINY, *SEEDS)


def test_what_a_budget_does_to_a_curriculum_is_said(tmp_path: Path) -> None:
    said = small(tmp_path, "--max_steps", 5, "--dry_run")
    assert "8 steps long and the budget 5" in said.err
    assert said.err.count("(all 3 trials)") == 1, "it is said once"
    assert "ends after 8 steps on one device, before the budget of 50" in small(tmp_path, "--max_steps", 50, "--dry_run").err
    said = small(tmp_path, "--max_minutes", 1.5, "--dry_run")
    assert "different numbers of steps" in said.err
    assert "--trainer.max_time 00:00:01:30" in said.out
    assert list(tmp_path.iterdir()) == []
