"""The first look at an input: where its records are, and which classes stand beside which."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopix.data.images import describe


@dataclass(frozen=True)
class Survey:
    """What an input holds.

    Args:
        lines: number (from 1) and byte offset of each record.
        together: for each class, how many images show it beside each other class; under its own name, how many show it at all.
        bad: lines that are no records: ``kind``, ``where``, ``what``.
        origins: licences and sources that the records state, with their numbers.
        sha256: of the file's bytes.
    """

    lines: tuple[tuple[int, int], ...]
    together: dict[str, dict[str, int]]
    bad: tuple[dict[str, str], ...]
    origins: dict[str, dict[str, int]]
    sha256: str


def survey(path: Path) -> Survey:
    """Reads a JSONL once.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds no record at all.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the records {path} do not exist. Expected a JSONL file, one record per line (docs/data.md).")
    lines, bad = [], []
    together: dict[str, Counter[str]] = {}
    origins: dict[str, Counter[str]] = {"licence": Counter(), "source": Counter(), "split": Counter()}
    keys: dict[str, int] = {}
    digest = hashlib.sha256()
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            problem, record = _read(line)
            key = str(record.get("key", record.get("image")))
            if not problem and key in keys:
                problem = f"the key {key!r} was given to line {keys[key]} already; keys name images and must differ"
            if problem:
                bad.append({"kind": "no record" if not record else "key given twice", "where": f"line {number}", "what": problem})
                continue
            keys[key] = number
            lines.append((number, start))
            names = {entry["class"] for entry in record.get("instances", []) if isinstance(entry, dict) and isinstance(entry.get("class"), str)}
            for name in names:
                together.setdefault(name, Counter()).update(names)
            for field, counts in origins.items():
                counts[str(record.get(field, "not stated"))] += 1
    if not lines:
        raise ValueError(f"{path} holds no record: {bad[0]['what'] if bad else describe(path)}. Expected one JSON object per line (docs/data.md).")
    ordered = {name: dict(sorted(together[name].items())) for name in sorted(together)}
    return Survey(tuple(lines), ordered, tuple(bad), {field: dict(sorted(counts.items())) for field, counts in origins.items()}, digest.hexdigest())


def _read(line: bytes) -> tuple[str, dict[str, Any]]:
    """What is wrong with a line (empty where nothing), and the record."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8", {}
    except ValueError as error:
        return f"it is not valid JSON ({error}); it begins with {line[:40]!r}", {}
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        return f"expected an object with a path in 'image', found {str(record)[:60]}", {}
    if not isinstance(record.get("instances", []), list):
        return f"'instances' is a {type(record['instances']).__name__}; expected a list", {}
    return "", record
