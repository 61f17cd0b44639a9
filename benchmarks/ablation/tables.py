"""Write the tables of docs/ablation.md and docs/baselines.md from the committed results, between their marks.

    python -m benchmarks.ablation.tables            # rewrite the pages
    python -m benchmarks.ablation.tables --check    # fail unless they are up to date

A folder of results is a sweep's (its tables are made by geopix sweep); texts beside it are printed as they are: ``NAME.md`` by geopix compare --markdown,
``NAME.txt`` by benchmarks.ablation.diagnose. Of programs measured by geopix score, ``PROGRAM_seed=N.json`` beside it, a table is made here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.readme_numbers import rewrite
from geopix.sweep.table import Gathered, as_markdown, gather, groups, summary_rows

ROOT = Path(__file__).parents[2]
PAGES: Mapping[Path, Path] = {
    ROOT / "docs" / "ablation.md": ROOT / "benchmarks" / "ablation" / "results",
    ROOT / "docs" / "baselines.md": ROOT / "benchmarks" / "baselines" / "results",
}
"""Each page with the folder of its results."""

PROGRAMS = "programs"
"""The table of the programs whose numbers, ``PROGRAM_seed=N.json``, lie in the folder itself."""

WORDS_TOO = ("single/giou", "multi/giou", "group/giou", "absent/n_acc", "absent/t_acc", "vqa/oa", "caption/cider_d")
SHOWN: Mapping[str, Sequence[str]] = {
    "memory": ("single/giou", "size/tiny/giou", "size/small/giou", "size/medium/giou", "multi/giou", "group/giou", "absent/n_acc"),
    "memory_level": ("val/single/giou", "val/multi/giou", "val/group/giou", "val/absent/n_acc"),
    "memory_again": ("single/giou", "size/tiny/giou", "size/small/giou", "size/medium/giou", "multi/giou", "group/giou", "absent/n_acc", "absent/t_acc"),
    "memory_both": ("single/giou", "size/tiny/giou", "size/small/giou", "size/medium/giou", "multi/giou", "group/giou", "absent/n_acc", "absent/t_acc"),
    "unseen": ("class/tennis court/giou", "class/large vehicle/giou", "class/storage tank/giou", "single/giou"),
    "hard": ("single/giou", "size/tiny/giou", "size/small/giou", "size/medium/giou", "multi/giou", "group/giou", "absent/n_acc", "vqa/oa"),
    "training": WORDS_TOO,
    "decoder": ("single/giou", "multi/giou", "group/giou", "boundary/giou"),
    "whole": ("single/giou", "size/tiny/giou", "multi/giou", "group/giou", "boundary/giou", "absent/n_acc", "vqa/oa", "caption/cider_d"),
    PROGRAMS: (
        "single/giou",
        "size/tiny/giou",
        "size/small/giou",
        "size/medium/giou",
        "multi/giou",
        "group/giou",
        "followup/giou",
        "absent/n_acc",
        "absent/t_acc",
    ),
    "vision": ("single/giou", "size/tiny/giou", "size/small/giou", "size/medium/giou", "multi/giou", "group/giou", "vqa/oa", "caption/cider_d"),
}
COSTLY = ("decoder", "vision", "whole")
"""Tables with parameters and minutes."""


def table(found: Gathered, metrics: Sequence[str], costs: bool) -> str:
    """What ended, and a row for each variant: mean, deviation over seeds and number of trials of each metric."""
    rows = summary_rows(found, metrics)
    if costs:
        rows[0] += ["parameters", "minutes"]
        for row, trials in zip(rows[1:], groups(found).values(), strict=True):
            ended = [found.results[trial.name] for trial in trials if found.state(trial) == "done"]
            row += [f"{ended[0]['parameters']:,}" if ended else "", f"{fmean(each['seconds'] for each in ended) / 60:.1f}" if ended else ""]
    rows = [rows[0], *(row for row in rows[1:] if not row[1].startswith("0 of"))]
    return f"{len(found.whole)} of {len(found.trials)} trials have ended.\n\n{as_markdown(rows)}"


def programs(folder: Path, metrics: Sequence[str]) -> str:
    """A row for each program that ``geopix score`` measured: mean and deviation over its seeds."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for path in sorted(folder.glob("*_seed=*.json")):
        found.setdefault(path.stem.partition("_seed=")[0], []).append(json.loads(path.read_text(encoding="utf-8"))["metrics"])
    rows = [["program", "seeds", *metrics]]
    for name, seeds in found.items():
        values = ([each[metric] for each in seeds] for metric in metrics)
        rows.append([name.replace("_", " "), str(len(seeds)), *(f"{fmean(each):.3f}" + (f" ± {stdev(each):.3f}" if len(each) > 1 else "") for each in values)])
    return as_markdown(rows)


def sections(page: str, results: Path) -> dict[str, str]:
    """The text for every pair of marks in the page."""
    names = [line.removeprefix("<!-- ").removesuffix(":begin -->") for line in page.splitlines() if line.startswith("<!-- ") and line.endswith(":begin -->")]
    return {name: _section(results, name) for name in names}


def _section(results: Path, name: str) -> str:
    if name == PROGRAMS:
        return programs(results, SHOWN[name]).rstrip()
    if (folder := results / name).is_dir():
        return table(gather(folder), SHOWN[name], name in COSTLY).rstrip()
    if (said := results / f"{name}.md").is_file():
        return said.read_text(encoding="utf-8").strip()
    if (said := results / f"{name}.txt").is_file():
        return f"```text\n{said.read_text(encoding='utf-8').strip()}\n```"
    return "*No trial has ended yet.*"


def main() -> None:
    """The command line."""
    rewrite({page: partial(sections, results=results) for page, results in PAGES.items()}, "python -m benchmarks.ablation.tables")


if __name__ == "__main__":
    main()
