"""Which share of ``geopix test`` goes into scoring: comparing masks, counting, intervals. Answering is the baseline, in the same run.

python benchmarks/scoring_cost.py --config configs/quickstart.yaml --ckpt_path last
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from lightning.pytorch import Trainer

import geopix.evaluation.folder
from geopix.cli import main
from geopix.evaluation.scores import Scores

SPENT: Counter[str] = Counter()


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; what it takes is added to its name."""

    @wraps(function)  # the command line reads options off signatures
    def call(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            SPENT[name] += time.perf_counter() - start

    return call


if __name__ == "__main__":
    Scores.update = timed("comparing masks", Scores.update)  # type: ignore[method-assign]
    Scores.update_shuffled = timed("comparing masks", Scores.update_shuffled)  # type: ignore[method-assign]
    Scores.compute = timed("counting", Scores.compute)  # type: ignore[method-assign]
    geopix.evaluation.folder.intervals = timed("intervals", geopix.evaluation.folder.intervals)
    geopix.evaluation.folder.numbers = timed("counting", geopix.evaluation.folder.numbers)
    geopix.evaluation.folder.answer_pictures = timed("report (not scoring)", geopix.evaluation.folder.answer_pictures)
    geopix.evaluation.folder.write_report = timed("report (not scoring)", geopix.evaluation.folder.write_report)
    Trainer.test = timed("whole test", Trainer.test)  # type: ignore[method-assign]
    code = main(["test", *sys.argv[1:]])
    whole = SPENT.pop("whole test")
    for name, seconds in SPENT.items():
        print(f"{name:24}{100 * seconds / whole:6.1f} % of the test")
    scoring = sum(seconds for name, seconds in SPENT.items() if "not scoring" not in name)
    print(f"{'scoring':24}{100 * scoring / whole:6.1f} %")
    sys.exit(code)
