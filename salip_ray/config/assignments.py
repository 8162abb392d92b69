"""Settings given as ``key=value`` on a command line, and how layers of settings are merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from salip_ray.errors import ConfigError

_NOT_TEXT = re.compile(r"true|false|0|[1-9]\d{0,8}|\{.*\}|\[.*\]", re.DOTALL)

#: Mappings that are single values: a later one replaces an earlier one completely.
_WHOLE = {
    ("task", "prompts"),
    ("task", "distractors"),
    ("task", "companions"),
    ("task", "signs"),
    ("task", "top_k"),
    ("image", "window"),
}


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Return nested data from ``"section.field=value"`` strings; later ones win.

    Values are YAML.

    Raises:
        ConfigError: a string has no key or no ``=``, or its value is not YAML.
    """
    data: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            shown = _without_secret(assignment)
            raise ConfigError(f"--set {shown!r} must look like section.field=value")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError:
            shown = _without_secret(assignment)
            raise ConfigError(f"--set {shown!r}: the value is not valid YAML") from None
        data = merge(data, _nested(key, value))
    return data


def _without_secret(assignment: str) -> str:
    """Return an assignment to be shown: only the key if it is a storage option."""
    if not assignment.strip().startswith("storage"):
        return assignment
    key, equals, _ = assignment.partition("=")
    return key.strip() if equals else "storage"


def parse_options(location: str, options: Iterable[str]) -> dict[str, Any]:
    """Return nested storage options from ``"key=value"`` strings; later ones win.

    A value is taken as text, because a secret may look like YAML. Exceptions are ``true``,
    ``false``, whole numbers, and values in braces or brackets.

    Args:
        location: name of the location, as in ``--LOCATION-option``.
        options: for example ``"client_kwargs.region_name=eu-central-1"``.

    Raises:
        ConfigError: an option is not ``key=value``. The message never shows its text.
    """
    data: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not key.strip() or not equals:
            raise ConfigError(f"--{location}-option must look like key=value")
        value: Any = text
        if _NOT_TEXT.fullmatch(text):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise ConfigError(
                    f"--{location}-option {key}: the value in braces is not valid YAML"
                ) from None
        data = merge(data, _nested(key, value))
    return data


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return ``{"a": {"b": value}}`` for the key ``a.b``."""
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def merge(
    base: Mapping[str, Any], change: Mapping[str, Any], at: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return nested settings with a change applied.

    Args:
        base: the settings.
        change: settings that win.
        at: path of both within the configuration.
    """
    merged = dict(base)
    for key, value in change.items():
        path = (*at, str(key))
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and path not in _WHOLE:
            merged[key] = merge(old, value, path)
        else:
            merged[key] = value
    return merged
