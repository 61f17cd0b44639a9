"""Whether a result stands for a trial: what of two configurations can change a number, and which versions made it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from geopix import __version__

Config = dict[str, Any]

_SILENT = ("default_root_dir", "enable_progress_bar", "enable_model_summary", "logger")
"""Options of the trainer that change no number."""


def fingerprint(config: Config) -> str:
    """All of a configuration that can change a number, as text."""
    return json.dumps(_lasting(config), sort_keys=True)


def differences(before: Config, now: Config) -> list[tuple[str, Any, Any]]:
    """Key, earlier and present value of all that two configurations differ in, among what can change a number."""
    old, new = _flat(_lasting(before)), _flat(_lasting(now))
    return [(key, old.get(key, "absent"), new.get(key, "absent")) for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]


def other_versions(results: Iterable[Mapping[str, Any]]) -> str:
    """What to say of results that other versions of geopix or torch than the present ones made; empty where there are none."""
    now = {"geopix": __version__, "torch": version("torch")}
    made: Counter[str] = Counter()
    for result in results:
        versions = result.get("versions", {})
        other = [f"{name} {versions[name]}" for name, present in now.items() if name in versions and _public(versions[name]) != _public(present)]
        made[" and ".join(other)] += bool(other)
    told = ", ".join(f"{count} with {other}" for other, count in made.items() if count)
    present = ", ".join(f"{name} {each}" for name, each in now.items())
    return f"results that are kept were made by other versions than now ({present}): {told}; remove them to run their trials again" if told else ""


def _public(name: str) -> str:
    """A version without what says how it was built: 2.9.1 of 2.9.1+cpu."""
    return name.partition("+")[0]


def _lasting(config: Config) -> Config:
    trainer = {name: value for name, value in config["trainer"].items() if name not in _SILENT}
    return {name: value for name, value in config.items() if name not in ("results", "checkpoint")} | {"trainer": trainer}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {name: each for part, below in value.items() for name, each in _flat(below, f"{key}.{part}" if key else str(part)).items()}
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return {name: each for index, below in enumerate(value) for name, each in _flat(below, f"{key}.{index}").items()}
    return {key: value}
