"""A trial: ``geopix fit``, then ``geopix test``, in a folder from which it can be resumed or rerun by hand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from geopix.evaluation.names import is_count, plain
from geopix.sweep.folder import (
    COMMAND,
    FAILED,
    FITTED,
    METRICS,
    TRIAL,
    finished,
    forget_metrics,
    holds,
    locked,
    read_json,
    read_metrics,
    read_validations,
    replace,
    set_aside,
)  # fmt: skip

GEOPIX = (sys.executable, "-m", "geopix")
_TAIL = 14
_POLL = 0.1
_PATIENCE = 30.0


@dataclass(frozen=True)
class Job:
    """All that a trial needs to run, on this machine or on another.

    Args:
        name: of the trial.
        values: of the axes, by option.
        folder: where it runs.
        text: the configuration that it runs, as YAML.
        config: the same as it was read, without what the sweep adds.
        command: the options of ``geopix fit`` that it stands for.
        test: whether a test follows the training.
        path: folders with modules of one's own.
        program: what stands for ``geopix`` on the command line.
        threads: of each process, or None for the machine's choice.
    """

    name: str
    values: Mapping[str, str]
    folder: Path
    text: str
    config: Mapping[str, Any]
    command: Sequence[str]
    test: bool = True
    path: Sequence[str] = ()
    program: Sequence[str] = GEOPIX
    threads: int | None = None

    @property
    def benchmarks(self) -> list[str]:
        """What is tested in place of ``data.test``."""
        return list(self.config.get("benchmark") or ())


def run(job: Job, stop: Event) -> dict[str, Any]:
    """Run what of a trial is not done yet.

    Args:
        stop: set by another thread to interrupt it; the trial can be resumed.

    Returns:
        its result, with ``state``: ``done``, ``failed``, ``interrupted``, or ``running`` where another process is at it.
    """
    with locked(job.folder) as lock:
        if lock is None:
            return {"name": job.name, "state": "running"}
        if not finished(job.folder, job.text, test=job.test, benchmarks=job.benchmarks):
            _prepare(job)
            for stage in ("fit", "test") if job.test else ("fit",):
                failure = None if stage == "fit" and read_json(job.folder / FITTED) is not None else _stage(job, stage, lock, stop)
                if stop.is_set():
                    return {"name": job.name, "state": "interrupted"}
                if failure is not None:
                    replace(job.folder / FAILED, json.dumps(failure, indent=2) + "\n")
                    return {"name": job.name, "state": "failed", **failure}
        return result(job)


def result(job: Job) -> dict[str, Any]:
    """What a finished trial found, with all that is needed to compare it and to run it again."""
    fitted = read_json(job.folder / FITTED) or {}
    validations = read_validations(job.folder)
    metrics = read_metrics(job.folder, job.benchmarks) if job.test else validations[-1]["metrics"] if validations else None
    return {
        "name": job.name,
        "state": "done",
        "axes": dict(job.values),
        "measured": "test" if job.test else "last validation",
        "metrics": metrics or {},
        **{name: fitted[name] for name in ("step", "seconds", "parameters", "trained", "device", "versions") if name in fitted},
        "validations": [{"step": line["step"], **{name: value for name, value in line["metrics"].items() if _wide(name)}} for line in validations],
        "command": commands(job),
        "config": dict(job.config),
    }


def commands(job: Job) -> list[str]:
    """The commands that a trial stands for, in terms of the files that the sweep was given."""
    said = shlex.join([*job.command])
    return [f"geopix fit {said}", *([f"geopix test {said} --ckpt_path last"] if job.test else [])]


def _wide(name: str) -> bool:
    """Whether a validation score is about a whole kind of questions, so that its course is worth keeping."""
    return not is_count(name) and "@" not in name and plain(name).count("/") == 1


def _prepare(job: Job) -> None:
    """A folder with what the trial runs. What is there of another configuration is set aside; a checkpoint of this one is kept."""
    if not holds(job.folder, job.text):
        kept = set_aside(job.folder)
        if kept is not None:
            print(f"geopix: {job.folder} held another configuration; what was there is now in {kept}", file=sys.stderr)
        replace(job.folder / TRIAL, job.text)
    words = [["fit"], ["test", "--ckpt_path", "last"]] if job.test else [["fit"]]
    before = f"PYTHONPATH={shlex.quote(os.pathsep.join(job.path))} " if job.path else ""
    lines = [f"{before}geopix {shlex.join([verb, '--config', str(job.folder / TRIAL), *more])}" for verb, *more in words]
    said = "\n".join(f"#   {line}" for line in commands(job))
    replace(job.folder / COMMAND, "\n".join(lines) + f"\n\n# The same in terms of the files that the sweep was given, in another folder:\n{said}\n")
    (job.folder / FAILED).unlink(missing_ok=True)
    forget_metrics(job.folder)


def _stage(job: Job, verb: str, lock: int, stop: Event) -> dict[str, Any] | None:
    """Run a command of a trial to its end; what went wrong, or None."""
    words = [*job.program, verb, "--config", str(job.folder / TRIAL)]
    if verb == "test" or (job.folder / "checkpoints" / "last.ckpt").is_file():
        words += ["--ckpt_path", "last"]
    if verb == "fit" and "--ckpt_path" in words and job.config.get("init_from"):
        words += ["--init_from", "null"]  # it has begun from these weights already
    log = job.folder / f"{verb}.log"
    path = [*job.path, os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else list(job.path)
    environment = {**os.environ, **({"PYTHONPATH": os.pathsep.join(path)} if path else {}), **({"OMP_NUM_THREADS": str(job.threads)} if job.threads else {})}
    with log.open("ab") as out:
        start = out.tell()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, pass_fds=[lock])
        code = _wait(process, stop)
    if stop.is_set():
        return None
    if code != 0 and not stop.wait(0.5):  # an interruption reaches the command first
        return {"stage": verb, "code": code, "tail": _tail(log, start), "log": str(log)}
    if verb == "fit" and code == 0 and not job.test and not read_validations(job.folder):
        return {
            "stage": verb,
            "code": code,
            "tail": ["no validation was made, so there is nothing to compare; lower trainer.val_check_interval"],
            "log": str(log),
        }
    if code == 0 and (read_json(job.folder / FITTED) if verb == "fit" else read_metrics(job.folder, job.benchmarks)) is None:
        left = FITTED if verb == "fit" else METRICS
        return {"stage": verb, "code": code, "tail": [f"geopix {verb} ended without writing {left} into {job.folder}"], "log": str(log)}
    return None


def _wait(process: subprocess.Popen[bytes], stop: Event) -> int:
    while not stop.is_set():
        try:
            return process.wait(_POLL)
        except subprocess.TimeoutExpired:
            continue
    process.terminate()
    end = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < end:
        time.sleep(_POLL)
    if process.poll() is None:
        process.kill()
    return process.wait()


def _tail(log: Path, start: int) -> list[str]:
    """The last lines that a command wrote."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace").replace("\r", "\n")
    return [line.rstrip()[:300] for line in text.split("\n") if line.strip()][-_TAIL:]
