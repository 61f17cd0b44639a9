"""A tested model as a folder: numbers with what they depend on, every sample, and a report. Read again to compare runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geopix.data.source import Source
from geopix.evaluation.definitions import definitions
from geopix.evaluation.groups import Table, tabulate
from geopix.evaluation.numbers import LEVEL, intervals, numbers, table_of
from geopix.evaluation.outcome import Outcome, from_json
from geopix.evaluation.pictures import answer_pictures
from geopix.evaluation.protocols import PROTOCOLS, Protocol, ProtocolName
from geopix.evaluation.report import write_report
from geopix.metrics.meteor_spice import meteor_and_spice

METRICS, SAMPLES, REPORT = "metrics.json", "samples.jsonl", "report.html"


@dataclass(frozen=True)
class Result:
    """One test.

    Args:
        protocol: name of the rule.
        data: title of the set.
        about: what else the numbers depend on: command, versions, checkpoint.
        outcomes: every dialogue.
        remarks: what must be known beside the numbers.
        said: what ``metrics.json`` says, for a result that was read.
    """

    protocol: ProtocolName
    data: str
    about: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    remarks: tuple[str, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> Protocol:
        """The rule."""
        return PROTOCOLS[self.protocol]

    def table(self) -> Table:
        """Everything that was counted."""
        return tabulate(self.outcomes, self.rule)

    def fingerprint(self) -> str:
        """Of the data that was scored: every question, its true answers and masks, whatever the model said."""
        lines = sorted(f"{outcome.key} {outcome.digest}" for outcome in self.outcomes)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_result(
    folder: Path, result: Result, source: Source, *, table: Table | None = None, resamples: int = 1000, pictures: int = 20, java: bool | None = None
) -> str:
    """Write ``metrics.json``, ``samples.jsonl`` and ``report.html``, each as a whole or not at all.

    Args:
        source: where the pictures of the report come from.
        table: what was counted of the result; counted here where it is not given.
        resamples: of the bootstrap.
        pictures: how many of the best and of the worst dialogues the report shows.
        java: count METEOR and SPICE too, which start Java programs; where not said, when at least half of the questions ask for captions.

    Returns:
        What to tell: the numbers and where everything is.
    """
    table = result.table() if table is None else table
    metrics = {name: round(value, 5) for name, value in sorted(numbers(table, result.rule).items())}
    ranges = {name: [round(low, 5), round(high, 5)] for name, (low, high) in sorted(intervals(table, result.rule, resamples=resamples).items())}
    words, why = _without_interval(result, java)
    said = {
        "protocol": result.protocol,
        "definition": result.rule.says,
        "data": result.data,
        "data_fingerprint": result.fingerprint(),
        "images": len(table.images),
        "dialogues": len(result.outcomes),
        "remarks": [*result.remarks, *why, *_hardly_draws(metrics)],
        **result.about,
        "interval": {"level": LEVEL, "method": "percentile bootstrap over images", "resamples": resamples},
        "metrics": metrics | words,
        "intervals": ranges,
        "definitions": definitions(metrics | words, result.rule),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _whole(folder / METRICS, json.dumps(said, indent=2) + "\n")
    _whole(folder / SAMPLES, "".join(json.dumps(outcome.as_json()) + "\n" for outcome in result.outcomes))
    shown = answer_pictures(result.outcomes, source, pictures) if pictures else {}
    write_report(folder / REPORT, said, result.outcomes, shown)
    head = f"\n{result.data}  (protocol: {result.protocol})\n  {result.rule.says}"
    told = [head, table_of(metrics | words, ranges), *(f"note: {remark}" for remark in said["remarks"])]
    places = (("numbers", METRICS), ("samples", SAMPLES), ("report", REPORT), ("pictures", "pictures"), ("curves", "curves.png"))
    return "\n".join([*told, *(f"{label:9}{folder / name}" for label, name in places if (folder / name).exists())])


def read_result(folder: Path) -> Result:
    """A result that :func:`write_result` wrote.

    Raises:
        ValueError: when the folder holds none, or its samples are not those that its numbers were made of.
    """
    if not (folder / METRICS).is_file() or not (folder / SAMPLES).is_file():
        raise ValueError(f"{folder} holds no finished test: expected {METRICS} and {SAMPLES}. Run geopix test or geopix score with this folder.")
    try:
        said = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / METRICS} was altered or cut off: it is no JSON ({error}). Test again.") from error
    if "data_fingerprint" not in said or said.get("protocol") not in PROTOCOLS:
        raise ValueError(f"{folder / METRICS} was written by an earlier version, without what a comparison needs. Test again.")
    outcomes = tuple(_read_samples(folder / SAMPLES))
    about = {name: said.get(name) for name in ("command", "version", "versions", "seed", "checkpoint", "config_sha256", "precision", "device")}
    result = Result(said["protocol"], said["data"], about, outcomes, tuple(said["remarks"]), said)
    if result.fingerprint() != said["data_fingerprint"] or len(outcomes) != said["dialogues"]:
        raise ValueError(
            f"{folder / SAMPLES} holds {len(outcomes)} dialogues that are not the {said['dialogues']} which {METRICS} was made of; "
            "one of the two was altered or cut off."
        )
    return result


def _read_samples(path: Path) -> Iterator[Outcome]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            given = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, was altered or cut off: it is no JSON ({error}). Test again.") from error
        try:
            yield from_json(given)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}, was written by another version of geopix, or altered: {error} does not fit. Test again.") from error


def _without_interval(result: Result, java: bool | None) -> tuple[dict[str, float], list[str]]:
    """Scores that are no function of sums over images, METEOR and SPICE; or why they are not there."""
    captions = [outcome for outcome in result.outcomes if outcome.family == "caption"]
    if not captions or result.rule.forced:
        return {}, []
    if java is False or (java is None and 2 * len(captions) < len(result.outcomes)):
        asked = "geopix test --results.java true, geopix score --java"
        return {}, [f"caption/meteor and caption/spice are left out: they start Java programs and were not asked for ({asked})"]
    scores, why = meteor_and_spice([each.answers[-1] for each in captions], [each.references or each.expected[-1:] for each in captions])
    found = {f"caption/{name}": round(value, 5) for name, value in scores.items()}
    return found, [f"caption/{name} is left out: {reason}" for name, reason in why.items()]


def _hardly_draws(metrics: Mapping[str, float]) -> list[str]:
    """That most answers have no mask, so that a low score is not taken for bad masks."""
    little = "mask scores tell little about masks here"
    if "answers/no_seg" not in metrics:  # without [SEG] of its own, a program is judged by what it drew
        without = 1 - metrics.get("absent/t_acc", 1.0)
        return [f"{without:.0%} of the answers that should have masks have none that holds a pixel: {little}."] if without > 0.5 else []
    share, empty, fewer = (metrics[f"answers/{name}"] for name in ("no_seg", "empty_mask", "fewer"))
    if share + empty <= 0.5:
        return []
    said = ["the model never writes [SEG]" if share == 1 else f"{share:.0%} of the answers that should have masks are without [SEG]"] if share else []
    said += [f"{empty:.0%} of the answers that should have masks have [SEG] with empty masks"] if empty else []
    said += [f"{fewer:.0%} have too few"] if fewer else []
    untrained = "It was not trained to write [SEG], or its training was too short; samples.jsonl has its answers."
    blank = "Its decoder was not trained, or finds too little evidence to draw (model.net.decoder.evidence)."
    return [f"{', '.join(said)}: {little}. {untrained if share > empty else blank}"]


def _whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
