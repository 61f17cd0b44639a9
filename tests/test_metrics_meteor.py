"""METEOR by the Java program of pycocoevalcap, and why it or SPICE is missing. Starting that program takes most of the time."""

from __future__ import annotations

import shutil

import pytest

from geopix.metrics.meteor_spice import meteor_and_spice

CANDIDATES = ["Two ships near the long bridge.", "a road beside three tennis courts", ""]
REFERENCES = [["two ships close to a long bridge", "ships"], "Three courts beside a road!", ["a runway"]]


@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs a Java runtime")
def test_meteor_is_what_the_program_prints() -> None:
    pytest.importorskip("pycocoevalcap.meteor.meteor", reason="pycocoevalcap is not installed")
    scores, absent = meteor_and_spice(CANDIDATES, REFERENCES)
    assert scores.keys() | absent.keys() == {"meteor", "spice"}
    assert not scores.keys() & absent.keys()
    assert scores["meteor"] == pytest.approx(0.3753914667, abs=1e-6)  # pycocoevalcap 1.2 on these words; 0.4328, 0.4119 and 0 one by one


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap.meteor.meteor", reason="pycocoevalcap is not installed")
    monkeypatch.setenv("PATH", "")
    scores, absent = meteor_and_spice(CANDIDATES, REFERENCES)
    assert scores == {}
    assert absent.keys() == {"meteor", "spice"}
    assert all(f"{name} was not counted: there is no java" in reason for name, reason in absent.items())
    monkeypatch.setattr("geopix.metrics.meteor_spice.find_spec", lambda name: None)
    assert "geopix[captions]" in meteor_and_spice(CANDIDATES, REFERENCES)[1]["meteor"]
    assert "no captions" in meteor_and_spice([], [])[1]["spice"]


def test_the_models_of_spice_are_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    spice = pytest.importorskip("pycocoevalcap.spice.get_stanford_models", reason="pycocoevalcap is not installed")
    monkeypatch.setattr("geopix.metrics.meteor_spice.shutil.which", lambda name: "/usr/bin/java")
    monkeypatch.setattr("geopix.metrics.meteor_spice._meteor", lambda true, given: 0.5)
    monkeypatch.setattr("geopix.metrics.meteor_spice._MODELS", "not-there.jar")
    monkeypatch.setattr(spice, "urlretrieve", lambda *arguments: pytest.fail("a download was begun"))
    scores, absent = meteor_and_spice(CANDIDATES, REFERENCES)
    assert scores == {"meteor": 0.5}
    assert "get_stanford_models" in absent["spice"]


def test_a_program_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(true: dict[str, list[str]], given: dict[str, list[str]]) -> float:
        raise ValueError("could not convert string to float: ''")

    monkeypatch.setattr("geopix.metrics.meteor_spice._missing", lambda name, num: None)
    for program in ("_meteor", "_spice"):
        monkeypatch.setattr(f"geopix.metrics.meteor_spice.{program}", fails)
    scores, absent = meteor_and_spice(CANDIDATES, REFERENCES)
    assert scores == {}
    assert "failed: could not convert" in absent["meteor"]


def test_captions_and_references_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="2 captions and 1 references"):
        meteor_and_spice(["a", "b"], ["a"])
