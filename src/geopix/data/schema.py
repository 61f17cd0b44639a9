"""The JSON Schema of a record (``schema.json`` beside this file, draft 2020-12), and its first complaint in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import relevance

PATH = Path(__file__).with_name("schema.json")
Test = Callable[[Any], bool]
WORDS = ("$schema", "$defs", "title", "description")
"""Keywords that ask for nothing by themselves."""
TYPES: dict[str, frozenset[type]] = {
    "string": frozenset({str}), "integer": frozenset({int}), "number": frozenset({int, float}), "null": frozenset({type(None)}),
    "boolean": frozenset({bool}), "array": frozenset({list}), "object": frozenset({dict}),
}  # fmt: skip
"""Types of Python that are always of a JSON type; others, such as a whole float as integer, are left to the validator."""

SHOWN = 80
"""Characters of a value that a message shows."""


def fault(record: Any) -> str | None:
    """What is wrong with the form of a record: where in it, what was found, what was expected. None when nothing is.

    Of several faults it tells the outermost, and of those at one depth the first. Whether files exist and masks fit is not a matter of form.

    >>> fault({"image": "a.png", "instances": [{"id": 1, "box": [0, 0, 4]}]})
    'instances[0].box is [0, 0, 4]; expected four numbers, [x1, y1, x2, y2]'
    """
    if _accepts()(record):
        return None
    errors = sorted(_validator().iter_errors(record), key=relevance, reverse=True)
    return _told(errors[0]) if errors else None


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return schema


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_schema())


@cache
def _accepts() -> Test:
    return _test_of(_schema(), _schema())


def _test_of(rule: dict[str, Any], root: dict[str, Any]) -> Test:
    """A test that only values pass which surely meet a rule; the validator, which takes fifty times as long, decides on the others."""
    tests = [_keyword(name, wanted, root) for name, wanted in rule.items() if name not in WORDS]
    return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)


def _keyword(name: str, wanted: Any, root: dict[str, Any]) -> Test:
    """The test of one keyword; of one that is not known here, a test that nothing passes."""
    if name == "$ref":
        return _test_of(root["$defs"][wanted.removeprefix("#/$defs/")], root)
    if name == "type":
        kinds = frozenset().union(*(TYPES[kind] for kind in ([wanted] if isinstance(wanted, str) else wanted)))
        return lambda value: type(value) in kinds
    if name == "required":
        return lambda value: not isinstance(value, dict) or all(field in value for field in wanted)
    if name == "properties":
        of = {field: _test_of(rule, root) for field, rule in wanted.items()}
        return lambda value: not isinstance(value, dict) or all(of[field](each) for field, each in value.items() if field in of)
    if name == "items":
        each_of = _test_of(wanted, root)
        return lambda value: not isinstance(value, list) or all(map(each_of, value))
    if name == "anyOf":
        options = [_test_of(rule, root) for rule in wanted]
        return lambda value: any(option(value) for option in options)
    if name == "pattern":
        found = re.compile(wanted).search
        return lambda value: not isinstance(value, str) or found(value) is not None
    if name == "not" and list(wanted) == ["pattern"]:
        never = re.compile(wanted["pattern"]).search
        return lambda value: not isinstance(value, str) or never(value) is None
    if name in ("minLength", "minItems", "maxItems"):
        kind, sign = (str if name == "minLength" else list), (-1 if name == "maxItems" else 1)
        return lambda value: not isinstance(value, kind) or sign * len(value) >= sign * wanted
    if name in ("minimum", "exclusiveMinimum"):
        return lambda value: type(value) not in TYPES["number"] or (value >= wanted if name == "minimum" else value > wanted)
    return lambda value: False


def _told(error: ValidationError) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".") or "the record"
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{place}: a field is missing: {', '.join(map(repr, missing))}; found the fields {sorted(error.instance)}"
    if error.validator == "pattern" and "\\" in str(error.instance):
        return f"{place} is {_short(error.instance)}: it holds backslashes; write paths with forward slashes"
    wanted = error.schema.get("description") if isinstance(error.schema, dict) else None
    return f"{place} is {_short(error.instance)}; expected {wanted or _plain(error)}"


def _plain(error: ValidationError) -> str:
    """A rule that has no description of its own, from the one that it is part of."""
    parent = error.parent.schema if error.parent is not None else None
    described = parent.get("description") if isinstance(parent, dict) else None
    return described or f"{error.validator} {error.validator_value}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
