"""Checking whole files: every line, then what only shows when all are known: double keys, double questions, leaks between splits."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from geopix.data.index import key_number
from geopix.data.quality import report
from geopix.data.quality.check import Checked, check_line, decode, forward_slashes, image_of
from geopix.data.quality.leaks import Sightings, equal_groups, leaks
from geopix.data.quality.lines import each_line, read_lines
from geopix.data.quality.report import Findings, Problem


def survey(paths: Sequence[Path], *, vocabulary: frozenset[str] | None = None, limit: int | None = None, workers: int | None = None) -> list[Findings]:
    """Checks files together: a split of one must not share an image with another split, of the same file or of another.

    Args:
        paths: the JSONL files; records without a split belong to a split named like their file.
        vocabulary: class names that are allowed; None allows all.
        limit: how many lines of each file; None for all.
        workers: processes, see :func:`geopix.data.quality.lines.each_line`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when one is no JSONL at all.
    """
    found: list[Findings] = []
    seen = Sightings()
    for number, path in enumerate(paths):
        check = partial(check_line, root=path.parent, vocabulary=vocabulary)
        findings, numbers = Findings(str(path)), _Numbers()
        for checked in each_line(path, check, limit=limit, workers=workers):
            _add(findings, checked)
            numbers.add(checked)
            if checked.look is not None:
                seen.add(number, checked.line, checked.split or path.stem, checked.image, checked.window, checked.look)
        findings.problems = sorted([*findings.problems, *numbers.repeated(path)], key=lambda problem: problem.line)
        if not findings.counts["records"]:
            findings.problems.append(Problem(report.UNREADABLE, 0, "", "the file holds no record."))
        found.append(findings)
    _tell_leaks(paths, seen, found)
    return found


@dataclass
class _Numbers:
    """Numbers that stand for the keys and the questions of a file, with their lines; memory holds no text of a million records."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    key_lines: array[int] = field(default_factory=lambda: array("I"))
    questions: array[int] = field(default_factory=lambda: array("Q"))
    question_lines: array[int] = field(default_factory=lambda: array("I"))
    dialogues: array[int] = field(default_factory=lambda: array("I"))

    def add(self, checked: Checked) -> None:
        if checked.key:
            self.keys.append(key_number(checked.key))
            self.key_lines.append(checked.line)
        for number, question in enumerate(checked.questions):
            self.questions.append(question)
            self.question_lines.append(checked.line)
            self.dialogues.append(number)

    def repeated(self, path: Path) -> Iterator[Problem]:
        """Keys and questions that stood on an earlier line, or earlier on the same."""
        keys = [(self.key_lines[first], self.key_lines[place]) for first, *others in map(list, equal_groups(self.keys)) for place in others]
        asked = [(first, place) for first, *others in map(list, equal_groups(self.questions)) for place in others]
        named = _named(path, {line for _, line in keys} | {self.question_lines[place] for _, place in asked})
        for first, line in keys:
            key = named[line][1]
            yield Problem(report.KEY, line, key, f"the key {key!r} was given to line {first} already; keys name samples and must differ.")
        for first, place in asked:
            line, before = self.question_lines[place], self.question_lines[first]
            what = f"dialogue {self.dialogues[place]} asks and answers what line {before} does, about the same image."
            yield Problem(report.QUESTION, line, named[line][1], what)


def _tell_leaks(paths: Sequence[Path], seen: Sightings, found: Sequence[Findings]) -> None:
    told = list(leaks(seen))
    lines: dict[int, set[int]] = defaultdict(set)
    for _, *pair in told:
        for place in pair:
            lines[seen.files[place]].add(seen.lines[place])
    named = {file: _named(paths[file], wanted) for file, wanted in lines.items()}
    for kind, one, other in told:
        (image, key), (same, beside) = (named[seen.files[place]][seen.lines[place]] for place in (one, other))
        what = f"{image} ({seen.split(one)}) and {same} ({seen.split(other)}, line {seen.lines[other]}, {beside})."
        found[seen.files[one]].problems.append(Problem(kind, seen.lines[one], key, what))


def _named(path: Path, lines: set[int]) -> Mapping[int, tuple[str, str]]:
    """Image and key of some lines, read again."""
    named = {}
    for raw, line in read_lines(path) if lines else ():
        if line in lines:
            record = json.loads(decode(raw)[0])
            forward_slashes(record)
            image, window = image_of(record, path.parent)
            named[line] = f"{image}{list(window or '') or ''}", str(record.get("key", record["image"]))
    return named


def _add(findings: Findings, checked: Checked) -> None:
    findings.counts.update({"records": 1, "dialogues": len(checked.tasks), "instances": checked.instances})
    if checked.split is not None:
        findings.splits[checked.split] += 1
    findings.tasks.update(checked.tasks)
    findings.problems += checked.problems
    for note in checked.notes:
        findings.note(note)
