"""Where one model draws better than another: questions about one thing, by its size, by how common its class is and by how many of its class are there.

    python -m benchmarks.ablation.where runs/ablation/memory/seed=*,memory=null runs/ablation/memory/seed=*,memory=classwise_small --seeds 3

Runs are tests of scenes (seed 0, as in every configuration). Prints gIoU of both, and the 95 % interval of the difference over seeds and images.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from geopix.data.scenes import Scenes
from geopix.evaluation.compare import read_alike
from geopix.evaluation.folder import Result
from geopix.evaluation.numbers import differences, mean_numbers
from geopix.evaluation.outcome import Outcome
from geopix.metrics.masks import SIZE_BUCKETS, size_bucket


def buckets(outcomes: Sequence[Outcome], same: Mapping[str, Counter[str]]) -> dict[str, set[str]]:
    """Keys of the questions about one thing, by bucket.

    Args:
        same: how many things of each class an image shows.
    """
    single = [outcome for outcome in outcomes if outcome.task == "segment/single"]
    asked = Counter(outcome.pairs[0].name for outcome in single)
    rare: set[str | None] = set()
    for name, _ in sorted(asked.items(), key=lambda each: each[1]):
        if sum(asked[each] for each in {*rare, name}) <= len(single) / 4:
            rare.add(name)
    found: dict[str, set[str]] = {}
    for outcome in single:
        pair = outcome.pairs[0]
        assert pair.area is not None
        assert pair.name is not None
        count = same[outcome.image][pair.name]
        crowd = "alone of its class" if count == 1 else "one of 2 or 3" if count < 4 else "one of 4 or more"
        kind = "a class of the rarest quarter" if pair.name in rare else "another class"
        for bucket in ("all", size_bucket(pair.area), kind, crowd):
            found.setdefault(bucket, set()).add(outcome.key)
    return found


def instances(images: Mapping[str, int]) -> dict[str, Counter[str]]:
    """How many things of each class a scene shows, by the key of its image (``level-split-index``).

    Args:
        images: the size in pixels of each image.
    """
    found = {}
    for image, size in images.items():
        level, split, index = image.rsplit("-", 2)
        found[image] = Counter(instance.name for instance in Scenes(level, split, size).scene(int(index)).instances)  # type: ignore[arg-type]
    return found


def main() -> None:
    """Print a row for each bucket."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="all seeds of the first model, then those of the second")
    parser.add_argument("--seeds", type=int, default=1)
    said = parser.parse_args()
    if len(said.runs) != 2 * said.seeds:
        parser.error(f"two models of {said.seeds} runs each are compared (--seeds); found {len(said.runs)} runs")
    results = read_alike(said.runs, seeds=said.seeds)
    outcomes = results[0].outcomes
    if not results[0].data.startswith("scenes ") or not results[0].data.endswith("seed 0"):
        parser.error(f"things are counted in scenes of seed 0; {said.runs[0]} is a test of {results[0].data}")
    kept = buckets(outcomes, instances({outcome.image: outcome.size[0] for outcome in outcomes}))

    def part(result: Result, keys: set[str]) -> Result:
        return replace(result, outcomes=tuple(outcome for outcome in result.outcomes if outcome.key in keys))

    print(f"{'the asked thing is':<30}  questions  {'first':>6}  {'second':>6}  difference")
    order = ["all", *SIZE_BUCKETS, "a class of the rarest quarter", "another class", "alone of its class", "one of 2 or 3", "one of 4 or more"]
    for name in order:
        if keys := kept.get(name):
            tables = [part(result, keys).table() for result in results]
            first, second = tables[: said.seeds], tables[said.seeds :]
            low, high = differences(first, second, results[0].rule)["single/giou"]
            before, after = (mean_numbers(each, results[0].rule)["single/giou"] for each in (first, second))
            print(f"{name:<30}  {len(keys):>9}  {before:>6.3f}  {after:>6.3f}  {low:+.3f} to {high:+.3f}")


if __name__ == "__main__":
    main()
