"""The command ``geopix sweep``. Nothing that needs torch is imported before the options are known to be right."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from difflib import get_close_matches
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

from geopix.sweep.folder import FAILED, read_json, replace, state
from geopix.sweep.plan import Plan, Trial, grouped, labels, planned
from geopix.sweep.run import GEOPIX, Job, run
from geopix.sweep.same import differences, other_versions
from geopix.sweep.table import PICTURE, PLAN, as_text, chosen, gather, write_plan, write_tables

OK, FAILURES, USAGE, INTERRUPTED = 0, 1, 2, 130
ABOUT = """The product of some options of geopix fit: each combination is an ordinary training with its test, in a folder of its own.

Every trial is checked before the first one starts. The same command, started again, goes on where it was: trials with a result are not run again,
and one that was killed resumes from its last checkpoint. Options that are not listed here go to every trial.
"""
EXAMPLE = """
example:
  geopix sweep --config configs/quickstart.yaml --vary model.net.memory configs/memory/*_small.yaml null --vary seed_everything 0 1 2

exit codes: 0 all trials ended, 1 some failed or did not end, 2 options
"""


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"geopix: {message}; geopix sweep --help shows the options.\n")


def parser() -> argparse.ArgumentParser:
    """The sweep's own options."""
    made = _Parser("geopix sweep", description=ABOUT, epilog=EXAMPLE, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", action="append", default=[], metavar="FILE", help="the configuration of all trials; several are merged, later ones win")
    made.add_argument(
        "--vary", action="append", nargs="+", default=[], metavar="OPTION VALUE", help='an option with its values: files, numbers, null; "config" varies a file'
    )
    made.add_argument("--output", type=Path, metavar="FOLDER", help="where the trials run (runs/sweeps/, named after configuration and axes)")
    made.add_argument("--results", type=Path, metavar="FOLDER", help="where one JSON per finished trial and the tables are kept (the output folder)")
    made.add_argument("--max_steps", type=int, metavar="N", help="train every trial for N steps (trainer.max_steps)")
    made.add_argument("--max_minutes", type=float, metavar="M", help="train every trial for M minutes (trainer.max_time)")
    made.add_argument("--test", action=argparse.BooleanOptionalAction, default=True, help="test each trial; without, its last validation is compared")
    made.add_argument("--only", metavar="I/N", help="the I-th of N shares of the trials, to divide them among machines by hand")
    made.add_argument("--trial", action="append", default=[], metavar="NAME", help="only this trial; may be repeated")
    made.add_argument("--retry_failed", action="store_true", help="run failed trials again, from their last checkpoints")
    made.add_argument("--keep_results", action="store_true", help="count results as they are, although they were made with other values than now")
    made.add_argument("--reuse", action="append", type=Path, default=[], metavar="FOLDER", help="another sweep's results, for trials of the same configuration")
    made.add_argument("--dry_run", action="store_true", help="check everything, show the trials with their states and commands, and stop")
    made.add_argument("--jobs", type=int, metavar="N", help="trials at a time (1; with --ray: as many as fit)")
    made.add_argument("--ray", metavar="ADDRESS", help='run on a Ray cluster: "auto", HOST:PORT, or "local" to start one here (extra: geopix[sweep])')
    made.add_argument("--asha", metavar="METRIC", help="with --ray: stop trials early that are behind in this validation score, such as val/single/giou")
    made.add_argument("--cpus", type=float, default=1.0, metavar="N", help="with --ray: CPUs of a trial (1)")
    made.add_argument("--gpus", type=float, metavar="N", help="with --ray: GPUs of a trial (1 where the cluster has any)")
    made.add_argument("--show", action="append", default=[], metavar="GLOB", help='metrics to show, such as "single/*"; may be repeated')
    made.add_argument("--table", type=Path, metavar="FOLDER", help="make the tables of these results again, and stop")
    return made


def main(args: Sequence[str], program: Sequence[str] = GEOPIX) -> int:
    """Run a sweep.

    Args:
        program: what stands for ``geopix`` on the command lines of the trials.

    Returns:
        0 all trials ended, 1 some failed or did not end, 2 a mistake in the options.
    """
    try:
        said, rest = parser().parse_known_args(args)
        if said.table is not None:
            return _tables(said.table, said.show, {}, [])
        return _sweep(said, rest, program)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    except ValueError as error:
        print(f"geopix: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("geopix: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _sweep(said: argparse.Namespace, rest: Sequence[str], program: Sequence[str]) -> int:
    _check_options(said)
    own = [word for action in parser()._actions for word in (each.lstrip("-") for each in action.option_strings)]
    plan = planned(said.config, [*rest, *_budget(said, rest)], said.vary, own)
    trials = plan.trials
    wanted = _wanted(trials, said)
    output = said.output or Path("runs/sweeps") / "-".join([*(Path(each).stem for each in said.config[:1]), *labels([axis.key for axis in plan.axes])])
    results = said.results or output
    print(f"{len(trials)} trials in {output}; their configurations are being checked", flush=True)
    jobs = _jobs(plan, said, output, program)
    states = {name: _state(job, results, said) for name, job in jobs.items()}
    others = _others(plan, results, said)
    elsewhere = _reused([jobs[trial.name] for trial in wanted if states[trial.name] != "finished"], said)
    kept = [read_json(results / f"{name}.json") or {} for name, each in states.items() if each == "finished"]
    if notice := other_versions([*kept, *others, *elsewhere.values()]):
        print(f"geopix: {notice}", file=sys.stderr)
    if said.dry_run:
        states |= {name: f"in {result['reused']}" for name, result in elsewhere.items()}
        print(as_text([["trial", "state", "command"], *([job.name, states[job.name], f"geopix fit {shlex.join(job.command)}"] for job in jobs.values())]))
        return OK
    write_plan(results, [axis.key for axis in plan.axes], trials, _asked(said, rest))
    for name, result in elsewhere.items():
        replace(results / f"{name}.json", json.dumps(result, indent=1) + "\n")
        states[name] = "finished"
        print(f"{name}: the same as {result['reused']}, which stands for it")
    todo = [jobs[trial.name] for trial in wanted if states[trial.name] not in ("finished", *(() if said.retry_failed else ("failed",)))]
    failures = [{"name": trial.name, **(read_json(jobs[trial.name].folder / FAILED) or {})} for trial in wanted if states[trial.name] == "failed"]
    failures = [] if said.retry_failed else failures
    for outcome in _outcomes(todo, said, len(trials)):
        states[outcome["name"]] = outcome["state"]
        if outcome["state"] in ("done", "stopped"):
            replace(results / f"{outcome['name']}.json", json.dumps(outcome, indent=1) + "\n")
        elif outcome["state"] == "failed":
            failures.append(outcome)
        _say(f"{outcome['name']}: {_told(outcome)}")
    code = _tables(results, said.show, states, failures)
    return code or (OK if all(states[trial.name] in ("finished", "done", "stopped") for trial in wanted) else FAILURES)


def _asked(said: argparse.Namespace, rest: Sequence[str]) -> str:
    """The command that the results belong to, without what says only which of them are made now, and how."""
    given = {"--max_steps": said.max_steps, "--max_minutes": said.max_minutes, "--asha": said.asha, "--output": said.output, "--results": said.results}
    words = [*(["--config", each] for each in said.config), *(["--vary", *each] for each in said.vary), list(rest)]
    words += [[name, f"{value:g}" if isinstance(value, float) else str(value)] for name, value in given.items() if value is not None]
    return shlex.join(["geopix", "sweep", *(word for each in words for word in each), *([] if said.test else ["--no-test"])])


def _check_options(said: argparse.Namespace) -> None:
    if not said.config:
        raise ValueError("no configuration is given\n  expected  --config FILE, such as configs/quickstart.yaml")
    if said.max_steps is not None and said.max_minutes is not None:
        raise ValueError("both --max_steps and --max_minutes are given\n  expected  one budget, the same for all trials")
    for name, value in (("max_steps", said.max_steps), ("max_minutes", said.max_minutes), ("jobs", said.jobs)):
        if value is not None and value <= 0:
            raise ValueError(f"--{name} is {value}\n  expected  a number above 0")
    if said.asha and not said.ray:
        raise ValueError("--asha needs --ray: trials are stopped early by comparing them while they run\n  next      --ray local runs them here")


def _budget(said: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    option, value = ("--trainer.max_steps", str(said.max_steps)) if said.max_steps is not None else ("--trainer.max_time", "")
    if said.max_minutes is not None:
        seconds = max(1, round(60 * said.max_minutes))
        value = f"{seconds // 86400:02d}:{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if not value:
        return []
    if any(key == option.lstrip("-") for key, _ in grouped(rest)):
        raise ValueError(f"{option} is given beside the sweep's own budget\n  next      drop one of the two")
    return [option, value]


def _wanted(trials: Sequence[Trial], said: argparse.Namespace) -> list[Trial]:
    """The trials that this call runs."""
    names = [trial.name for trial in trials]
    for name in said.trial:
        if name not in names:
            near = get_close_matches(name, names, 1, 0.3) or names[:1]
            raise ValueError(f"there is no trial {name}\n  did you mean  {near[0]}\n  next      --dry_run lists all {len(names)}")
    chosen = [trial for trial in trials if not said.trial or trial.name in said.trial]
    if said.only is None:
        return chosen
    share, _, of = said.only.partition("/")
    if not share.isdecimal() or not of.isdecimal() or not 1 <= int(share) <= int(of):
        raise ValueError(f"--only is {said.only}\n  expected  I/N with I from 1 to N, such as 1/3")
    return chosen[int(share) - 1 :: int(of)]


def _jobs(plan: Plan, said: argparse.Namespace, output: Path, program: Sequence[str]) -> dict[str, Job]:
    """All trials, ready to be run, after a check of every configuration."""
    from geopix.sweep.check import check, runnable

    checked = check(plan, test=said.test)
    for notice in checked.notices:
        print(f"geopix: {notice}", file=sys.stderr)
    folders = dict.fromkeys(str(Path(each).resolve().parent) for trial in plan.trials for each in plan.files(trial))
    path = [folder for folder in folders if folder != str(Path.cwd()) and any(Path(folder).glob("*.py"))]
    many = said.jobs is not None and said.jobs > 1 and not said.ray and "OMP_NUM_THREADS" not in os.environ
    threads = max(1, (os.cpu_count() or 1) // said.jobs) if many else None
    jobs = {}
    for trial in plan.trials:
        folder, config = output / trial.name, checked.configs[trial.name]
        text = runnable(config, str(folder))
        jobs[trial.name] = Job(trial.name, trial.values, folder, text, config, plan.words(trial), said.test, path, program, threads)
    return jobs


def _state(job: Job, results: Path, said: argparse.Namespace) -> str:
    """``finished`` for a trial whose result is kept, otherwise the state of its folder.

    Raises:
        ValueError: for a result of another configuration.
    """
    path = results / f"{job.name}.json"
    result = read_json(path)
    if result is None:
        return state(job.folder, job.text, test=job.test, benchmarks=job.benchmarks)
    if not said.keep_results:
        _refuse_other(path, result["config"], dict(job.config))
    measured = result["measured"] == ("test" if job.test else "last validation")
    whole = measured if result["state"] == "done" else bool(said.asha)
    return "finished" if whole else state(job.folder, job.text, test=job.test, benchmarks=job.benchmarks)


def _others(plan: Plan, results: Path, said: argparse.Namespace) -> list[dict[str, Any]]:
    """Results in the folder of trials that are not planned now: the tables count them beside those that are.

    Raises:
        ValueError: for one that this sweep, with the values of its axes, would have made with another configuration.
    """
    from geopix.sweep.check import other

    names, keys = {PLAN, *(f"{trial.name}.json" for trial in plan.trials)}, [axis.key for axis in plan.axes]
    read = {path: read_json(path) for path in sorted(results.glob("*.json")) if path.name not in names}
    found = {path: result for path, result in read.items() if result is not None and list(result.get("axes", {})) == keys}
    for path, result in found.items() if not said.keep_results else ():
        config = other(plan, Trial(path.stem, result["axes"]))
        if config is None:
            print(f"geopix: {path} is counted and cannot be compared: its values cannot be read any more", file=sys.stderr)
        else:
            _refuse_other(path, result["config"], config)
    return list(found.values())


def _refuse_other(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a result of another configuration."""
    differing = differences(before, now)
    if differing:
        rows = as_text([["option", "result", "now"], *([key, str(old)[:40], str(new)[:40]] for key, old, new in differing[:8])])
        raise ValueError(
            f"{path} was made with other values than this sweep has\n" + "\n".join(f"  {row}" for row in rows.splitlines()) + "\n"
            "  next      another folder (--output, --results), remove such results to run them again, or --keep_results to count them as they are"
        )


def _reused(jobs: Sequence[Job], said: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from geopix.sweep.reuse import reused

    return reused(jobs, said.reuse)


def _outcomes(jobs: Sequence[Job], said: argparse.Namespace, count: int) -> Iterator[dict[str, Any]]:
    print(f"{len(jobs)} of {count} trials are to be run", flush=True)
    if not said.ray or not jobs:
        return _locally(jobs, said.jobs or 1)
    try:
        from geopix.sweep.ray_tune import run_on_ray
    except ModuleNotFoundError as error:
        raise ValueError(f"--ray needs the package {error.name}\n  next      install the extra: geopix[sweep]") from error
    return run_on_ray(jobs, said.ray, asha=said.asha, cpus=said.cpus, gpus=said.gpus, at_once=said.jobs)


def _locally(jobs: Sequence[Job], at_once: int) -> Iterator[dict[str, Any]]:
    """Run trials in processes of this machine, and give their results as they end."""
    stop = Event()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(_begun, job, stop) for job in jobs]
        try:
            for each in as_completed(running):
                yield each.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            signal.signal(signal.SIGTERM, before)


def _begun(job: Job, stop: Event) -> dict[str, Any]:
    if stop.is_set():
        return {"name": job.name, "state": "interrupted"}
    _say(f"{job.name}: begins")
    return run(job, stop)


def _say(line: str) -> None:
    """A line in one piece, whichever other threads print."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _told(outcome: Mapping[str, Any]) -> str:
    if outcome["state"] == "failed":
        return f"failed in geopix {outcome['stage']} ({_exit(outcome['code'])})"
    if outcome["state"] == "running":
        return "is being run by another process"
    minutes = f" after {outcome['seconds'] / 60:.1f} min of training" if "seconds" in outcome else ""
    return f"{outcome['state']}{minutes}"


def _exit(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _tables(folder: Path, show: Sequence[str], states: Mapping[str, str], failures: Sequence[Mapping[str, Any]]) -> int:
    """Write and show the tables, then the failures."""
    found = gather(folder)
    print(f"\n{write_tables(found, folder, show, states)}")
    names = chosen(found, show)
    if found.whole and names:
        from geopix.sweep.parallel import draw

        draw(found, names, folder / PICTURE)
    for failure in failures:
        print(f"\n{failure['name']} failed in geopix {failure['stage']} ({_exit(failure['code'])}), {failure['log']}:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in failure["tail"]), file=sys.stderr)
    if failures:
        print(f"\ngeopix: {len(failures)} of {len(found.trials)} trials failed; --retry_failed runs them again", file=sys.stderr)
    return FAILURES if failures else OK
