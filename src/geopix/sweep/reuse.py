"""Results of other sweeps that stand for trials of this one: the row that several tables share is trained once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geopix.sweep.folder import read_json
from geopix.sweep.run import Job
from geopix.sweep.same import differences


def reused(jobs: Iterable[Job], folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Results for trials whose configuration is that of a finished trial elsewhere, in everything that can change a number.

    Args:
        jobs: trials without a result of their own.
        folders: what other sweeps had as ``--results``.

    Returns:
        Results by name of the trial; ``reused`` in each says which file it is from.

    Raises:
        ValueError: for a folder without a result.
    """
    kept = {path: result for folder in folders for path, result in _results(folder).items()}
    found: dict[str, dict[str, Any]] = {}
    for job in jobs:
        measured = "test" if job.test else "last validation"
        for path, result in kept.items():
            if result["state"] == "done" and result["measured"] == measured and not differences(result["config"], dict(job.config)):
                found[job.name] = {**result, "name": job.name, "axes": dict(job.values), "reused": str(path)}
                break
    return found


def _results(folder: Path) -> Mapping[Path, dict[str, Any]]:
    read = {path: read_json(path) for path in sorted(folder.glob("*.json"))}
    found = {path: result for path, result in read.items() if result is not None and "measured" in result}
    if not found:
        raise ValueError(f"--reuse {folder} holds no result of a trial\n  expected  the folder that another sweep had as --results (or --output)")
    return found
