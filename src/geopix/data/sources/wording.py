"""How the texts of public data sets become dialogues: the prompts and answers that all readers share.

Which of several wordings is taken depends on the text and the image's key alone, so the same set always gives the same dialogues.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from geopix.data.records import dialogue
from geopix.data.scenes.phrases import QUESTIONS, listing, plural
from geopix.types import SEG

Name = int | str
Talk = dict[str, Any]
REQUESTS = ("[segment] can you segment {}?", "[segment] segment {}.", "[segment] where {verb} {}?")


def pick(text: str, choices: int) -> int:
    """A choice that depends on nothing but the text."""
    return zlib.crc32(text.encode("utf-8")) % choices


def capital(text: str) -> str:
    """A text that begins a sentence."""
    return text[:1].upper() + text[1:]


def phrase(text: object) -> str:
    """An expression as a sentence may hold it: one line, no full stop, a small letter in front (unless the word is a name in capitals).

    >>> phrase(" The white tank on the left.\\n"), phrase("A airplane "), phrase("A220 near the hangar")
    ('the white tank on the left', 'a airplane', 'A220 near the hangar')
    """
    return small(re.sub(r"[\s.;,]+$", "", " ".join(str(text).split())))


def small(text: str) -> str:
    """A text with a small letter in front, unless its first word is a name in capitals."""
    return text if re.search(r"[A-Z0-9]", text.split(" ")[0][1:]) else text[:1].lower() + text[1:]


def request(text: str, key: str, verb: str = "is") -> str:
    """A prompt that asks for the mask of an expression.

    Args:
        verb: "are" where the expression is a plural.
    """
    return REQUESTS[pick(f"{key}/{text}", len(REQUESTS))].format(text, verb=verb)


def single(text: str, key: str, name: Name) -> Talk:
    """An expression for one object."""
    return dialogue("segment/single", [(request(text, key), f"{capital(text)} is {SEG}.")], [[name]])


def group(text: str, key: str, names: Sequence[Name], verb: str = "are") -> Talk:
    """An expression for all objects of a kind, or for a part of the image: one mask."""
    return dialogue("segment/group", [(request(text, key, verb), f"{capital(text)} {verb} {SEG}.")], [names])


def absent(text: str, key: str) -> Talk:
    """An expression for something that is not there."""
    return dialogue("segment/absent", [(request(text, key), f"{capital(text)} is not in this image.")])


def several(singles: Sequence[tuple[str, Name]], key: str) -> list[Talk]:
    """Questions for two to four of the single references at once, no two of them for the same object."""
    first: dict[Name, str] = {}
    for text, target in singles:
        first.setdefault(target, text)
    distinct = list(first.items())
    dialogues, start = [], 0
    while len(distinct) - start >= 2:
        part = distinct[start : start + 2 + pick(f"{key}/{start}", 3)]
        start += len(part)
        prompt = f"[segment] please segment {listing([text for _, text in part])}."
        answer = capital(f"{listing([f'{text} is {SEG}' for _, text in part])}.")
        dialogues.append(dialogue("segment/multi", [(prompt, answer)], [[target] for target, _ in part]))
    return dialogues


def references(expressions: Iterable[tuple[str, Name]], key: str) -> list[Talk]:
    """Expressions for single objects, each alone and several at once."""
    expressions = list(expressions)
    return [single(text, key, name) for text, name in expressions] + several(expressions, key)


def from_classes(instances: Iterable[dict[str, Any]], key: str) -> list[Talk]:
    """One expression per class: its only instance, or all of them as a group."""
    by_class = defaultdict(list)
    for entry in instances:
        by_class[entry["class"]].append(entry)
    dialogues, singles = [], []
    for name, members in by_class.items():
        if name is None:
            continue
        if len(members) == 1 and not members[0].get("distractor_only", False):
            text, target = f"the {name}", members[0]["id"]
            dialogues.append(single(text, key, target))
            singles.append((text, target))
        else:
            dialogues.append(group(f"all the {plural(name)}", key, [member["id"] for member in members]))
    return dialogues + several(singles, key)


VQA_KINDS: dict[str, str] = {
    "presence": "presence", "object existence": "presence", "count": "count", "quantity": "count", "object quantity": "count", "comp": "compare",
    "compare": "compare", "area_comp": "compare", "color": "colour", "object color": "colour", "area": "area", "rural_urban": "rural_urban",
    "rural or urban": "rural_urban", "ab_position": "position", "re_position": "position", "object position": "position", "object category": "category",
    "object shape": "shape", "object size": "size", "object direction": "direction", "road_ori": "direction", "scene": "scene", "scene type": "scene",
    "image": "scene", "reasoning": "reasoning",
}  # fmt: skip
"""Kinds of question: from the words of the data sets to those of records. Any other is ``open``."""


def question(kind: str, text: str, answer: str) -> Talk:
    """A question with an answer in words, asked as its data set asks it.

    Args:
        kind: in the data set's own words, see ``VQA_KINDS``.
        text: the question.
        answer: the true answer.
    """
    return dialogue(f"vqa/{VQA_KINDS.get(kind.strip().lower(), 'open')}", [(f"[vqa] {small(' '.join(text.split()))}", answer.strip())])


def box_text(box: Sequence[float | int]) -> str:
    """A box in percent of the image as answers write it, within the image and never without area.

    >>> box_text((18.75, 16.7, 50, 50)), box_text((99.9, 3, 154, 3.2))
    ('{<19><17><50><50>}', '{<99><3><100><4>}')
    """
    x1, y1, x2, y2 = (min(max(round(side), 0), 100) for side in box)
    x1, y1 = min(x1, 99), min(y1, 99)
    return f"{{<{x1}><{y1}><{max(x2, x1 + 1)}><{max(y2, y1 + 1)}>}}"


def located(text: str, key: str, boxes: Sequence[Sequence[float | int]]) -> Talk:
    """An expression whose answer is a box, or several, in percent of the image."""
    options = QUESTIONS["refer/box"]
    prompt = options[pick(f"{key}/{text}", len(options))].format(d=text)
    answer = f"{'It is' if len(boxes) == 1 else 'They are'} at {listing([box_text(box) for box in boxes])}."
    return dialogue("refer/box", [(f"[refer] {prompt}", answer)])


def captions(texts: Sequence[str], key: str, *, each: bool, kind: str = "scene") -> list[Talk]:
    """Captions of an image, each of them to be learnt or, where not ``each``, one question that all of them answer.

    Every dialogue keeps all of them, duplicates too, as ``references``.
    """
    options = QUESTIONS[f"caption/{kind}"]
    distinct = list(dict.fromkeys(texts))
    prompts = [options[pick(f"{key}/{text}", len(options))] for text in distinct]
    talks = [dialogue(f"caption/{kind}", [(f"[caption] {prompt}", text)]) for prompt, text in zip(prompts, distinct, strict=True)]
    return [talk | {"references": list(texts)} for talk in (talks if each else talks[:1])]
