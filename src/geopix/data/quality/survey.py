"""Checking whole files: every line, then what only shows when all are known: double keys, double questions, leaks between splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from geopix.data.index import key_number
from geopix.data.quality import report
from geopix.data.quality.check import Checked, check_line
from geopix.data.quality.leaks import Seen, leaks
from geopix.data.quality.lines import each_line
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
    seen: list[Seen] = []
    for number, path in enumerate(paths):
        check = partial(check_line, root=path.parent, vocabulary=vocabulary)
        findings = Findings(str(path))
        for checked in _among_all(each_line(path, check, limit=limit, workers=workers)):
            _add(findings, checked)
            if checked.look is not None:
                look, split = checked.look, checked.split or path.stem
                seen.append(Seen(number, checked.line, checked.key, split, checked.identity, look.digest, look.perceptual, look.gradient))
        if not findings.counts["records"]:
            findings.problems.append(Problem(report.UNREADABLE, 0, "", "the file holds no record."))
        found.append(findings)
    for number, problem in leaks(seen):
        found[number].problems.append(problem)
    return found


def _among_all(lines: Iterable[Checked]) -> Iterable[Checked]:
    """Adds what a line has in common with an earlier one."""
    keys: dict[int, int] = {}
    questions: dict[int, int] = {}
    for checked in lines:
        if checked.key and (first := keys.setdefault(key_number(checked.key), checked.line)) != checked.line:
            checked.problem(report.KEY, f"the key {checked.key!r} was given to line {first} already; keys name samples and must differ.")
        for number, question in enumerate(checked.questions):
            if question in questions:  # also within one record
                checked.problem(report.QUESTION, f"dialogue {number} asks and answers what line {questions[question]} does, about the same image.")
            questions.setdefault(question, checked.line)
        yield checked


def _add(findings: Findings, checked: Checked) -> None:
    findings.counts.update({"records": 1, "dialogues": len(checked.tasks), "instances": checked.instances})
    if checked.split is not None:
        findings.splits[checked.split] += 1
    findings.tasks.update(checked.tasks)
    findings.problems += checked.problems
    for note in checked.notes:
        findings.note(note)
