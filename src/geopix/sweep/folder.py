"""The files of a trial's folder, from which its state follows.

``trial.yaml`` is what the trial runs, and all else in the folder belongs to it. ``fitted.json``: the training has come to its end. ``failed.json``: a command
failed. ``validations.jsonl``: scores on the way. ``metrics.json``: the numbers of the test. ``lock`` is held while the trial runs.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TRIAL, COMMAND, LOCK = "trial.yaml", "command.txt", "lock"
VALIDATIONS, FITTED, FAILED, METRICS = "validations.jsonl", "fitted.json", "failed.json", "metrics.json"


def replace(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it, or is killed meanwhile, leaves the old one or the new one whole."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no such file, or none that was written whole."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """The validations of a trial so far, in order; a line that is still being written is left out."""
    path = folder / VALIDATIONS
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def holds(folder: Path, text: str) -> bool:
    """Whether a folder is that of a trial that runs ``text``."""
    path = folder / TRIAL
    return path.is_file() and path.read_text(encoding="utf-8") == text


def read_metrics(folder: Path, benchmarks: Sequence[str]) -> dict[str, float] | None:
    """The numbers of a trial's test; None until all are there. Those of benchmarks have the benchmark's name before them: ``rrsis_d:single/giou``."""
    found: dict[str, float] = {}
    for name in [f"{Path(each).stem}:" for each in benchmarks] or [""]:
        said = read_json(folder / name.rstrip(":") / METRICS)
        if said is None:
            return None
        found |= {f"{name}{metric}": float(value) for metric, value in said["metrics"].items() if isinstance(value, int | float)}
    return found


def forget_metrics(folder: Path) -> None:
    """Remove the numbers of earlier tests."""
    for path in [folder / METRICS, *folder.glob(f"*/{METRICS}")]:
        path.unlink(missing_ok=True)


def finished(folder: Path, text: str, *, test: bool, benchmarks: Sequence[str]) -> bool:
    """Whether all that a trial does has been done in its folder, here or by hand."""
    fitted = folder / FITTED
    if not holds(folder, text) or read_json(fitted) is None:
        return False
    older = [path for path in (folder / METRICS, *folder.glob(f"*/{METRICS}")) if path.is_file() and path.stat().st_mtime_ns < fitted.stat().st_mtime_ns]
    return not test or (not older and read_metrics(folder, benchmarks) is not None)


def state(folder: Path, text: str, *, test: bool, benchmarks: Sequence[str]) -> str:
    """``done``, ``failed``, ``running``, ``begun`` (to be resumed) or ``pending``."""
    if not holds(folder, text):
        return "pending"
    with locked(folder) as free:
        if free is None:
            return "running"
    if finished(folder, text, test=test, benchmarks=benchmarks):
        return "done"
    return "failed" if (folder / FAILED).is_file() else "begun"


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Hold a trial; gives None where another process does. A command that is handed the number holds it as well, until it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    number = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held: int | None = number
        except BlockingIOError:
            held = None
        yield held
    finally:
        os.close(number)


def set_aside(folder: Path) -> Path | None:
    """Move what another trial left in a folder into one beside it; None where there is nothing."""
    left = [path for path in folder.iterdir() if path.name != LOCK] if folder.is_dir() else []
    if not left:
        return None
    number = next(number for number in range(1, 10_000) if not folder.with_name(f"{folder.name}~{number}").exists())
    kept = folder.with_name(f"{folder.name}~{number}")
    kept.mkdir()
    for path in left:
        path.rename(kept / path.name)
    return kept
