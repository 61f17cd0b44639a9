"""Answers and masks of any program, scored by the same rules: a file of predictions against a benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geopix.data.source import Source, collate
from geopix.evaluation.outcome import Outcome, Question, judge, questions
from geopix.evaluation.protocols import Protocol
from geopix.rle import decode_rle
from geopix.types import RLE, SEG

_SHOWN = 8


def benchmark_questions(source: Source, families: Sequence[str] = ()) -> Iterator[tuple[int, Question]]:
    """Every question of a benchmark, with the position of its image.

    Args:
        families: ask these alone, such as ``segment``; all by default.
    """
    for position in range(source.count or 0):
        sample = source.sample(position, truth=True)
        if sample.dialogues:
            yield from ((position, each) for each in questions(collate([sample])) if _of(each, families))


def _of(question: Question, families: Sequence[str]) -> bool:
    return not families or question.task.partition("/")[0] in families


def write_questions(path: Path, source: Source, families: Sequence[str] = ()) -> int:
    """What a benchmark asks, one question per line: key, image, task, size and prompts, without any truth.

    Returns:
        How many.
    """
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for _, asked in benchmark_questions(source, families):
            said = {"key": asked.key, "image": asked.image, "task": asked.task, "size": asked.size, "prompts": asked.prompts}
            file.write(json.dumps(said) + "\n")
            number += 1
    return number


def score_predictions(path: Path, source: Source, protocol: Protocol, families: Sequence[str] = ()) -> list[Outcome]:
    """Judge a file of predictions. Each line has ``key``, ``answers`` (one text per turn) or ``answer``, and ``masks`` (COCO RLE at the image's own size).

    Nothing is scored in part: every question must have its line, and each line its question. Lines for questions of other families are passed over.

    Raises:
        ValueError: naming keys that are missing, unknown or given twice, lines that cannot be read, and masks of another size than their image.
    """
    given = _read(path)
    everything = {question.key: (position, question) for position, question in benchmark_questions(source)}
    asked = {key: each for key, each in everything.items() if _of(each[1], families)}
    if not asked:
        raise ValueError(f"{source.title} asks nothing{f' of {families}' if families else ''}; there is nothing to score.")
    problems = _keys(given, asked, everything) + [f"{key}: {fault}" for key, line in given.items() if (fault := _malformed(line))]
    # a program that never writes it has no words for its masks
    writes = not problems and any(SEG in answer for line in given.values() for answer in _answers(line))
    outcomes = []
    for key, (position, question) in asked.items() if not problems else ():
        line = given[key]
        masks = line.get("masks", line.get("drawn")) or []
        wrong = [f"{key}: {what}" for mask in masks if (what := _misfit(mask, question.size))]
        if wrong:
            problems += wrong[:1]
            continue
        answers = _answers(line)
        if not answers and question.task.startswith("segment/"):
            answers = [""] * len(question.prompts)
        if len(answers) != len(question.prompts):
            problems.append(f"{key}: {len(answers)} answers for {len(question.prompts)} questions")
            continue
        outcome = judge(question, answers, _logits(masks, question), protocol, writes=writes, keep=True)
        outcomes.append(replace(outcome, position=position))
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"{path} is no full set of predictions for {source.title}, so nothing is scored:\n  " + "\n  ".join(problems[:_SHOWN]) + more + "\n"
            "geopix score --questions FILE writes every question with its key and the size of its image."
        )
    return outcomes


def _read(path: Path) -> dict[str, Any]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] if path.is_file() else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); expected one JSON object per line.") from error
    if not lines:
        raise ValueError(f"{path} {'is empty' if path.is_file() else 'does not exist'}; expected one JSON object per line, with key, answers and masks.")
    given: dict[str, Any] = {}
    twice = []
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is no JSON ({error.msg}); expected an object with key, answers and masks.") from error
        if not isinstance(said, dict) or not isinstance(said.get("key"), str):
            raise ValueError(
                f"{path}, line {number} has no key; expected an object with key, answers and masks. geopix score --questions FILE writes all keys."
            )
        twice += [said["key"]] if said["key"] in given else []
        given[said["key"]] = said
    if twice:
        raise ValueError(f"{path} answers {len(set(twice))} questions twice, such as {sorted(set(twice))[:_SHOWN]}; keep one line of each.")
    return given


def _answers(line: Mapping[str, Any]) -> list[str]:
    """What a line says, turn by turn; empty where it says nothing."""
    return list(line.get("answers") or ([line["answer"]] if "answer" in line else []))


def _malformed(line: Mapping[str, Any]) -> str:
    """What keeps a line from being read; empty where nothing does."""
    answers, masks = line.get("answers") or [], line.get("masks", line.get("drawn")) or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        return f"answers must be a list of texts, one per turn; found {str(answers)[:60]!r}"
    if not isinstance(line.get("answer", ""), str):
        return f"answer must be a text; found {str(line['answer'])[:60]!r}"
    return "" if isinstance(masks, list) else f"masks must be a list of compressed COCO RLE; found {str(masks)[:60]!r}"


def _keys(given: Mapping[str, Any], asked: Mapping[str, Any], everything: Mapping[str, Any]) -> list[str]:
    missing, unknown = [key for key in asked if key not in given], [key for key in given if key not in everything]
    said = [f"{len(missing)} of {len(asked)} questions have no line, such as {missing[:_SHOWN]}"] if missing else []
    return said + ([f"{len(unknown)} lines have a key that no question has, such as {unknown[:_SHOWN]}"] if unknown else [])


def _misfit(mask: object, size: Sequence[int]) -> str:
    """What keeps this from being a compressed RLE of the image's size; empty where nothing does."""
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
        return f"a mask that is no compressed COCO RLE: {str(mask)[:60]}"
    if mask.get("size") != list(size):
        return f"a mask of {mask.get('size')} for an image of {list(size)} (rows, columns)"
    try:
        decode_rle({"size": list(size), "counts": mask["counts"]})
    except ValueError as error:
        return str(error)
    return ""


def _logits(masks: Sequence[RLE], question: Question) -> Float[Tensor, "m h w"]:
    """Above 0 inside and below outside, half a step each, so that resampling keeps outlines in place."""
    return torch.stack([decode_rle(mask) for mask in masks]).float() - 0.5 if masks else torch.zeros(0, *question.size)
