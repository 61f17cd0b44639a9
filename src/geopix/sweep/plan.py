"""What a sweep consists of: options that take several values, and a trial for each combination of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import yaml

OWNED = {
    "trainer.default_root_dir": "each trial has a folder of its own below --output",
    "results.folder": "each trial's test is kept in its own folder",
    "ckpt_path": "a trial resumes by itself; --init_from starts all of them from the weights of a checkpoint",
    "print_config": "--dry_run shows the trials, and geopix config what one of them would run",
}
"""Options of ``geopix fit`` that the sweep sets itself."""

_FILES = (".yaml", ".yml", ".json")
_LONGEST = 150


@dataclass(frozen=True)
class Axis:
    """An option of ``geopix fit`` with the values that it takes, as texts of a command line."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One combination of values, by option, and the name of its folder."""

    name: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Args:
        configs: files of the configuration that all trials share.
        options: further words of every trial's command.
        axes: what varies; the last one fastest.
    """

    configs: tuple[str, ...]
    options: tuple[str, ...]
    axes: tuple[Axis, ...]

    @property
    def trials(self) -> list[Trial]:
        """All combinations. A name depends on the trial's own values alone, unless two would be alike."""
        keys = [axis.key for axis in self.axes]
        texts = [_texts(axis.values) for axis in self.axes]
        found = []
        for values in product(*(axis.values for axis in self.axes)):
            parts = [f"{label}={text[value]}" for label, text, value in zip(labels(keys), texts, values, strict=True)]
            found.append(Trial(_cut(",".join(parts)), dict(zip(keys, values, strict=True))))
        return found

    def words(self, trial: Trial | None = None) -> list[str]:
        """The options of a trial's command, without its folder; those of the base without a trial.

        The files come first, then what all trials share, then the axes, then what all share of a part that an axis exchanges.
        """
        groups = list(grouped(self.options))
        below = [words for key, words in groups if any(key.startswith(f"{axis.key}.") for axis in self.axes)]
        shared = [words for _, words in groups if words not in below]
        values = {key: value for key, value in trial.values.items() if key != "config"} if trial else {}
        configs = self.files(trial)
        varied = [[f"--{key}={value}"] if value.startswith("-") else [f"--{key}", value] for key, value in values.items()]
        said = [*(["--config", config] for config in configs), *shared, *varied, *(below if trial else [])]
        return [word for words in said for word in words]

    def files(self, trial: Trial | None = None) -> list[str]:
        """The files of a trial's configuration."""
        return [*self.configs, *(value for key, value in (trial.values.items() if trial else ()) if key == "config")]


def planned(configs: Sequence[str], options: Sequence[str], axes: Sequence[Sequence[str]], own: Sequence[str]) -> Plan:
    """The sweep that a command asks for, checked as far as that goes without its parts.

    Args:
        axes: for each, the option and its values.
        own: options of the sweep itself, to recognise one that is misspelt.

    Raises:
        ValueError: for an axis or a value that is there twice, a file that does not exist, an option that is the sweep's own to set.
    """
    if not axes:
        raise ValueError("nothing varies\n  expected  --vary OPTION VALUE VALUE ..., such as --vary model.net.memory configs/memory/low_rank.yaml null")
    found = tuple(Axis(words[0].lstrip("-"), tuple(words[1:])) for words in axes)
    for path in configs:
        _present("--config", path)
    for axis in found:
        _check_axis(axis)
    twice = [key for key, count in Counter(axis.key for axis in found).items() if count > 1]
    if twice:
        raise ValueError(f"the axis {twice[0]} is there twice\n  next      give all its values behind one --vary {twice[0]}")
    for key, words in grouped(options):
        near = get_close_matches(key, own, 1, 0.75) if "." not in key else []
        if key in OWNED or near:
            raise ValueError(f"--{key} is no option of a sweep's trials\n  next      {OWNED[key] if key in OWNED else f'did you mean --{near[0]}'}")
        if key in {axis.key for axis in found}:
            raise ValueError(f"--{key} is given to every trial and varied as well\n  found     {' '.join(words)}\n  next      drop one of the two")
    return Plan(tuple(configs), tuple(options), found)


def grouped(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The words of a command option by option, with the option's name.

    Raises:
        ValueError: for a word that belongs to no option.
    """
    group: list[str] = []
    for word in words:
        if word.startswith("--"):
            if group:
                yield group[0].lstrip("-").partition("=")[0], group
            group = [word]
        elif group:
            group.append(word)
        else:
            raise ValueError(f"{word!r} belongs to no option\n  next      a configuration is given as --config {word}" if _is_file(word) else f"{word!r}?")
    if group:
        yield group[0].lstrip("-").partition("=")[0], group


def labels(keys: Sequence[str]) -> list[str]:
    """Short names of options: as much of the end as tells them apart.

    Example:
        >>> labels(["model.net.memory", "seed_everything", "data.train.init_args.count", "data.val.init_args.count"])
        ['memory', 'seed', 'train.count', 'val.count']
    """
    parts = [[part for part in key.split(".") if part != "init_args"] for key in keys]
    found = []
    for index, each in enumerate(parts):
        others = [other for at, other in enumerate(parts) if at != index]
        size = next((size for size in range(1, len(each)) if all(other[-size:] != each[-size:] for other in others)), len(each))
        found.append(".".join(each[-size:]))
    return ["seed" if label == "seed_everything" and "seed" not in found else label for label in found]


def short(value: str) -> str:
    """A value as it is shown: a file or a class by its name alone.

    Example:
        >>> short("configs/memory/low_rank.yaml"), short("geopix.connectors.mlp.MLPConnector"), short("1.5")
        ('low_rank', 'MLPConnector', '1.5')
    """
    if _is_file(value):
        return Path(value).stem
    return value.rpartition(".")[2] if re.fullmatch(r"([a-z_]\w*\.)+[A-Za-z_]\w*", value) else value


def is_seed(key: str) -> bool:
    """Whether an axis repeats a trial instead of changing it."""
    return key.rpartition(".")[2] in ("seed_everything", "seed")


def _check_axis(axis: Axis) -> None:
    if axis.key in OWNED:
        raise ValueError(f"{axis.key} cannot be varied\n  next      {OWNED[axis.key]}")
    if not axis.values:
        raise ValueError(f"the axis {axis.key} has no values\n  expected  --vary {axis.key} VALUE VALUE ...")
    for value in axis.values:
        if _is_file(value):
            _present(axis.key, value)
    seen: dict[str, str] = {}
    for value in axis.values:
        meaning = str(Path(value).resolve()) if _is_file(value) else _meaning(value)
        if meaning in seen:
            again = f"as {seen[meaning]} and as {value}" if seen[meaning] != value else value
            raise ValueError(f"the axis {axis.key} has a value twice\n  found     {again}\n  next      drop one; to repeat a trial, vary seed_everything")
        seen[meaning] = value


def _present(key: str, name: str) -> None:
    path = Path(name)
    if path.is_file():
        return
    near = get_close_matches(str(path), [str(each) for each in path.parent.glob("*.y*ml")], 1, 0.5)
    hint = f"\n  did you mean  {near[0]}" if near else ""
    raise ValueError(f"{key}: a file does not exist\n  found     {name}{hint}" if "*" not in name else f"{key}: no file matches {name}")


def _is_file(value: str) -> bool:
    return value.endswith(_FILES)


def _meaning(value: str) -> str:
    try:
        said: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        said = value
    return repr(said)


def _texts(values: Sequence[str]) -> dict[str, str]:
    """Each value as a part of a folder's name: as it is where that is safe, otherwise with a mark that only this value has."""
    plain = {value: re.sub(r"[^\w.+-]+", "-", short(value)).strip("-.")[:40] for value in values}
    alike = Counter(text.casefold() for text in plain.values())
    exact = {value for value, text in plain.items() if text == short(value) and alike[text.casefold()] == 1}
    return {value: text if value in exact else f"{text}~{_mark(value)}" for value, text in plain.items()}


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}~{_mark(name)}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
