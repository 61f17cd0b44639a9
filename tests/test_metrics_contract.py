"""What every metric class promises: it is found by itself, its state is a sum or a list, and its scores take any number of sums at once."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import random
from pathlib import Path

import pytest
import torch
from torchmetrics import Metric

import geopix.metrics
from geopix.metrics.duplicates import unique_by_key
from tests.metric_cases import CASES, KINDS

MODULES = [importlib.import_module(f"geopix.metrics.{found.name}") for found in pkgutil.iter_modules(geopix.metrics.__path__)]
CLASSES = {
    name: member
    for module in MODULES
    for name, member in inspect.getmembers(module, inspect.isclass)
    if issubclass(member, Metric) and member.__module__ == module.__name__
}
DOCS = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
every = pytest.mark.parametrize("name", sorted(CLASSES))
additive = pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.scores is not None))
quietly = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")


def fed(name: str, items: list[tuple]) -> Metric:
    metric = CASES[name].make()
    for item in items:
        metric.update(*item)
    return metric


def numbers(scores: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(value.shape == () and value.dtype == torch.float64 for value in scores.values())
    return {name: value.item() for name, value in scores.items()}


def is_count(name: str) -> bool:
    return name.endswith("_num") or name.startswith("num_") or name == "count"


def test_every_class_has_a_case() -> None:
    assert CLASSES.keys() == CASES.keys()


@every
def test_the_class_and_the_page_say_what_it_is(name: str) -> None:
    text = inspect.getdoc(CLASSES[name]) or ""
    assert ">>> metric = " in text
    assert "Source: " in text
    assert f"`{name}`" in DOCS
    in_between = {"pr@0.6", "pr@0.7", "pr@0.8", "bleu_2", "bleu_3"}  # the first and the last of a series are named
    of_a_kind = {f"{kind}{ending}" for kind in KINDS for ending in ("", "_majority", "_num")}
    for key in fed(name, CASES[name].items).compute().keys() - in_between - of_a_kind:
        assert f"``{key}``" in text, key
        assert f"`{key}`" in DOCS, f"docs/metrics.md does not define {key}"


@every
def test_states_are_sums_or_lists(name: str) -> None:
    metric = CASES[name].make()
    for state, value in metric.metric_state.items():
        reduction = metric._reductions[state].__name__
        if isinstance(value, list):
            assert reduction == "dim_zero_cat"
        else:
            assert (state, value.dtype, value.ndim, reduction) == ("sums", torch.float64, 1, "dim_zero_sum")
    assert CASES[name].scores is None or list(metric.metric_state) == ["sums"]


@every
@quietly
def test_without_data_rates_are_nan_and_counts_are_0(name: str) -> None:
    scores = numbers(fed(name, []).compute())
    assert any(is_count(key) for key in scores)
    for key, value in scores.items():
        assert value == 0 if is_count(key) else math.isnan(value), key


@every
def test_reset_forgets(name: str) -> None:
    first, *rest = CASES[name].items
    metric = fed(name, rest)
    metric.reset()
    metric.update(*first)
    assert numbers(metric.compute()) == pytest.approx(numbers(fed(name, [first]).compute()), nan_ok=True)


@every
def test_the_order_of_things_does_not_matter(name: str) -> None:
    items = CASES[name].items
    shuffled = random.Random(0).sample(items, len(items))
    assert numbers(fed(name, shuffled).compute()) == pytest.approx(numbers(fed(name, items).compute()), nan_ok=True, abs=1e-12)


@additive
def test_sums_add_up_and_scores_are_a_function_of_them(name: str) -> None:
    case, items = CASES[name], CASES[name].items
    parts = [fed(name, [item]).sums for item in items]
    assert case.scores is not None
    whole = fed(name, items)
    torch.testing.assert_close(torch.stack(parts).sum(0), whole.sums)
    assert numbers(case.scores(torch.stack(parts).sum(0))) == pytest.approx(numbers(whole.compute()), nan_ok=True)


@additive
def test_scores_take_many_sums_at_once(name: str) -> None:
    case = CASES[name]
    assert case.scores is not None
    parts = torch.stack([fed(name, [item]).sums for item in case.items])
    drawn = torch.randint(0, 3, (2, 4, len(parts)), generator=torch.Generator().manual_seed(0)).double()
    drawn[1, 3] = 0  # a resample without anything
    resampled = case.scores(drawn @ parts)
    for i in range(2):
        for j in range(4):
            alone = case.scores(drawn[i, j] @ parts)
            assert {key: value[i, j].item() for key, value in resampled.items()} == pytest.approx(numbers(alone), nan_ok=True, abs=1e-12)
    assert all(value.shape == (2, 4) for value in resampled.values())


def test_the_first_of_each_key_is_kept() -> None:
    assert unique_by_key([]) == []
    assert unique_by_key([("a", 1), ("a", 2), ("a", 1), ("b", 1)]) == [0, 1, 3]
