"""Files of ``benchmarks/``: what a benchmark asks, and nothing of any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from geopix.cli_errors import ConfigError
from geopix.data.module import GeoPixData

FOLDER = Path("benchmarks")


def read_benchmarks(named: Sequence[str], parser: LightningArgumentParser, *, root: Path, size: int | None, batch: int, workers: int) -> dict[str, GeoPixData]:
    """Data modules of benchmark files, by the names of the files, each looked at before the first is run.

    Args:
        named: files, or their names in ``benchmarks/`` without the ending.
        parser: an empty one.
        root: folder of the data sets; a reader's ``root`` (and ``images``) that is not absolute lies below it.
        size: rows and columns of the canvas where the file does not say: those that the model was trained with.
        batch, workers: images at a time, and processes that read them, where the file does not say.

    Raises:
        ConfigError: for a file that is not there, or that says something else than which data is tested.
    """
    parser.add_lightning_class_args(GeoPixData, "data")
    paths = [_find(name) for name in named]
    if len({path.stem for path in paths}) < len(paths):
        raise ConfigError(
            f"a benchmark is named twice\n  found     {', '.join(path.stem for path in paths)}\n  next      name each once; results go to a folder of that name"
        )
    found = {path.stem: _read(path, parser, root, size, batch, workers) for path in paths}
    for data in found.values():
        data.setup("test")
    return found


def _find(name: str) -> Path:
    path = Path(name) if Path(name).suffix else FOLDER / f"{name}.yaml"
    if path.is_file():
        return path
    known = sorted(each.stem for each in FOLDER.glob("*.yaml"))
    near = get_close_matches(path.stem, known, 3, 0.5) or known
    expected = f"a YAML file, or a name in {FOLDER}/: {', '.join(near)}" if known else f"a YAML file; names are those of {FOLDER}/, and {Path.cwd()} has none"
    raise ConfigError(f"there is no benchmark {name!r}\n  found     no file {path}\n  expected  {expected}")


def _read(path: Path, parser: LightningArgumentParser, root: Path, size: int | None, batch: int, workers: int) -> GeoPixData:
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    test = said["data"].get("test") if isinstance(said, Mapping) and set(said) == {"data"} and isinstance(said["data"], Mapping) else None
    if not isinstance(test, Mapping) or "class_path" not in test:
        raise ConfigError(
            f"{path} is no benchmark\n  found     {', '.join(map(str, said)) if isinstance(said, Mapping) else type(said).__name__}\n"
            "  expected  data: {test: {class_path: ..., init_args: {...}}} and nothing else\n  next      see benchmarks/rrsis_d.yaml"
        )
    given: dict[str, Any] = dict(test.get("init_args", {}))
    if size is not None:
        given.setdefault("size", size)
    reader = given.get("reader")
    if isinstance(reader, Mapping) and "root" in reader.get("init_args", {}):
        placed = {key: str(root / value) for key, value in reader["init_args"].items() if key in ("root", "images")}
        given["reader"] = {**reader, "init_args": {**reader["init_args"], **placed}}
    data = {"eval_batch_size": batch, "num_workers": workers, **said["data"], "test": {**test, "init_args": given}}
    module = parser.instantiate_classes(parser.parse_object({"data": data})).data
    assert isinstance(module, GeoPixData)
    return module


def reading_of(config: Mapping[str, Any], *verbs: str) -> dict[str, Any] | None:
    """Which bands are read and which stored values mean 0 and 1, as a configuration states it for the first of the sources named; None where it does not."""
    for verb in verbs:
        given = config.get(verb) or {}
        while given:
            given = given.get("init_args") or {}
            if "high" in given:
                return {name: given.get(name) for name in ("bands", "low", "high")}
            given = given.get("source") or {}
    return None


def canvas_of(config: Mapping[str, Any], *verbs: str) -> int | None:
    """The size of images that a configuration's data names first: of test, val or train, or of the sources named."""
    for verb in verbs or ("test", "val", "train"):
        given = (config.get(verb) or {}).get("init_args") or {}
        if isinstance(given.get("size"), int):
            return int(given["size"])
    return None
