"""What is made of the trials of an ablation: what masks fit, where a model is better than another, and the page of tables."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from benchmarks.ablation.diagnose import judge
from benchmarks.ablation.tables import PAGES, ROOT, sections
from benchmarks.ablation.where import buckets, instances
from benchmarks.readme_numbers import written
from geopix.data.scenes import Scenes
from geopix.evaluation.outcome import Outcome, Pair
from tests.commands import geopix


def box(top: int, left: int, height: int = 4, width: int = 4) -> Bool[Tensor, "h w"]:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


ASKED = box(4, 4)
THINGS = [("ship", ASKED), ("ship", box(20, 4)), ("pier", box(4, 20))]


@pytest.mark.parametrize(
    ("drawn", "cause", "iou", "outline", "pixels", "chosen"),
    [
        pytest.param(ASKED, "the asked thing", 1.0, 1.0, 1.0, 1.0, id="right"),
        pytest.param(box(4, 4, 4, 8), "the asked thing", 0.5, 1.0, 1.0, 1.0, id="too large"),
        pytest.param(box(4, 4, 4, 2), "the asked thing", 0.5, 1.0, 0.5, 1.0, id="too small"),
        pytest.param(box(20, 4), "another of its class", 0.0, 0.0, 0.0, 0.0, id="the other ship"),
        pytest.param(box(4, 20), "a thing of another class", 0.0, 0.0, 0.0, 0.0, id="the pier"),
        pytest.param(box(4, 7, 4, 17), "a thing of another class", 4 / 80, 0.0, 4 / 16, 1.0, id="the pier and a corner of the ship"),
        pytest.param(box(28, 28), "no thing", 0.0, 0.0, 0.0, 0.0, id="ground"),
        pytest.param(box(0, 0, 0, 0), "nothing drawn", 0.0, 0.0, 0.0, 0.0, id="empty"),
    ],
)
def test_what_a_mask_fits(drawn: Bool[Tensor, "h w"], cause: str, iou: float, outline: float, pixels: float, chosen: float) -> None:
    found = judge(drawn, ASKED, THINGS)
    assert found.cause == cause
    assert (found.iou, found.outline, found.pixels, found.chosen) == pytest.approx((iou, outline, pixels, chosen))


def asked(number: int, name: str, area: int, image: str = "easy-test-000000") -> Outcome:
    return Outcome(
        key=f"{image}#{number}", image=image, task="segment/single", size=(32, 32), prompts=("p",), expected=("e",), references=("e",), digest="d",
        answers=("[SEG]",), drew=True, targets=1, written=1, pairs=(Pair(1, 2, area, (1, 2), name),),
    )  # fmt: skip


def test_questions_are_sorted_by_size_class_and_crowd() -> None:
    outcomes = [asked(0, "ship", 20), asked(1, "ship", 200), asked(2, "ship", 200), asked(3, "plane", 20)]
    words = replace(outcomes[0], key="words", task="vqa/count")
    found = buckets([*outcomes, words], {"easy-test-000000": Counter(ship=4, plane=1)})
    numbers = {name: sorted(int(key.rpartition("#")[2]) for key in keys) for name, keys in found.items()}
    assert numbers == {
        "all": [0, 1, 2, 3],
        "tiny": [0, 3],
        "small": [1, 2],
        "a class of the rarest quarter": [3],
        "another class": [0, 1, 2],
        "one of 4 or more": [0, 1, 2],
        "alone of its class": [3],
    }


def test_things_of_a_scene_are_counted_by_class() -> None:
    counted = instances({"easy-test-000003": 96})["easy-test-000003"]
    assert counted == Counter(instance.name for instance in Scenes("easy", "test", 96).scene(3).instances)
    assert counted.total() > 0


SWEEPS = {
    command.partition("--results benchmarks/ablation/results/")[2].split()[0]: shlex.split(command.removeprefix("geopix "))
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8"), re.S)
    for command in block.replace("\\\n", " ").splitlines()
    if command.startswith("geopix sweep --") and "--vary" in command
}
"""The sweeps of the page by the folder of their results."""


@pytest.mark.parametrize("name", ["hard", "whole"])  # of either budget the one with the fewest trials; the others share base and budget with one of them
def test_the_committed_results_are_of_the_configurations_of_today(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    said = geopix(*SWEEPS[name], "--dry_run")
    assert said.code == 0, said.err
    assert re.search(r"^seed=0,\S+ +finished ", said.out, re.M), said.out


@pytest.mark.parametrize(("page", "results"), PAGES.items(), ids=[page.stem for page in PAGES])
def test_the_page_holds_the_results(page: Path, results: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = sections(text, results)
    assert found
    assert text == written(text, **found), "run python -m benchmarks.ablation.tables"
