"""Masks of another program, scored by the same rules; a set that is not whole is refused."""

import json
from pathlib import Path

import pytest
import torch

from geopix.data.source import collate
from geopix.evaluation.foreign import score_predictions, write_questions
from geopix.evaluation.groups import tabulate
from geopix.evaluation.numbers import numbers
from geopix.evaluation.outcome import questions
from geopix.evaluation.protocols import PROTOCOLS
from geopix.rle import encode_rle
from tests import toys

RULE = PROTOCOLS["generate"]
SOURCE = toys.Toys(3)


def perfect() -> list[dict]:
    lines = []
    for index in range(3):
        for asked in questions(collate([SOURCE.sample(index, truth=True)])):
            lines.append({"key": asked.key, "answers": list(asked.expected), "masks": [encode_rle(mask) for mask in asked.truth]})
    return lines


def written(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_truth_handed_in_is_worth_one(tmp_path: Path) -> None:
    outcomes = score_predictions(written(tmp_path / "p.jsonl", perfect()), SOURCE, RULE)
    found = numbers(tabulate(outcomes, RULE), RULE)
    for name in ("single/giou", "multi/giou", "followup/giou", "absent/n_acc", "absent/t_acc", "vqa/presence", "caption/rouge_l", "control/class_union_giou"):
        assert found[name] == 1.0, name
    assert [outcome.position for outcome in outcomes] == [index for index in range(3) for _ in toys.KINDS]


def test_a_program_without_words_is_scored_on_masks_alone(tmp_path: Path) -> None:
    lines = [{"key": line["key"], "masks": line["masks"]} for line in perfect()]
    kept = [line for line, kind in zip(lines, toys.KINDS * 3, strict=True) if kind.startswith("segment/")]
    source = toys.Toys(3, kinds=tuple(kind for kind in toys.KINDS if kind.startswith("segment/")))
    for number, line in enumerate(kept):
        line["key"] = f"toy-{number // 4}#{number % 4}"
    found = numbers(tabulate(score_predictions(written(tmp_path / "p.jsonl", kept), source, RULE, ["segment"]), RULE), RULE)
    assert (found["single/giou"], found["multi/giou"], found["absent/n_acc"]) == (1.0, 1.0, 1.0)
    assert not any(name.startswith("answers/") for name in found), "who writes no words writes no [SEG] either, which is no fault"


def test_masks_of_its_own_size_are_compared_pixel_by_pixel(tmp_path: Path) -> None:
    lines = perfect()
    moved = torch.zeros(toys.SIZE, toys.SIZE, dtype=torch.bool)
    lines[0]["masks"] = [encode_rle(moved)]
    found = numbers(tabulate(score_predictions(written(tmp_path / "p.jsonl", lines), SOURCE, RULE), RULE), RULE)
    assert found["single/giou"] == pytest.approx(2 / 3)


def test_a_line_of_samples_is_a_prediction_too(tmp_path: Path) -> None:
    first = score_predictions(written(tmp_path / "p.jsonl", perfect()), SOURCE, RULE)
    again = score_predictions(written(tmp_path / "samples.jsonl", [outcome.as_json() for outcome in first]), SOURCE, RULE)
    assert again == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-2], "2 of 18 questions have no line"),
        (lambda lines: [*lines, lines[0]], "answers 1 questions twice"),
        (lambda lines: [*lines, {"key": "elsewhere#0", "answers": [""]}], "1 lines have a key that no question has, such as .'elsewhere#0'."),
        (lambda lines: [{**lines[0], "masks": [encode_rle(torch.ones(8, 8, dtype=torch.bool))]}, *lines[1:]], r"a mask of \[8, 8\] for an image of \[64, 64\]"),
        (lambda lines: [{**lines[0], "masks": [{"size": [64, 64], "counts": "07"}]}, *lines[1:]], "toy-0#0: an RLE states the size"),
        (lambda lines: [{**lines[0], "answers": ["a", "b"]}, *lines[1:]], "2 answers for 1 questions"),
        (lambda lines: [{"answers": ["a"]}, *lines[1:]], "line 1 has no key"),
        (lambda lines: [*lines[:4], {"key": lines[4]["key"]}, *lines[5:]], "toy-0#4: 0 answers for 1 questions"),
        (lambda lines: [], "is empty"),
        (lambda lines: [{**lines[0], "answers": [None]}, *lines[1:]], r"toy-0#0: answers must be a list of texts, one per turn; found .\[None\]."),
        (lambda lines: [{**lines[0], "answers": "x"}, *lines[1:]], "toy-0#0: answers must be a list of texts, one per turn; found 'x'"),
        (lambda lines: [{"key": "toy-0#0", "answer": 5}, *lines[1:]], "toy-0#0: answer must be a text; found '5'"),
        (lambda lines: [{**lines[0], "masks": 5}, *lines[1:]], "toy-0#0: masks must be a list of compressed COCO RLE; found '5'"),
        (lambda lines: [{**lines[0], "masks": [{**lines[0]["masks"][0], "size": 64}]}, *lines[1:]], "toy-0#0: a mask of 64 for an image of"),
    ],
)
def test_a_set_that_is_not_whole_is_refused(tmp_path: Path, change, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        score_predictions(written(tmp_path / "p.jsonl", change(perfect())), SOURCE, RULE)


def test_lines_for_questions_of_another_family_are_passed_over(tmp_path: Path) -> None:
    outcomes = score_predictions(written(tmp_path / "p.jsonl", perfect()), SOURCE, RULE, ["vqa"])
    assert [outcome.family for outcome in outcomes] == ["vqa"] * 3
    with pytest.raises(ValueError, match="1 lines have a key that no question has"):
        score_predictions(written(tmp_path / "p.jsonl", [*perfect(), {"key": "elsewhere#0"}]), SOURCE, RULE, ["vqa"])


def test_a_missing_seg_counts_as_in_a_test_where_the_program_writes_it_elsewhere(tmp_path: Path) -> None:
    lines = perfect()
    lines[0] |= {"answers": ["I see no ship."], "masks": []}
    found = numbers(tabulate(score_predictions(written(tmp_path / "p.jsonl", lines), SOURCE, RULE), RULE), RULE)
    assert found["answers/no_seg"] == pytest.approx(1 / 9)


def test_what_is_no_file_of_lines_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        score_predictions(tmp_path / "none.jsonl", SOURCE, RULE)
    (tmp_path / "page.html").write_text("<html>\n")
    with pytest.raises(ValueError, match="line 1 is no JSON"):
        score_predictions(tmp_path / "page.html", SOURCE, RULE)
    (tmp_path / "latin.jsonl").write_bytes(b'{"key": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=r"latin.jsonl is no text in UTF-8 .* at byte 12"):
        score_predictions(tmp_path / "latin.jsonl", SOURCE, RULE)


def test_questions_are_written_without_any_truth(tmp_path: Path) -> None:
    assert write_questions(tmp_path / "q.jsonl", SOURCE) == 18
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines[:2]] == ["toy-0#0", "toy-0#1"]
    assert lines[0].keys() == {"key", "image", "task", "size", "prompts"}
    assert write_questions(tmp_path / "q.jsonl", SOURCE, ["vqa"]) == 3
