"""Validation errors of the configuration as one line: field, problem, value found, and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from salip_ray.config.config import Config

Layer = tuple[str, Mapping[str, Any]]  #: name of a source of settings, and its nested data
_Location = tuple[int | str, ...]

#: Parts of a location that pydantic adds for the branches of a union.
_BRANCHES = ("constrained-", "dict[", "literal[", "Window", "SamConfig", "WeightsFile", "function-")
#: Kind of error -> message; fields in braces come from the error's context.
_MESSAGES = {
    "bool": "must be true or false",
    "dict": "must be a mapping",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "int": "must be a whole number",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "list": "must be a list",
    "literal_error": "must be {expected}",
    "model": "must be a mapping",
    "string_pattern_mismatch": "must be 64 hexadecimal digits",
    "string_too_short": "must not be empty",
    "string": "must be text",
    "too_long": "must have {max_length} items or fewer",
    "too_short": "must not be empty",
    "tuple": "must be a list",
}


def describe_problem(error: ValidationError, layers: Sequence[Layer]) -> str:
    """Return one line about the first problem of a configuration.

    Args:
        error: raised by pydantic for the merged data.
        layers: preset, task and overrides, in the order of merging. The one that set the field is
            named.
    """
    problems = error.errors(include_url=False)
    first = _field(problems[0]["loc"])
    # Each branch of a union reports a problem; the deepest one is about the branch that was meant.
    of_field = [p for p in problems if _field(p["loc"])[: len(first)] == first]
    problem = max(of_field, key=lambda p: len(_field(p["loc"])))
    others = {_field(p["loc"])[: len(first)] for p in problems} - {first}
    more = f" (and {len(others)} more)" if others else ""
    field = _field(problem["loc"])
    missing = problem["type"] == "missing"
    origin = _origin(field[:-1], layers) if missing else _origin(field, layers[::-1])
    return f"{origin}: {_message(problem, '.'.join(field))}{more}"


def _message(problem: Mapping[str, Any], field: str) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key {field}; {hint}"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "value_error":
        text = str(problem["msg"]).removeprefix("Value error, ")
    else:
        template = _MESSAGES.get(kind) or _MESSAGES.get(kind.partition("_")[0])
        text = template.format(**context) if template else "is not valid"
    hidden = field.startswith("storage") or isinstance(value, dict)  # may hold a secret, or is long
    shown = (
        "" if hidden or (kind == "value_error" and not _is_short(value)) else f", found {value!r}"
    )
    return f"{field}: {text}{shown}" if field else f"{text}{shown}"


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list)


def _field(location: _Location) -> tuple[str, ...]:
    """Return a location without the branches of unions."""
    return tuple(part for part in map(str, location) if not part.startswith(_BRANCHES))


def _origin(field: Sequence[str], layers: Sequence[Layer]) -> str:
    """Return the name of the first layer that sets a field, else of the task's layer."""
    if field:
        for name, data in layers:
            if _has(data, field):
                return name
    return layers[1][0]


def _has(data: Any, field: Sequence[str]) -> bool:
    for part in field:
        if not isinstance(data, Mapping):
            return True  # the field is an item of this value, or inside text that should be more
        if part not in data:
            return False
        data = data[part]
    return True


def _known_keys(location: _Location) -> list[str]:
    model: type[BaseModel] = Config
    for part in _field(location):
        field = model.model_fields.get(part)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return sorted(model.model_fields)
