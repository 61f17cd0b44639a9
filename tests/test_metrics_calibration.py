"""Calibration and quality against scikit-learn, scipy and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import brier_score_loss, mean_absolute_error

from geopix.metrics import calibration

UNIT = st.floats(0, 1)


def numbers(scores: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in scores.items()}


@given(st.lists(st.tuples(UNIT, st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_presence_equals_scikit_learn_and_numpy(pairs: list[tuple[float, bool]]) -> None:
    stated, there = np.array([one for one, _ in pairs]), np.array([other for _, other in pairs])
    bins = np.digitize(stated, [edge / 15 for edge in range(1, 15)])
    ece = sum(abs(stated[bins == each].sum() - there[bins == each].sum()) for each in range(15)) / len(pairs)
    expected = {"ece": ece, "brier": brier_score_loss(there, stated, pos_label=True, labels=[False, True]), "count": len(pairs)}
    found = numbers(calibration.presence_scores(calibration.presence_sums(torch.tensor(stated), torch.tensor(there))))
    assert found == pytest.approx(expected, abs=1e-6)


def test_what_is_said_for_sure_is_right_or_wrong() -> None:
    sure = torch.tensor([1.0, 1.0, 0.0, 0.0])
    right = calibration.presence_scores(calibration.presence_sums(sure, torch.tensor([True, True, False, False])))
    wrong = calibration.presence_scores(calibration.presence_sums(sure, torch.tensor([False, False, True, True])))
    assert (right["ece"], right["brier"], wrong["ece"], wrong["brier"]) == (0, 0, 1, 1)
    half = calibration.presence_scores(calibration.presence_sums(torch.full((4,), 0.5), torch.tensor([True, True, False, False])))
    assert (half["ece"], half["brier"]) == (0, 0.25)


def test_a_bin_holds_its_lower_edge() -> None:
    found = calibration.presence_scores(calibration.presence_sums(torch.tensor([0.2, 0.19], dtype=torch.float64), torch.tensor([True, False])))
    assert found["ece"].item() == pytest.approx((0.8 + 0.19) / 2)  # (1 - 0.39) / 2 in one bin


@pytest.mark.parametrize("bad", [[1.5], [-0.1], [math.nan], [0.1, 0.2]])
def test_what_is_no_probability_is_refused(bad: list[float]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"probability from 0 to 1|Type-check"):
        calibration.PresenceCalibration().update(torch.tensor(bad), torch.tensor([True]))


@given(st.lists(st.tuples(UNIT, UNIT), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_quality_equals_scikit_learn_and_scipy(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    found = numbers(calibration.quality_scores(calibration.quality_sums(torch.tensor(x), torch.tensor(y))))
    assert found["mae"] == pytest.approx(mean_absolute_error(y, x), abs=1e-6)
    assert found["bias"] == pytest.approx((x - y).mean(), abs=1e-6)
    if min(x.var(), y.var()) > 1e-4:
        assert found["correlation"] == pytest.approx(pearsonr(x, y).statistic, abs=1e-6)
    elif min(x.var(), y.var()) < 1e-14:
        assert math.isnan(found["correlation"])


def test_what_never_varies_has_no_correlation() -> None:
    alike = calibration.quality_scores(calibration.quality_sums(torch.full((9,), 0.3), torch.linspace(0, 1, 9)))
    assert math.isnan(alike["correlation"])
    assert math.isnan(calibration.quality_scores(calibration.quality_sums(torch.tensor([0.5]), torch.tensor([0.4])))["correlation"])
    metric = calibration.QualityError()
    metric.update(torch.linspace(0, 1, 9), 1 - torch.linspace(0, 1, 9))
    assert numbers(metric.compute())["correlation"] == pytest.approx(-1)
    with pytest.raises(ValueError, match="finite predicted IoU"):
        metric.update(torch.tensor([math.inf]), torch.tensor([0.5]))
