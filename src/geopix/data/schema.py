"""The JSON Schema of a record (``schema.json`` beside this file, draft 2020-12), and its first complaint in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import relevance
from jsonschema.validators import extend

PATH = Path(__file__).with_name("schema.json")
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "null": (type(None),), "boolean": (bool,)}
"""Types of Python that are always of a JSON type; others, such as a whole float as integer, are left to the validator."""

SHOWN = 80
"""Characters of a value that a message shows."""


def fault(record: Any) -> str | None:
    """What is wrong with the form of a record: where in it, what was found, what was expected. None when nothing is.

    Of several faults it tells the outermost, and of those at one depth the first. Whether files exist and masks fit is not a matter of form.

    >>> fault({"image": "a.png", "instances": [{"id": 1, "box": [0, 0, 4]}]})
    'instances[0].box is [0, 0, 4]; expected four numbers, [x1, y1, x2, y2]'
    """
    errors = sorted(_validator().iter_errors(record), key=relevance, reverse=True)
    return _told(errors[0]) if errors else None


@cache
def _validator() -> Any:
    """Draft 2020-12, with a short way for values whose type is all that is asked: a record holds thousands of numbers."""
    schema = json.loads(PATH.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return extend(Draft202012Validator, {"items": _items, "properties": _properties})(schema)


def _items(validator: Any, rule: dict[str, Any], instance: Any, schema: dict[str, Any]) -> Iterator[ValidationError]:
    if not (isinstance(instance, list) and (kinds := _kinds(rule)) and all(type(value) in kinds for value in instance)):
        yield from Draft202012Validator.VALIDATORS["items"](validator, rule, instance, schema)


def _properties(validator: Any, rules: dict[str, Any], instance: Any, schema: dict[str, Any]) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        left = {name: rule for name, rule in rules.items() if name in instance and type(instance[name]) not in _kinds(rule)}
        yield from Draft202012Validator.VALIDATORS["properties"](validator, left, instance, schema)


def _kinds(rule: dict[str, Any]) -> frozenset[type]:
    """The types of Python that a rule allows without looking further; none where it asks for more than a type."""
    if not rule.keys() <= {"description", "type"}:
        return frozenset()
    return frozenset().union(*(TYPES.get(name, ()) for name in ([rule["type"]] if isinstance(rule["type"], str) else rule["type"])))


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
