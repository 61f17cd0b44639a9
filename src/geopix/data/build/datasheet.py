"""The datasheet of a set: what it was made from, by which rules, how much of what, and what was left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geopix.data.build.survey import Survey

SECTIONS = {
    "task": "Dialogues by task",
    "rule": "Rules that fired",
    "expression": "Expressions by type",
    "class": "Instances by class",
    "colour": "Measured colours",
    "rejected": "Instances that are not asked for alone",
    "unproved": "Targets without a proved description",
    "rewrite": "Rewording",
    "position": "Positions of targets",
    "side": "Sizes of targets (root of the area in pixels)",
    "words": "Words in a prompt",
    "answer": "Answers to yes-or-no questions",
}
"""What the tally counts under a prefix, and its heading."""

NOTES = (
    "A description is kept only when exactly its targets meet it clearly and no other instance perhaps does; an instance of unknown class or unsure colour "
    "counts as a possible match, as does one that is cut off, hidden, tiny or marked by the source.",
    "A class or attribute is said to be absent on the strength of the instances alone: where the source did not label a class everywhere, turn such "
    "questions off (--absent 0, and no vqa family).",
    "Sizes are of what is seen in the image. Lengths in metres are given only where a thing is seen whole and the ground sampling is known.",
    "Counts, comparisons and yes-or-no questions leave out whatever is cut off, too small or marked by the source.",
)


def write_datasheet(
    output: Path, source: str, settings: Mapping[str, Any], seen: Survey, tally: Counter[str], quarantine: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """Writes ``<name>.datasheet.json`` and ``<name>.datasheet.md`` beside the set; the same set gives the same bytes."""
    sheet = {
        "set": output.name,
        "input": {"file": source, "sha256": seen.sha256, "records": len(seen.lines), **seen.origins},
        "settings": settings,
        "totals": {name: count for name, count in sorted(tally.items()) if not name.startswith(tuple(f"{prefix}: " for prefix in SECTIONS))},
        **{prefix: _section(tally, prefix) for prefix in SECTIONS},
        "left out": dict(sorted(Counter(entry["kind"] for entry in quarantine).items())),
        "notes": list(NOTES),
    }
    output.with_name(f"{output.stem}.datasheet.json").write_text(json.dumps(sheet, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    output.with_name(f"{output.stem}.datasheet.md").write_text(_markdown(sheet), encoding="utf-8")
    return sheet


def _section(tally: Mapping[str, int], prefix: str) -> dict[str, int]:
    """What is counted under a prefix, the most frequent first."""
    found = {name.partition(": ")[2]: count for name, count in tally.items() if name.startswith(f"{prefix}: ")}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _markdown(sheet: Mapping[str, Any]) -> str:
    given = sheet["input"]
    lines = [f"# {sheet['set']}", "", f"Made from `{given['file']}` ({given['records']} records, sha256 `{given['sha256']}`).", ""]
    for field in ("licence", "source", "split"):
        lines += [f"- {field}: " + "; ".join(f"{value} ({count})" for value, count in given[field].items())]
    lines += ["", "Settings: `" + json.dumps(sheet["settings"], ensure_ascii=False) + "`", ""]
    lines += _table("Totals", sheet["totals"])
    for prefix, heading in SECTIONS.items():
        lines += _table(heading, sheet[prefix])
    lines += _table("Records and lines left out (see the quarantine file)", sheet["left out"])
    lines += ["## What the numbers mean", "", *(f"- {note}" for note in sheet["notes"]), ""]
    return "\n".join(lines)


def _table(heading: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    return [f"## {heading}", "", "| what | number |", "|---|---:|", *(f"| {name} | {count} |" for name, count in counts.items()), ""]
