"""LLaVA's conversation JSON, and what GeoChat and VRSBench write into it: task tags and boxes ``{<x1><y1><x2><y2>|<angle>}`` in percent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import cos, radians, sin
from pathlib import Path
from typing import Any

from geopix.data.records import Record, dialogue
from geopix.data.sources.files import find_picture, grouped, read_json
from geopix.data.sources.pieces import Box, Picture, box_of, open_picture, percent, record_of
from geopix.data.sources.reader import About, Reader, Report
from geopix.data.sources.wording import Talk, box_text, listing, question, small
from geopix.types import SEG

Turns = list[tuple[str, str]]

_BOX = re.compile(r"\{<(-?\d+)><(-?\d+)><(-?\d+)><(-?\d+)>(?:\|<(-?\d+)>)?\}")
_TAG = re.compile(r"^\s*\[(\w+)\]\s*")
_HINT = re.compile(r"(?i)\s*(a short answer to the question is|answer the question using a single word or phrase)\.?$")
"""How sets ask for short answers; the tag ``[vqa]`` says it here."""

_CAPTION = re.compile(r"(?i)\b(describe|caption|description|summari[sz]e)\b")
_PEOPLE, _MODELS = {"human", "user"}, {"gpt", "bot", "assistant"}


@dataclass(frozen=True)
class LLaVAConversations(Reader):
    """Conversations about pictures, in the JSON of LLaVA, LISA, InternLM-XComposer and their like.

    Prompts that bear a tag (``[refer]``, ``[vqa]``, ``[caption]``, ``[identify]``, ``[grounding]``) become dialogues of that task, one each; what follows
    without a tag stays one conversation, a caption where it asks for a description and otherwise ``vqa/open``.

    Args:
        root: folder that the pictures' paths start from.
        annotations: the JSON, from ``root`` unless absolute.
        split: what the records are told to be part of.
    """

    root: Path
    annotations: Path = Path("annotations.json")
    split: str | None = None

    about = About(
        name="LLaVA conversations",
        publication="arXiv 2304.08485; any file in its form",
        licence="that of the file and of its pictures; not stated in the form",
        protocol="that of the set that is stored in this form",
        uncertain=("Records without a picture are left out: geopix reads no text without an image.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        document = read_json(self.root / self.annotations, report)
        yield from conversation_records(self.about, document, [self.root, self.root / "images"], self.split, report)


def conversation_records(about: About, document: list[Any], folders: Sequence[Path], split: str | None, report: Report) -> Iterator[Record]:
    """One record per picture of a conversation file.

    Args:
        about: the set.
        document: the file's list.
        folders: where pictures may be.
        split: of the records.
        report: takes what was left out.
    """
    usable = []
    for number, entry in enumerate(document):
        if not isinstance(entry, dict) or not isinstance(entry.get("conversations"), list):
            report.leave_out("damaged record", f"record {number}", f"expected an object with conversations, found {str(entry)[:80]}")
        elif not entry.get("image"):
            report.leave_out("record without a picture", f"record {entry.get('id', number)}", "there is no image to talk about")
        else:
            usable.append(entry)
    for name, entries in grouped(usable, lambda entry: str(entry["image"])).items():
        picture = open_picture(locate(name, folders, report), report, name)
        if picture is None:
            continue
        seen: set[tuple[str, str]] = set()
        talks: list[Talk] = []
        for entry in entries:
            for talk in conversation(turns_of(entry["conversations"], name, report), picture, report):
                said = str(talk["turns"]), str(talk["task"])
                if said in seen:
                    report.leave_out("duplicate text", name, f"{talk['turns'][0]['prompt'][:80]!r} stands there with the same answer before")
                    continue
                seen.add(said)
                talks.append(talk)
        if talks:
            yield record_of(about, picture, Path(name).stem, split, talks)


def locate(name: str, folders: Sequence[Path], report: Report) -> Path:
    """A picture in the first of several folders that holds it, as named or by its last part."""
    written = name.replace("\\", "/").lstrip("/")
    found = (find_picture(folder, form, report) for form in dict.fromkeys((written, Path(written).name)) for folder in folders)
    return next((path for path in found if path.is_file()), folders[0] / written)


def turns_of(conversation: Sequence[Any], where: str, report: Report) -> Turns:
    """Question and answer of each turn, without the mark that stands for the image; what is no pair is left out."""
    said = [
        (str(part.get("from", part.get("role", ""))).lower(), str(part.get("value", part.get("content", ""))))
        for part in conversation
        if isinstance(part, dict)
    ]
    turns = []
    for (asker, prompt), (answerer, answer) in zip(said[::2], said[1::2], strict=False):
        prompt = " ".join(prompt.replace("<image>", " ").split())
        if asker not in _PEOPLE or answerer not in _MODELS or not prompt or not answer.strip():
            report.leave_out("damaged record", where, f"expected a question and its answer, found {asker!r} and {answerer!r}: {prompt[:60]!r}")
        elif SEG in prompt:
            report.leave_out("text with [SEG]", where, f"a question cannot hold {SEG}: {prompt[:60]!r}")
        else:
            turns.append((prompt, answer.strip()))
    if len(said) % 2:
        report.note("conversation without a last answer")
    return turns


def conversation(turns: Turns, picture: Picture, report: Report) -> list[Talk]:
    """The dialogues of a conversation: tagged turns each their own, the others together."""
    talks: list[Talk] = []
    for tagged, part in groupby(turns, lambda turn: _TAG.match(turn[0]) is not None):
        members = list(part)
        if any(SEG in answer for _, answer in members):
            report.leave_out("answer with [SEG] but no mask", picture.where, f"{members[0][0][:60]!r}")
        elif tagged:
            talks += [talk for prompt, answer in members if (talk := _tagged(prompt, answer, picture, report)) is not None]
        else:
            family = "caption/detailed" if _CAPTION.search(members[0][0]) else "vqa/open"
            spoken = [(f"[{family.split('/')[0]}] {small(plain(prompt, picture, report))}", plain(answer, picture, report)) for prompt, answer in members]
            talks.append(dialogue(family, spoken))
    return talks


def _tagged(prompt: str, answer: str, picture: Picture, report: Report) -> Talk | None:
    read = _TAG.match(prompt)
    assert read is not None
    tag, asked = read[1].lower(), small(plain(prompt[read.end() :], picture, report))
    if tag in ("refer", "grounding"):
        boxes = boxes_of(answer, picture, report)
        if not boxes:
            report.leave_out("answer without a box", picture.where, f"[{tag}] {asked[:60]!r} is answered by {answer[:60]!r}")
            return None
        if tag == "grounding":
            return dialogue("refer/grounded", [(f"[refer] {asked}", plain(answer, picture, report))])
        return dialogue("refer/box", [(f"[refer] {asked}", f"{'It is' if len(boxes) == 1 else 'They are'} at {listing([box_text(box) for box in boxes])}.")])
    if tag == "identify":
        return dialogue("caption/region", [(f"[caption] {asked}", plain(answer, picture, report))])
    if tag == "caption":
        return dialogue("caption/detailed", [(f"[caption] {asked}", plain(answer, picture, report))])
    if tag != "vqa":
        report.note(f"tag [{tag}] read as a question")
    return question("open", _HINT.sub("", asked), plain(answer, picture, report))


def plain(text: str, picture: Picture, report: Report) -> str:
    """A text without the marks around phrases, its boxes in the form that geopix writes."""

    def written(found: re.Match[str]) -> str:
        box = _straight(found, picture, report)
        return box_text(box) if box is not None else ""

    return re.sub(r"\s+([.,;:?!])", r"\1", " ".join(_BOX.sub(written, re.sub(r"</?p>", " ", text)).split()))


def boxes_of(text: str, picture: Picture, report: Report) -> list[Box]:
    """The boxes of a text in percent of the picture, each upright and within it; those without area are left out."""
    return [box for found in _BOX.finditer(text) if (box := _straight(found, picture, report)) is not None]


def _straight(found: re.Match[str], picture: Picture, report: Report) -> Box | None:
    """The upright box around a box that was turned about its centre, in pixels of the picture. It is the same for either sense of turning."""
    x1, y1, x2, y2 = (int(value) * side / 100 for value, side in zip(found.groups()[:4], (picture.width, picture.height) * 2, strict=True))
    angle = radians(int(found[5] or 0))
    width, height = abs(x2 - x1), abs(y2 - y1)
    across, down = width * abs(cos(angle)) + height * abs(sin(angle)), width * abs(sin(angle)) + height * abs(cos(angle))
    if angle:
        report.note("turned box read as the upright box around it")
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        x1, y1, x2, y2 = x - across / 2, y - down / 2, x + across / 2, y + down / 2
    box = box_of((x1, y1, x2, y2), picture, report)
    if box is None:
        report.note("box without area in the picture")
        return None
    return percent(box, picture)
