"""A test as one HTML file: numbers with their intervals, where they come from, the best and worst pictures, and every answer.

The file needs no network: its own policy forbids the browser to ask for anything, and to run a script that is not the report's. Whatever comes from the
data or the model is escaped here, and set as text, never as HTML, by the script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from geopix.evaluation.names import is_count
from geopix.evaluation.outcome import FAMILIES, SEGMENT_KINDS, Outcome
from geopix.evaluation.pictures import extremes, worth
from geopix.evaluation.protocols import PROTOCOLS, Protocol
from geopix.metrics.boxes import score_boxes
from geopix.metrics.masks import SIZE_BUCKETS, size_bucket

TABLES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "Masks",
        ("segment", *SEGMENT_KINDS, "multi_matched", "boundary"),
        "{mean} is the mean IoU of the masks; {cumulative} is all intersections over all unions, so large masks dominate; pr@X is the share of masks whose "
        "IoU passes X. Masks are paired in the order of the question; multi_matched pairs several masks by the best assignment. segment is all of them, "
        "boundary the same for the pixels near their outlines.",
    ),
    ("Masks by size", ("size",), "By the area of the true thing in pixels of its image: {sizes}."),
    ("Masks by class", ("class",), "By the class of the true thing, where the data names it."),
    (
        "Absent things",
        ("absent", "false_premise"),
        "t_acc: something was drawn where the thing is there; n_acc: nothing was drawn where it is not; false_premise/rate: how often what is not there was "
        "drawn or confirmed, 0 is best.",
    ),
    ("What answers lack", ("answers",), "Shares of the answers that should have masks: no [SEG], fewer or more than asked, empty masks alone, as asked."),
    ("Grounded conversations", ("grounded_conversation",), "Drawn masks assigned to the true ones; what was missed counts."),
    ("Boxes in text", ("box",), "Paired in order; a missing or unreadable box counts 0."),
    ("Questions", ("vqa",), "Shares of right answers. oa: of all questions; aa: mean over the kinds; majority: always giving the commonest answer."),
    ("Captions", ("caption",), "Words compared with those of the true descriptions."),
    ("Confidence", ("quality", "presence"), "What the decoder expects of its masks, against what they are."),
    ("Controls", ("control",), "What single must beat: masks asked for in another image, and everything of the target's class as the answer."),
    ("Other", (), "Scores of no other table."),
)
"""Title, first parts of the names of its groups, and what the scores mean."""
FOLD = 15
"""Tables of more rows are folded."""
BINS = 20
EDGES = [place / BINS for place in range(BINS)]
MEASURES = {"segment": "IoU of masks", "refer": "IoU of boxes", "caption": "ROUGE-L", "vqa": "right"}


@dataclass(frozen=True)
class Part:
    """One mask, box or answer that was compared.

    Args:
        value: IoU, ROUGE-L, or right and wrong, in steps of 0.0001, so that a bar of a histogram and a filter hold the same.
        name, size: class and size of the true thing, where they are known.
        quality: IoU that the decoder expected.
    """

    value: float
    name: str | None = None
    size: str | None = None
    quality: float | None = None


def write_report(path: Path, said: Mapping[str, Any], outcomes: Sequence[Outcome], pictures: Mapping[str, bytes]) -> None:
    """Write the report, whole or not at all. The same arguments give the same bytes.

    Args:
        said: what ``metrics.json`` holds.
        outcomes: every dialogue.
        pictures: JPEGs of the best and of the worst dialogues, by their keys.
    """
    rule = PROTOCOLS[said["protocol"]]
    parts = [_parts(outcome, rule) for outcome in outcomes]
    style, script = _beside("report.css"), _beside("report.js")
    page = Template(_beside("report.html")).substitute(
        title=escape(said["data"]),
        protocol=escape(said["protocol"]),
        definition=escape(said["definition"]),
        counts=f"{len(outcomes):,} answers about {len({outcome.image for outcome in outcomes}):,} images",
        level=f"{100 * said['interval']['level']:g} %",
        remarks="".join(f'<li class="remark">{escape(remark)}</li>' for remark in said["remarks"]),
        facts=_facts(said),
        numbers=_numbers(said, rule),
        histograms=_histograms(outcomes, parts),
        sizes=_plot(said, rule, "size"),
        classes=_plot(said, rule, "class"),
        pictures=_pictures(outcomes, parts, pictures),
        samples=_samples(outcomes, parts),
        style=style,
        style_hash=_digest(style),
        script=script,
        script_hash=_digest(script),
    )
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(page.encode("utf-8", "replace"))
    part.replace(path)


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names the style and the script that may be used."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _parts(outcome: Outcome, rule: Protocol) -> list[Part]:
    """What was compared in a dialogue; nothing where the protocol gave the words that would be judged."""
    if outcome.pairs:
        return [
            Part(
                value=round(pair.intersection / pair.union if pair.union else rule.empty, 4),
                name=pair.name,
                size=None if pair.area is None else size_bucket(pair.area),
                quality=None if pair.quality is None else round(pair.quality, 4),
            )
            for pair in outcome.pairs
        ]
    if rule.forced:
        return []
    boxes = outcome.family == "refer"
    return [Part(round(value, 4)) for value in (score_boxes(outcome.answers[-1], outcome.expected[-1]) if boxes else [worth(outcome, rule.read)])]


def _measure(task: str) -> str:
    """What the values of a task are."""
    return "refused" if task == "segment/absent" else MEASURES[task.partition("/")[0]]


def _facts(said: Mapping[str, Any]) -> str:
    """All else that ``metrics.json`` says, as a list of terms."""
    own = ("data", "protocol", "definition", "remarks", "metrics", "intervals")
    return "".join(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{_fact(value)}</dd>" for name, value in said.items() if name not in own)


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(name))}: {_fact(each)}" for name, each in value.items())
    return escape("none" if value is None else str(value))


def _numbers(said: Mapping[str, Any], rule: Protocol) -> str:
    """Every score, in one table per family."""
    groups: dict[str, dict[str, str]] = {}
    for name in said["metrics"]:
        group, _, score = name.rpartition("/")
        groups.setdefault(group, {})[score] = name
    first = [rule.names.get(name, name) for name in ("giou", "ciou")]
    sizes = ", ".join(f"{name} below {limit:,}" if limit < math.inf else f"{name} beyond" for name, limit in SIZE_BUCKETS.items())
    tables: dict[str, list[str]] = {"grid": [], "list": []}
    for title, heads, note in TABLES:
        order = [*heads, *(f"size/{bucket}" for bucket in SIZE_BUCKETS)]
        chosen = [group for group in groups if not heads or group.partition("/")[0] in heads]
        here = {group: groups.pop(group) for group in sorted(chosen, key=lambda group: (order.index(group) if group in order else len(order), group))}
        if here:
            kind = "grid" if _share(here) else "list"
            table = _grid(said, here, first) if kind == "grid" else _list(said, here)
            table = f'<div class="scroll"><table class="numbers {kind}">{table}</table></div>'
            table = f"<details><summary>{len(here)} rows</summary>{table}</details>" if len(here) > FOLD else table
            note = escape(note.format(mean=first[0], cumulative=first[1], sizes=sizes))
            tables[kind].append(f'<section class="family"><h3>{escape(title)}</h3><p class="note">{note}</p>{table}</section>')
    return "".join(f'<div class="{kind}s">{"".join(sections)}</div>' for kind, sections in tables.items())


def _share(groups: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether several groups have a score in common, so that they can be read across."""
    return len(groups) > 1 and bool(set.intersection(*({score for score, name in group.items() if not is_count(name)} for group in groups.values())))


def _grid(said: Mapping[str, Any], groups: Mapping[str, Mapping[str, str]], first: Sequence[str]) -> str:
    """One row per group and one column per score, counts last."""
    named = {score: name for group in groups.values() for score, name in group.items()}
    scores = sorted(named, key=lambda score: (is_count(named[score]), first.index(score) if score in first else len(first), score))
    rows = []
    for group, found in groups.items():
        cells = "".join(f"<td>{_cell(said, found[score]) if score in found else ''}</td>" for score in scores)
        rows.append(f'<tr><th scope="row">{escape(group.partition("/")[2] or group)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(score)}</th>' for score in scores)
    return f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _list(said: Mapping[str, Any], groups: Mapping[str, Mapping[str, str]]) -> str:
    """One row per score."""
    scores = {(score if len(groups) == 1 else name): name for found in groups.values() for score, name in found.items()}
    return "".join(f'<tr><th scope="row">{escape(score)}</th><td>{_cell(said, name)}</td></tr>' for score, name in scores.items())


def _cell(said: Mapping[str, Any], name: str) -> str:
    """A number, and its interval as a bar and in digits. The axis is from 0 (or -1) to 1, or to the next power of ten, and then said."""
    value, interval = said["metrics"][name], said["intervals"].get(name)
    exact = f'<data value="{json.dumps(value)}">{f"{value:,.0f}" if is_count(name) else f"{value:.3f}"}</data>'
    if interval is None:
        return f'<div class="cell">{exact}</div>'
    top = 10.0 ** math.ceil(math.log10(max(value, *interval, 1.0)))
    bottom = 0.0 if min(value, *interval) >= 0 else -top
    zero, at, low, high = (100 * (each - bottom) / (top - bottom) for each in (0.0, value, *interval))
    axis = "" if (bottom, top) == (0, 1) else f" (axis {bottom:g} to {top:g})"
    return (
        f'<div class="cell">{exact}<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect class="fill" x="{min(zero, at):.2f}" width="{abs(at - zero):.2f}" height="8"/>'
        f'<rect class="range" x="{low:.2f}" y="3" width="{max(high - low, 0.6):.2f}" height="2"/></svg>'
        f"<small>{interval[0]:.3f} to {interval[1]:.3f}{axis}</small></div>"
    )


def _plot(said: Mapping[str, Any], rule: Protocol, part: str) -> str:
    """The mean IoU of each class or size with its interval; a click on a name shows its answers."""
    mean, metrics = rule.names.get("giou", "giou"), said["metrics"]
    start, end = f"{part}/", f"/{mean}"
    names = [name.removeprefix(start).removesuffix(end) for name in metrics if name.startswith(start) and name.endswith(end)]
    if not names:
        return f'<p class="note">No {part} of a true mask is known.</p>'
    names.sort(key=list(SIZE_BUCKETS).index if part == "size" else lambda name: -metrics[f"{part}/{name}/{mean}"])
    rows = "".join(
        f'<tr><th scope="row"><button type="button" data-filter="{part}" data-{part}="{escape(name)}">{escape(name)}</button></th>'
        f"<td>{_cell(said, f'{part}/{name}/{mean}')}</td><td>{metrics[f'{part}/{name}/count']:,.0f}</td></tr>"
        for name in names
    )
    head = "".join(f'<th scope="col">{title}</th>' for title in (part, mean, "masks"))
    return f'<div class="scroll tall"><table class="numbers list plot"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _histograms(outcomes: Sequence[Outcome], parts: Sequence[Sequence[Part]]) -> str:
    """How values are spread, kind by kind."""
    values: dict[str, list[float]] = {}
    for outcome, found in zip(outcomes, parts, strict=True):
        if _measure(outcome.task) not in ("refused", "right"):
            values.setdefault(outcome.task, []).extend(part.value for part in found)
    order = sorted(values, key=lambda task: (FAMILIES.index(task.partition("/")[0]), task))
    return "".join(_histogram(task, values[task]) for task in order if values[task])


def _histogram(task: str, values: Sequence[float]) -> str:
    """Twenty bars; a click on one shows its answers."""
    counts = [0] * BINS
    for value in values:
        counts[bisect_right(EDGES, value) - 1] += 1
    bars = []
    for place, count in ((place, count) for place, count in enumerate(counts) if count):
        low, high, height = EDGES[place], 1.0 if place == BINS - 1 else round(EDGES[place + 1] - 1e-4, 4), max(100 * count / max(counts), 1)
        bars.append(
            f'<g role="button" tabindex="0" data-filter="task" data-task="{escape(task)}" data-low="{low:g}" data-high="{high:g}" '
            f'aria-label="{low:g} to {high:g}: {count:,}"><title>{low:g} to {high:g}: {count:,}</title>'
            f'<rect class="hit" x="{12 * place}" width="12" height="100"/>'
            f'<rect class="fill" x="{12 * place + 1}" y="{100 - height:.1f}" width="10" height="{height:.1f}"/></g>'
        )
    ticks = "".join(f'<text x="{240 * tick:g}" y="113" text-anchor="middle">{tick:g}</text>' for tick in (0, 0.5, 1))
    top = f'<text x="{12 * counts.index(max(counts)) + 6}" y="-4" text-anchor="middle">{max(counts):,}</text>'
    mean, measure = sum(values) / len(values), _measure(task)
    return (
        f'<figure class="histogram"><figcaption><b>{escape(task)}</b> {measure}: {len(values):,}, mean {mean:.3f}</figcaption>'
        f'<svg viewBox="-6 -14 252 130" role="group" aria-label="{escape(task)}, histogram of {measure}">{"".join(bars)}'
        f'<path class="axis" d="M0 100H240"/><path class="mean" d="M{240 * mean:.1f} 0V100"/>{ticks}{top}</svg></figure>'
    )


def _pictures(outcomes: Sequence[Outcome], parts: Sequence[Sequence[Part]], pictures: Mapping[str, bytes]) -> str:
    """The worst answers, worst first, and the best, best first."""
    rows = {outcome.key: row for row, outcome in enumerate(outcomes)}
    best, worst = extremes([outcomes[row] for row in sorted(rows[key] for key in pictures)], len(pictures))
    strips = []
    for title, chosen in (("Worst", worst), ("Best", best)):
        figures = []
        for each in chosen:
            row, text, image = rows[each.key], escape("; ".join((*each.prompts, *each.answers))), base64.b64encode(pictures[each.key]).decode()
            about = f"{escape(each.prompts[-1])} <small>{escape(each.task)} {escape(each.key)}</small>"
            figures.append(
                f'<figure data-row="{row}"><button type="button" aria-label="enlarge"><img alt="{text}" src="data:image/jpeg;base64,{image}">'
                f"</button><figcaption>{''.join(f'<b>{part.value:.3f}</b> ' for part in parts[row])}{about}</figcaption></figure>"
            )
        if figures:
            strips.append(f'<section class="strip"><h3>{title} {len(figures)}</h3><div class="pictures">{"".join(figures)}</div></section>')
    return "".join(strips)


def _samples(outcomes: Sequence[Outcome], parts: Sequence[Sequence[Part]]) -> str:
    """Every answer, for the script that shows, filters and sorts; ``<`` is written so that nothing can end the element that holds it."""
    tasks = {task: place for place, task in enumerate(sorted({outcome.task for outcome in outcomes}))}
    classes = {name: place for place, name in enumerate(sorted({part.name for found in parts for part in found if part.name is not None}))}
    sizes = {name: place for place, name in enumerate(SIZE_BUCKETS)}
    rows = []
    for each, found in zip(outcomes, parts, strict=True):
        compared = [[part.value, classes.get(part.name or "", -1), sizes.get(part.size or "", -1), part.quality] for part in found]
        mean = round(sum(part.value for part in found) / len(found), 4) if found else None
        rows.append([each.key, tasks[each.task], each.prompts, each.answers, each.expected, mean, compared, each.targets, each.written])
    data = {"tasks": list(tasks), "measures": [_measure(task) for task in tasks], "classes": list(classes), "sizes": list(sizes), "rows": rows}
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
