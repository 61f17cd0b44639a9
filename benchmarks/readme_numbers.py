"""Write the numbers of benchmarks/results/*.json and the quickstart's picture into README.md, between their marks.

python benchmarks/readme_numbers.py            # rewrite README.md
python benchmarks/readme_numbers.py --check    # fail unless it is up to date
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PICTURE = "docs/images/quickstart.png"
FIRST = ("quickstart", "standard", "standard_untrained", "real_buildings")
"""Results in the order of columns; others follow by name."""

ROWS = {
    "single/giou": "single referring, gIoU",
    "single/ciou": "single referring, cIoU",
    "single/pr@0.5": "single referring, Pr@0.5",
    "multi/giou": "several targets, gIoU",
    "multi_matched/giou": "... in any order, gIoU",
    "group/giou": "groups, gIoU",
    "followup/giou": "follow-up turns, gIoU",
    "boundary/giou": "outlines of all masks, gIoU",
    "absent/n_acc": "absent targets refused (N-acc)",
    "absent/t_acc": "present targets drawn (T-acc)",
    "vqa/presence": "presence questions",
    "vqa/presence_majority": "... always the commonest answer",
    "vqa/count": "counting questions",
    "vqa/compare": "comparisons",
    "vqa/colour": "colour questions",
    "box/acc@0.5": "boxes, Acc@0.5",
    "caption/rouge_l": "captions, ROUGE-L",
    "caption/cider_d": "captions, CIDEr-D",
    "control/shuffled_giou": "control: asked about another image, gIoU",
    "control/class_union_giou": "control: everything of the true class, gIoU",
}


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The result files by name, in the order of columns.

    Raises:
        ValueError: for a file that lacks one of protocol, data, command and metrics.
    """
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    for name, result in found.items():
        if lacking := {"protocol", "data", "command", "metrics"} - set(result):
            raise ValueError(f"{folder / name}.json lacks {sorted(lacking)}; copy the metrics.json that geopix test writes.")
    return {name: found[name] for name in [*(name for name in FIRST if name in found), *(name for name in found if name not in FIRST)]}


def section(found: dict[str, dict[str, Any]]) -> str:
    """The section as Markdown: a table with one column per result, and the command of each."""
    if not found:
        return "No result files are committed."
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for key, label in ROWS.items():
        values = [_shown(result, key) for result in found.values()]
        if any(values):
            lines.append(f"| {label} | " + " | ".join(values) + " |")
    for name, result in found.items():
        lines += ["", f"**{name}** (protocol `{result['protocol']}`; {result['data']})", "", "```bash", result["command"], "```"]
    return "\n".join(lines)


def _shown(result: dict[str, Any], key: str) -> str:
    """A score with its interval, as far as the file has them."""
    value, interval = result["metrics"].get(key), result.get("intervals", {}).get(key)
    if value is None:
        return ""
    return f"{value:.3f}" if interval is None or interval[0] == interval[1] else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def picture(root: Path = ROOT) -> str:
    """The quickstart's picture as Markdown, once there is one."""
    return f"![Questions, true masks and the masks that the quickstart's model drew]({PICTURE})" if (root / PICTURE).is_file() else ""


def written(page: str, **sections: str) -> str:
    """The text of a page with its sections replaced.

    Raises:
        ValueError: unless it has the marks of each, once and in order.
    """
    for name, text in sections.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise ValueError(f"the page must hold {begin} and {end}, once each and in this order.")
        before, after = page.split(begin)[0], page.split(end)[1]
        page = before + "\n".join(line for line in (begin, text, end) if line) + after
    return page


def rewrite(sections: Mapping[Path, Callable[[str], Mapping[str, str]]], command: str) -> None:
    """The command line of a script that writes sections of pages.

    Args:
        sections: of each page, from its text as it is.
        command: what runs the script.
    """
    names = " and ".join(page.name for page in sections)
    parser = argparse.ArgumentParser(command, description=f"Write the numbers of {names} from the committed results.", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help=f"change nothing; fail unless {names} is up to date")
    given = parser.parse_args()
    for page, found in sections.items():
        now = page.read_text(encoding="utf-8")
        wanted = written(now, **found(now))
        if given.check and now != wanted:
            sys.exit(f"{page.name} is not up to date; run {command}")
        if not given.check:
            page.write_text(wanted, encoding="utf-8")


def main() -> None:
    """The command line."""
    rewrite({README: lambda _: {"picture": picture(), "numbers": section(results())}}, "python benchmarks/readme_numbers.py")


if __name__ == "__main__":
    main()
