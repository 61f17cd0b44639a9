"""BLEU, ROUGE-L and CIDEr-D equal pycocoevalcap on the same words; protocols of questions; false premises."""

from __future__ import annotations

import math
import random

import pytest
import torch

from geopix.metrics import caption, cider, vqa

VOCABULARY = ["a", "the", "ship", "ships", "Harbour,", "bridge.", "near", "two", "3", "it's", "ground-track", "größe"]


def random_captions(seed: int, num: int, longest: int = 14) -> tuple[list[str], list[list[str]]]:
    """Captions with one to five references; some repeat a reference, some have no words."""
    chooser = random.Random(seed)

    def text() -> str:
        return " ".join(chooser.choices(VOCABULARY, k=chooser.randint(1, longest)))

    references = [[text() for _ in range(chooser.randint(1, 5))] for _ in range(num)]
    return [chooser.choice([text(), text(), chooser.choice(group), chooser.choice(group) + " near", "", "..."]) for group in references], references


def by_package(module: str, name: str, candidates: list[str], references: list[list[str]]) -> float | list[float]:
    """The score that pycocoevalcap gives to the same words."""
    scorer = getattr(pytest.importorskip(f"pycocoevalcap.{module}", reason="pycocoevalcap is not installed"), name)()
    given = {place: [" ".join(caption.words(text))] for place, text in enumerate(candidates)}
    true = {place: [" ".join(caption.words(text)) for text in group] for place, group in enumerate(references)}
    return scorer.compute_score(true, given, *((0,) if name == "Bleu" else ()))[0]


DEGENERATE = [
    (["", ""], [["a ship"], ["two ships"]]),  # nothing written
    (["a"], [["a"]]),  # one caption of one word: no pair of words, and no word that is rare
    (["bridge", "ship"], [["the road"], ["two courts"]]),  # nothing right
    (["a a a a a a a a"], [["a a"]]),  # repeated
    (["a ship near the bridge"] * 3, [["a ship near the bridge"]] * 3),  # all alike
    (["a b c", "a b c d e f g h"], [["a b c d", "a b"], ["a b", "a b c"]]),  # two references equally near, longer than all
]
CORPORA = [random_captions(seed, num) for seed, num in ((0, 30), (1, 30), (2, 2), (3, 1), (4, 60))] + DEGENERATE


@pytest.mark.parametrize("corpus", range(len(CORPORA)))
def test_text_scores_equal_pycocoevalcap(corpus: int) -> None:
    candidates, references = CORPORA[corpus]
    found: dict[str, float] = {}
    for metric in (caption.Bleu(), caption.RougeL(), cider.CiderD()):
        metric.update(candidates, references)
        found |= {name: value.item() for name, value in metric.compute().items()}
    bleu = by_package("bleu.bleu", "Bleu", candidates, references)
    expected = {f"bleu_{num}": value for num, value in enumerate(bleu, start=1)}  # type: ignore[arg-type]
    expected |= {"rouge_l": by_package("rouge.rouge", "Rouge", candidates, references), "cider_d": by_package("cider.cider", "Cider", candidates, references)}
    assert found == pytest.approx(expected | {"count": len(candidates)}, abs=1e-6)


def test_random_captions_are_neither_all_right_nor_all_wrong() -> None:
    metric = caption.Bleu()
    metric.update(*CORPORA[0])
    assert 0.1 < metric.compute()["bleu_4"].item() < 0.9


def test_frequencies_count_captions_and_not_occurrences() -> None:
    frequencies = cider.document_frequencies([["a ship a ship", "a ship"], "a road"])
    assert (frequencies.num, frequencies.groups[("a",)], frequencies.groups[("a", "ship")], frequencies.groups[("road",)]) == (2, 2, 1, 1)
    one = cider.cider_sums("a ship", "a ship", frequencies)
    assert one.tolist() == pytest.approx([1.0, 10 * 2 / 4])  # runs of one and of two words agree, there are none of three and four


def test_captions_without_references_or_partner_are_refused() -> None:
    for metric in (caption.Bleu(), caption.RougeL(), cider.CiderD()):
        with pytest.raises(ValueError, match="found 2 captions and 1 references"):
            metric.update(["a ship", "a road"], ["a ship"])
        with pytest.raises(ValueError, match="at least one reference"):
            metric.update(["a ship"], [["..."]])
        with pytest.raises(ValueError, match="one reference, or group"):
            metric.update("a ship", ["a", "ship"])


def test_named_protocols_count_their_kinds_alone() -> None:
    kinds = ["presence", "presence", "compare", "rural_urban", "count", "count"]
    answers = ["yes", "No.", "no", "Rural", "3", "2"]
    truths = ["yes", "no", "yes", "rural", "3", "1"]
    found = {}
    for name in ("rsvqa_lr", "geochat_lr"):
        protocol = vqa.VQA_PROTOCOLS[name]
        metric = vqa.VQAAccuracy(protocol.kinds, left_out=protocol.left_out, read=protocol.read)
        metric.update(kinds, answers, truths)
        found[name] = {key: value.item() for key, value in metric.compute().items()}
    assert found["rsvqa_lr"]["oa"] == pytest.approx(4 / 6)
    assert found["rsvqa_lr"]["aa"] == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert found["geochat_lr"]["oa"] == pytest.approx(2 / 4)  # "No." is not "no" there
    assert found["geochat_lr"]["aa"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert (found["geochat_lr"]["num_questions"], found["geochat_lr"]["num_left_out"], found["rsvqa_lr"]["num_left_out"]) == (4, 2, 0)
    assert "count" not in found["geochat_lr"]
    with pytest.raises(ValueError, match="left out"):
        vqa.VQAAccuracy(("presence",), left_out=("presence",))


def test_protocols_name_kinds_once() -> None:
    for protocol in vqa.VQA_PROTOCOLS.values():
        assert not set(protocol.kinds) & set(protocol.left_out)
        vqa.VQAAccuracy(protocol.kinds, left_out=protocol.left_out)


@pytest.mark.parametrize(
    ("answer", "drew", "taken"),
    [("yes", False, True), ("Yes, there are.", False, True), (" YES!", False, True), ("no", False, False), ("", False, False), ("yesterday", False, False),
     ("no, yes", False, False), ("There is none.", True, True)],
)  # fmt: skip
def test_an_answer_takes_a_false_premise_for_granted(answer: str, drew: bool, taken: bool) -> None:
    assert vqa.takes_for_granted(answer, drew) is taken


def test_the_rate_of_false_premises_is_their_share() -> None:
    taken = (torch.rand(50, generator=torch.Generator().manual_seed(0)) < 0.3).tolist()
    metric = vqa.Hallucination()
    for part in (taken[:7], [], taken[7:]):
        metric.update(part)
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx({"rate": sum(taken) / 50, "count": 50})
    assert math.isnan(vqa.hallucination_scores(vqa.hallucination_sums([]))["rate"])
