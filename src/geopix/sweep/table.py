"""The results of a sweep as tables: a row for each trial, and a row for each combination with mean and deviation over its seeds."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from geopix.evaluation.names import is_count, plain
from geopix.sweep.folder import read_json, replace
from geopix.sweep.plan import Trial, is_seed, labels, short
from geopix.sweep.same import differences

PLAN = "sweep.json"
TABLE, TRIALS, SUMMARY, PICTURE = "table.md", "trials.csv", "summary.csv", "trials.png"
_FIRST = ("single/giou", "multi/giou", "absent/n_acc", "absent/t_acc", "vqa/oa", "caption/cider_d", "segment/giou", "*")
_SHOWN = 6
Result = Mapping[str, Any]
Row = list[str]


@dataclass(frozen=True)
class Gathered:
    """The results in a folder, in the order of the sweep.

    Args:
        keys: options of the axes.
        trials: what was planned, and after it what else has a result there.
        results: by name of the trial.
        asked: the command of the sweep.
    """

    keys: Sequence[str]
    trials: Sequence[Trial]
    results: Mapping[str, Result]
    asked: str

    @property
    def whole(self) -> list[Result]:
        """Results of trials that ran to their end."""
        return [self.results[trial.name] for trial in self.trials if self.state(trial) == "done"]

    def state(self, trial: Trial) -> str:
        """``done``, ``stopped`` before its end, or ``missing``."""
        return str(self.results[trial.name]["state"]) if trial.name in self.results else "missing"

    def metrics(self) -> list[str]:
        """Names of all numbers, those first that are looked at first."""
        names = sorted({name for each in self.whole for name in each["metrics"]})
        return sorted(names, key=lambda name: (is_count(name), next(rank for rank, glob in enumerate(_FIRST) if fnmatchcase(plain(name), glob))))


def gather(folder: Path) -> Gathered:
    """Read what a sweep has left in its folder of results.

    Raises:
        ValueError: where there is no sweep, or a result of another one.
    """
    plan = read_json(folder / PLAN)
    if plan is None:
        near = f"\n  found     {len(list(folder.glob('*.json')))} other JSON files" if folder.is_dir() else ""
        raise ValueError(
            f"{folder} holds no results of a sweep{near}\n  expected  {folder / PLAN}\n  next      geopix sweep writes it into --results, or else into --output"
        )
    keys = list(plan["axes"])
    found = {path.stem: read_json(path) for path in sorted(folder.glob("*.json")) if path.name != PLAN}
    for name, result in found.items():
        if result is None or list(result.get("axes", {})) != keys:
            raise ValueError(f"{folder / name}.json is no result of this sweep\n  expected  one with the axes {', '.join(keys)}\n  next      move it elsewhere")
    results = {name: result for name, result in found.items() if result is not None}
    planned = [Trial(each["name"], each["values"]) for each in plan["trials"]]
    others = [Trial(name, result["axes"]) for name, result in results.items() if name not in {trial.name for trial in planned}]
    return Gathered(keys, [*planned, *others], results, plan["command"])


def write_plan(folder: Path, keys: Sequence[str], trials: Sequence[Trial], command: str) -> None:
    """Note what the sweep consists of, so that tables can say what is missing.

    Raises:
        ValueError: when the folder holds another sweep.
    """
    before = read_json(folder / PLAN)
    if before is not None and list(before["axes"]) != list(keys):
        raise ValueError(
            f"{folder} holds another sweep\n  found     the axes {', '.join(before['axes'])}\n  expected  {', '.join(keys)}\n"
            "  next      another folder with --output (and --results)"
        )
    values = {key: list(dict.fromkeys(trial.values[key] for trial in trials)) for key in keys}
    plan = {"command": command, "axes": values, "trials": [{"name": trial.name, "values": dict(trial.values)} for trial in trials]}
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / PLAN, json.dumps(plan, indent=2) + "\n")


def trial_rows(found: Gathered, metrics: Sequence[str], states: Mapping[str, str]) -> list[Row]:
    """A header, and a row for each trial.

    Args:
        states: of trials without a result, by name.
    """
    rows = [[*labels(found.keys), "state", *metrics, "steps", "minutes", "parameters"]]
    for trial in found.trials:
        result = found.results.get(trial.name, {})
        state = found.state(trial) if result else states.get(trial.name, "missing")
        values = result.get("metrics", {}) if state == "done" else {}
        minutes = f"{result['seconds'] / 60:.1f}" if "seconds" in result else ""
        numbers = [_number(values.get(name)) for name in metrics]
        rows.append([*map(short, trial.values.values()), state, *numbers, str(result.get("step", "")), minutes, str(result.get("parameters", ""))])
    return rows


def groups(found: Gathered) -> dict[tuple[str, ...], list[Trial]]:
    """Trials that differ in their seeds alone, by the values of the other axes."""
    other = [key for key in found.keys if not is_seed(key)]
    grouped: dict[tuple[str, ...], list[Trial]] = {}
    for trial in found.trials:
        grouped.setdefault(tuple(trial.values[key] for key in other), []).append(trial)
    return grouped


def unlike(found: Gathered) -> dict[str, list[str]]:
    """By name, trials that ended and differ in more than their seeds from the first of their combination, with the options in which they do."""
    seeds = {key.replace(".init_args", "") for key in found.keys if is_seed(key)}
    said = {}
    for trials in groups(found).values():
        ended = [trial.name for trial in trials if found.state(trial) == "done"]
        for name in ended[1:]:
            between = differences(found.results[ended[0]]["config"], found.results[name]["config"])
            if keys := [key for key, _, _ in between if key.replace(".init_args", "") not in seeds]:
                said[name] = keys
    return said


def summary(found: Gathered, metric: str, trials: Sequence[Trial]) -> tuple[float, float | None, int] | None:
    """Mean, deviation (n - 1; None of a single value) and number of values of a metric over trials; None where no trial has it."""
    values = [
        found.results[trial.name]["metrics"][metric] for trial in trials if found.state(trial) == "done" and metric in found.results[trial.name]["metrics"]
    ]
    return (fmean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else None


def summary_rows(found: Gathered, metrics: Sequence[str]) -> list[Row]:
    """A header, and a row for each combination: how many of its trials ended, and each metric as mean and deviation."""
    rows = [[*labels([key for key in found.keys if not is_seed(key)]), "trials", *metrics]]
    for values, trials in groups(found).items():
        ended = sum(found.state(trial) == "done" for trial in trials)
        rows.append([*map(short, values), f"{ended} of {len(trials)}", *(_spread(summary(found, metric, trials)) for metric in metrics)])
    return rows


def as_text(rows: Sequence[Row]) -> str:
    """Rows in columns: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(not each or each[0].isdigit() or each[0] == "-" for each in column[1:]) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{each:{'>' if to else '<'}{width}}" for each, width, to in zip(row, widths, right, strict=True)).rstrip() for row in rows)


def as_markdown(rows: Sequence[Row]) -> str:
    """Rows as a table of Markdown."""
    safe = [[each.replace("|", "\\|") for each in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [safe[0], ["---"] * len(safe[0]), *safe[1:]]) + "\n"


def chosen(found: Gathered, show: Sequence[str]) -> list[str]:
    """The metrics that are shown: those that match, or else the first few.

    Raises:
        ValueError: for a pattern that matches none.
    """
    names = found.metrics()
    for glob in show:
        if names and not any(fnmatchcase(name, glob) for name in names):
            raise ValueError(f"--show {glob} matches no metric\n  expected  {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}")
    return [name for glob in show for name in names if fnmatchcase(name, glob)] if show else [name for name in names if not is_count(name)][:_SHOWN]


def write_tables(found: Gathered, folder: Path, show: Sequence[str], states: Mapping[str, str]) -> str:
    """Write all tables, and give what a terminal shows of them."""
    names, every = chosen(found, show), found.metrics()
    sums = [[*row, *_seeds(found, trials, every)] for row, trials in zip(_plain(found), groups(found).values(), strict=True)]
    head = [*labels([key for key in found.keys if not is_seed(key)]), "planned", *(f"{name} {what}" for name in every for what in ("mean", "std", "n"))]
    replace(folder / SUMMARY, _csv([head, *sums]))
    replace(folder / TRIALS, _csv(trial_rows(found, every, states)))
    stopped = sum(found.state(trial) == "stopped" for trial in found.trials)
    count = f"{len(found.whole)} of {len(found.trials)} trials ended{f', {stopped} were stopped early' if stopped else ''}."
    measured = sorted({str(each["measured"]) for each in found.whole})
    about = f"{count} Measured: {', '.join(measured) or 'nothing yet'}. Deviations are over seeds (n - 1)."
    if others := unlike(found):
        keys = list(dict.fromkeys(key for each in others.values() for key in each))
        about += f" Means mix results of other values ({', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}): {', '.join(others)}."
    trials, means = trial_rows(found, names, states), summary_rows(found, names)
    every_number = f"All {len(every)} metrics: `{TRIALS}`, `{SUMMARY}`."
    text = f"`{found.asked}`\n\n{about} {every_number}\n\n{as_markdown(means)}\n{as_markdown(trials)}"
    if found.whole and names:
        text += f"\n![each trial a line]({PICTURE})\n"
    replace(folder / TABLE, text)
    kept, sums, left_out = _fitting(trials, names, found)
    if left_out:
        about += f"\nNo room here for {', '.join(left_out)}: see {TABLE}."
    return f"{as_text(kept)}\n\n{as_text(sums)}\n\n{about}\n{folder / TABLE}, {TRIALS}, {SUMMARY}" + (f", {PICTURE}" if found.whole and names else "")


def _fitting(trials: list[Row], names: Sequence[str], found: Gathered) -> tuple[list[Row], list[Row], Sequence[str]]:
    """Both tables without the last metrics that a terminal has no room for, and the names of those."""
    width = shutil.get_terminal_size((120, 24)).columns
    for count in range(len(names), 0, -1):
        first = len(found.keys) + 1
        kept = [[*row[: first + count], *row[first + len(names) :]] for row in trials]
        means = summary_rows(found, names[:count])
        if max(len(line) for line in f"{as_text(kept)}\n{as_text(means)}".splitlines()) <= width:
            break
    else:
        kept, means, count = trials, summary_rows(found, names), len(names)
    return kept, means, names[count:]


def _plain(found: Gathered) -> list[Row]:
    return [[*map(short, values), str(len(trials))] for values, trials in groups(found).items()]


def _seeds(found: Gathered, trials: Sequence[Trial], metrics: Sequence[str]) -> Row:
    numbers = (summary(found, metric, trials) or (None, None, 0) for metric in metrics)
    return [text for mean, deviation, count in numbers for text in (_number(mean), _number(deviation), str(count))]


def _spread(said: tuple[float, float | None, int] | None) -> str:
    if said is None:
        return ""
    mean, deviation, count = said
    return f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "") + f" ({count})"


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:.5f}".rstrip("0").rstrip(".")


def _csv(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
