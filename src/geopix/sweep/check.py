"""Every trial's configuration, read by the real command line before the first trial starts."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from geopix.cli import main
from geopix.sweep.plan import Plan, Trial
from geopix.sweep.same import Config, fingerprint

REPORT = "geopix.sweep.report.TrialReport"


@dataclass(frozen=True)
class Checked:
    """Configurations of all trials by name, and what there is to say about them."""

    configs: Mapping[str, Config]
    notices: Sequence[str]


def check(plan: Plan, *, test: bool) -> Checked:
    """Read the base and every trial as ``geopix fit`` would.

    Raises:
        ValueError: for a configuration that the command line refuses, one that never ends or cannot be tested as asked, and two trials that are the same.
    """
    configs: dict[str, Config] = {}
    notices: dict[str, list[str]] = {}
    same: dict[str, Trial] = {}
    for trial in plan.trials:
        config, said = _read(plan, trial)
        _check_end(trial.name, config)
        if test:
            _check_test(trial.name, config)
        twin = same.setdefault(fingerprint(config), trial)
        if twin is not trial:
            raise ValueError(_same(plan, twin, trial))
        configs[trial.name] = config
        for notice in [*said, *_budget(config)]:
            notices.setdefault(notice, []).append(trial.name)
    return Checked(configs, [f"{notice} ({_whose(names, len(configs))})" for notice, names in notices.items()])


def _whose(names: Sequence[str], count: int) -> str:
    if len(names) == count:
        return f"all {count} trials"
    return f"trial {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def runnable(config: Config, folder: str) -> str:
    """The YAML that a trial is run with: its configuration, its folder, and a callback that notes how the training goes."""
    config = copy.deepcopy(config)
    trainer = config["trainer"]
    trainer["default_root_dir"] = folder
    trainer["callbacks"] = [*_callbacks(config), {"class_path": REPORT}]
    if trainer["enable_progress_bar"] is None:
        trainer["enable_progress_bar"] = False
    return yaml.safe_dump(config, sort_keys=False, width=140)


def other(plan: Plan, trial: Trial) -> Config | None:
    """The configuration that a trial which is not planned would have in this sweep; None where it cannot be read, as when a file is gone."""
    code, printed, _ = _parse(plan.words(trial))
    return yaml.safe_load(printed) if code == 0 else None


def steps(config: Config) -> tuple[int, str] | None:
    """Steps that a curriculum takes on one device, and its last stage; None without a curriculum."""
    for each in _callbacks(config):
        if each["class_path"].endswith(".Curriculum"):
            stages = each["init_args"]["stages"]
            return sum(stage["samples"] for stage in stages) // config["data"]["batch_size"], stages[-1]["name"]
    return None


def _read(plan: Plan, trial: Trial) -> tuple[Config, list[str]]:
    """A trial's configuration, and what the command line remarks on it.

    Raises:
        ValueError: with the command line's own message, which is told of the base where that alone has it too.
    """
    code, printed, said = _parse(plan.words(trial))
    if code != 0:
        base = _parse(plan.words())
        whose = "the base of the sweep" if base[0] != 0 and base[2] == said else f"trial {trial.name}"
        raise ValueError(f"{whose}: {said.removeprefix('geopix: ')}")
    return yaml.safe_load(printed), [line.removeprefix("geopix: ") for line in said.splitlines() if line.startswith("geopix: ")]


def _parse(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, output and messages of ``geopix fit --print_config``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["fit", *words, "--print_config"])
    return code, out.getvalue(), err.getvalue().strip()


def _check_end(name: str, config: Config) -> None:
    trainer = config["trainer"]
    if trainer["max_epochs"] == -1 and trainer["max_steps"] == -1 and trainer["max_time"] is None:
        raise ValueError(
            f"trial {name} never ends\n  found     trainer.max_epochs: -1, without max_steps and max_time\n"
            "  next      --max_steps N or --max_minutes M, the same for all trials"
        )


def _check_test(name: str, config: Config) -> None:
    if config["data"]["test"] is None and not config["benchmark"]:
        raise ValueError(f"trial {name} cannot be tested: data.test is not set\n  next      set it, or --no-test to compare the last validations")


def _budget(config: Config) -> list[str]:
    """What a limit in steps or time does to a curriculum, whose stages and rates follow the number of images."""
    trainer, whole = config["trainer"], steps(config)
    if whole is None:
        return []
    count, stage = whole
    if 0 <= trainer["max_steps"] < count:
        return [
            f"the curriculum is {count} steps long and the budget {trainer['max_steps']}: training stops there, so rates do not fall to the end of "
            f"stage {stage!r} and later stages may not begin; shorten the stages to train a whole curriculum within the budget"
        ]
    if trainer["max_steps"] > count:
        return [f"the curriculum ends after {count} steps on one device, before the budget of {trainer['max_steps']}"]
    if trainer["max_time"] is not None:
        return [f"a time limit stops the curriculum of {count} steps wherever it is; trials of different speed take different numbers of steps"]
    return []


def _same(plan: Plan, one: Trial, two: Trial) -> str:
    keys = [axis.key for axis in plan.axes if one.values[axis.key] != two.values[axis.key]]
    return (
        f"two trials are the same: {one.name} and {two.name}\n  found     {', '.join(keys)} changes nothing between them\n"
        "  next      drop one value; to repeat a trial, vary seed_everything"
    )


def _callbacks(config: Config) -> list[dict[str, Any]]:
    given = config["trainer"]["callbacks"] or []
    return given if isinstance(given, list) else [given]
