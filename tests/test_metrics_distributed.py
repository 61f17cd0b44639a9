"""Metrics over two processes with uneven shards, one of them empty, equal those of one process.

Run as a script, ``python -m tests.test_metrics_distributed FOLDER``, this file starts both processes, which leave their results in the folder. It forks them,
because importing torchmetrics takes longer than everything else here; nothing has started a thread by then.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.metric_cases import CASES

SPLITS = {"uneven": (4, 1), "one rank empty": (5, 0), "other rank empty": (0, 5)}


def score(part: slice) -> dict[str, dict[str, str]]:
    """Every metric fed with a part of its things, one at a time; values as text, which keeps every bit and NaN."""
    results = {}
    for name, case in CASES.items():
        metric = case.make()
        for item in case.items[part]:
            metric.update(*item)
        results[name] = {key: f"{value.item():.12f}" for key, value in metric.compute().items()}
    return results


def work(rank: int, folder: Path) -> None:
    """One of the two processes: writes its results for every split."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    starts = {name: (0, sizes[0]) for name, sizes in SPLITS.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        results = {name: score(slice(starts[name][rank], starts[name][rank] + sizes[rank])) for name, sizes in SPLITS.items()}
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def work_in_two(folder: Path) -> int:
    """Both processes; 0 when both ended well."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return max(abs(process.exitcode or 0) for process in processes)


@pytest.mark.skipif(not (sys.platform.startswith("linux") and torch.distributed.is_available()), reason="needs fork and torch.distributed")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.test_metrics_distributed", str(tmp_path)]
    parent = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = parent.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(parent.pid, signal.SIGKILL)  # its children too; a hanging collective does not heed SIGTERM
        parent.communicate()
        raise
    assert parent.returncode == 0, errors
    expected = score(slice(None))
    assert float(expected["MaskIoU"]["count"]) == 5
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        assert results.keys() == SPLITS.keys()
        for split, found in results.items():
            assert found == expected, (rank, split)


if __name__ == "__main__":
    sys.exit(work_in_two(Path(sys.argv[1])))
