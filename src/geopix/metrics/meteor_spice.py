"""METEOR and SPICE of captions, by the Java programs of pycocoevalcap, where they are there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from geopix.metrics.caption import words

_MODELS = "stanford-corenlp-3.6.0-models.jar"
Texts = dict[str, list[str]]


def meteor_and_spice(candidates: Sequence[str], references: Sequence[str | Sequence[str]]) -> tuple[dict[str, float], dict[str, str]]:
    """METEOR and SPICE of all captions together, in [0, 1], and why either is missing.

    Both see the words of :func:`geopix.metrics.caption.words`, as the other scores do. METEOR is that of the corpus, not the mean over captions; SPICE
    is the mean. SPICE needs the models of Stanford CoreNLP, which pycocoevalcap does not bring; nothing is downloaded here.

    Args:
        candidates: one caption each.
        references: for each caption one text, or several.

    Returns:
        scores by name, ``meteor`` and ``spice``; and for each of the two that is not among them, the reason in a sentence.

    Raises:
        ValueError: when the lengths differ.

    Source: Denkowski and Lavie, "Meteor universal" (2014, https://aclanthology.org/W14-3348); Anderson et al., "SPICE" (https://arxiv.org/abs/1607.08822).
    """
    if isinstance(candidates, str) or len(candidates) != len(references):
        raise ValueError(f"one reference, or group of references, per caption is needed; found {len(candidates)} captions and {len(references)} references.")
    groups = [[true] if isinstance(true, str) else true for true in references]
    given = {str(place): [" ".join(words(text))] for place, text in enumerate(candidates)}
    true = {str(place): [" ".join(words(text)) for text in group] for place, group in enumerate(groups)}
    scores: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name, program in (("meteor", _meteor), ("spice", _spice)):
        reason = _missing(name, len(candidates))
        if reason is None:
            try:
                scores[name] = program(true, given)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                reason = f"the Java program of pycocoevalcap failed: {error}"
        if reason is not None:
            absent[name] = f"{name} was not counted: {reason}"
    return scores, absent


def _missing(name: str, num: int) -> str | None:
    package = find_spec("pycocoevalcap")
    if not num:
        return "there are no captions."
    if package is None or not package.submodule_search_locations:
        return 'pycocoevalcap is not installed; `pip install "geopix[captions]"` brings it.'
    if shutil.which("java") is None:
        return "there is no java on the PATH; install a Java runtime."
    models = Path(package.submodule_search_locations[0]) / "spice" / "lib" / _MODELS
    if name == "spice" and not models.exists():
        return f"{models.name} is missing; `python -m pycocoevalcap.spice.get_stanford_models` fetches it where there is a network."
    return None


def _meteor(true: Texts, given: Texts) -> float:
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    try:
        return float(meteor.compute_score(true, given)[0])
    finally:
        for pipe in (meteor.meteor_p.stdout, meteor.meteor_p.stderr):
            pipe.close()


def _spice(true: Texts, given: Texts) -> float:
    from pycocoevalcap.spice.spice import Spice

    return float(Spice().compute_score(true, given)[0])
