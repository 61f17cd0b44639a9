"""The same answers by different rules, against counts made by hand."""

import json
from dataclasses import replace

import pytest
import torch

from geopix.data.source import collate
from geopix.evaluation.groups import tabulate
from geopix.evaluation.numbers import numbers
from geopix.evaluation.outcome import Question, from_json, judge, questions
from geopix.evaluation.protocols import PROTOCOLS
from geopix.metrics.vqa import VQA_PROTOCOLS
from tests import toys


def question(*masks: torch.Tensor, task: str = "segment/single", size: tuple[int, int] = (8, 16)) -> Question:
    return Question("a#0", "a", task, size, ("the ship?",), ("It is [SEG].",), ("It is [SEG].",), masks, ("ship",) * len(masks))


def mask(rows: slice, columns: slice, size: tuple[int, int] = (8, 16)) -> torch.Tensor:
    drawn = torch.zeros(size, dtype=torch.bool)
    drawn[rows, columns] = True
    return drawn


def logits(*masks: torch.Tensor) -> torch.Tensor:
    return torch.stack(masks).float() - 0.5 if masks else torch.zeros(0, 8, 16)


def scored(asked: Question, drawn: torch.Tensor, protocol: str) -> dict[str, float]:
    rule = PROTOCOLS[protocol]  # type: ignore[index]
    outcome = judge(asked, ("It is [SEG].",), drawn, rule)
    return numbers(tabulate([outcome], rule), rule)


def test_an_empty_mask_of_an_empty_truth_is_worth_one_here_and_nothing_by_rmsin() -> None:
    empty = mask(slice(0, 0), slice(0, 0))
    assert scored(question(empty), logits(empty), "generate")["single/giou"] == 1.0
    assert scored(question(empty), logits(empty), "peers/rmsin")["single/miou"] == 0.0


def test_an_iou_of_exactly_a_half_is_above_the_threshold_by_rmsin_alone() -> None:
    true, drawn = mask(slice(0, 4), slice(0, 8)), mask(slice(0, 4), slice(0, 4))
    assert scored(question(true), logits(drawn), "generate")["single/pr@0.5"] == 0.0
    by_rmsin = scored(question(true), logits(drawn), "peers/rmsin")
    assert by_rmsin["single/miou"] == pytest.approx(0.5, abs=0.01)
    assert by_rmsin.keys() >= {"single/miou", "single/oiou"}
    assert "single/giou" not in by_rmsin


def test_masks_are_compared_in_the_square_of_the_protocol() -> None:
    true = mask(slice(0, 4), slice(0, 8))
    outcome = {name: judge(question(true), ("[SEG]",), logits(true), PROTOCOLS[name]).pairs[0] for name in ("generate", "peers/rmsin", "peers/segearth")}
    assert outcome["generate"].union == 32
    assert outcome["peers/rmsin"].union == pytest.approx(32 * 30 * 60, rel=0.02), "480 x 480, stretched"
    assert outcome["peers/segearth"].union == pytest.approx(32 * 64 * 64, rel=0.02), "512 x 1024, its proportions kept"
    assert {pair.area for pair in outcome.values()} == {32}, "sizes are told in the image's own pixels"


def test_who_gets_the_true_answer_gets_no_score_for_words() -> None:
    absent = question(task="segment/absent")
    free, forced = (scored(absent, logits(), name) for name in ("generate", "teacher_forced"))
    assert free["absent/n_acc"] == 1.0
    assert not any(name.startswith(("absent", "answers", "vqa", "caption", "box", "false_premise")) for name in forced)


def test_geochats_rule_leaves_out_questions_for_numbers_and_forgives_no_full_stop() -> None:
    asked = [
        ("vqa/presence", "yes", "Yes"),
        ("vqa/presence", "yes", "Yes."),
        ("vqa/count", "3", "3"),
        ("vqa/area", "5", "4"),
        ("vqa/rural_urban", "rural", "urban"),
    ]
    found = {}
    for name in ("generate", "peers/geochat"):
        rule = PROTOCOLS[name]  # type: ignore[index]
        outcomes = [
            judge(replace(question(task=task), key=f"a#{row}", expected=(true,)), (given,), logits(), rule) for row, (task, true, given) in enumerate(asked)
        ]
        found[name] = numbers(tabulate(outcomes, rule), rule)
    assert found["generate"]["vqa/oa"] == pytest.approx(3 / 5)
    assert found["generate"]["vqa/aa"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    theirs = found["peers/geochat"]
    assert (theirs["vqa/oa"], theirs["vqa/presence"], theirs["vqa/rural_urban"], theirs["vqa/num_left_out"]) == (pytest.approx(1 / 3), 0.5, 0.0, 2)
    assert not {"vqa/count", "vqa/area"} & theirs.keys()
    assert not PROTOCOLS["generate"].counts_as(PROTOCOLS["peers/geochat"])
    for name, published in (("geochat_lr", VQA_PROTOCOLS["geochat_lr"]), ("geochat_hr", VQA_PROTOCOLS["geochat_hr"])):
        assert set(published.left_out) <= set(PROTOCOLS["peers/geochat"].left_out), name
        assert published.read is PROTOCOLS["peers/geochat"].read


def test_several_masks_in_the_wrong_order_are_matched() -> None:
    one, other = mask(slice(0, 4), slice(0, 8)), mask(slice(4, 8), slice(8, 16))
    found = scored(replace(question(one, other, task="segment/multi"), names=("ship", "plane")), logits(other, one), "generate")
    assert (found["multi/giou"], found["multi_matched/giou"]) == (0.0, 1.0)
    fewer = scored(question(one, other, task="segment/multi"), logits(one), "generate")
    assert (fewer["multi/giou"], fewer["multi_matched/giou"]) == (0.5, 0.5)
    assert fewer["answers/fewer"] == 1.0


def test_masks_are_counted_by_class_and_size() -> None:
    side = (16, 16)
    small, large = mask(slice(0, 2), slice(0, 2), side), mask(slice(0, 16), slice(0, 16), side)
    found = scored(replace(question(small, large, task="segment/multi", size=side), names=("ship", None)), logits(small, small), "generate")
    assert found["class/ship/giou"] == 1.0
    assert found["class/ship/count"] == 1.0
    assert (found["size/tiny/giou"], found["size/small/giou"]) == (1.0, pytest.approx(4 / 256))
    assert sum(value for name, value in found.items() if name.startswith("size/") and name.endswith("count")) == 2


def test_what_is_not_there_and_taken_for_granted_is_told() -> None:
    rule = PROTOCOLS["generate"]
    asked = [replace(question(task="segment/absent"), key=f"a#{number}", image=f"{number}") for number in range(4)]
    drawn = [logits(mask(slice(0, 2), slice(0, 2)))] + [logits()] * 3
    outcomes = [judge(each, ("no",), what, rule) for each, what in zip(asked, drawn, strict=True)]
    found = numbers(tabulate(outcomes, rule), rule)
    assert (found["absent/n_acc"], found["false_premise/rate"]) == (0.75, 0.25)


def test_a_mask_that_nobody_asked_for_is_of_nothing() -> None:
    rule, true = PROTOCOLS["generate"], mask(slice(0, 4), slice(0, 8))
    outcome = judge(question(true), ("[SEG] and [SEG]",), logits(true, true), rule, presence=[1.0, 0.0])
    assert numbers(tabulate([outcome], rule), rule)["presence/brier"] == 0.0
    absent = judge(question(task="segment/absent"), ("[SEG]",), logits(true), rule, presence=[1.0])
    assert numbers(tabulate([absent], rule), rule)["presence/brier"] == 1.0


def test_an_outcome_survives_its_line() -> None:
    batch = collate([toys.sample(0, *toys.KINDS)])
    for asked in questions(batch):
        drawn = torch.stack(asked.truth).float() - 0.5 if asked.truth else torch.zeros(0, *asked.size)
        outcome = judge(asked, asked.expected, drawn, PROTOCOLS["generate"], quality=[0.5] * len(drawn), presence=[0.9] * len(drawn), keep=True)
        assert from_json(json.loads(json.dumps(outcome.as_json()))) == outcome


def test_another_truth_is_another_question() -> None:
    one = question(mask(slice(0, 4), slice(0, 8)))
    assert one.digest == question(mask(slice(0, 4), slice(0, 8))).digest
    assert len({one.digest, question(mask(slice(0, 4), slice(0, 9))).digest, replace(one, prompts=("the boat?",)).digest}) == 3


def test_protocols_that_differ_only_in_what_the_memory_is_told_count_alike() -> None:
    alike = {(one, two) for one in PROTOCOLS for two in PROTOCOLS if one < two and PROTOCOLS[one].counts_as(PROTOCOLS[two])}
    told = ("generate", "generate_misnamed", "generate_named")
    assert alike == {(told[0], told[1]), (told[0], told[2]), (told[1], told[2]), ("peers/lisa", "teacher_forced")}
