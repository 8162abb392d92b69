"""The tasks and presets that ship with the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from salip_ray.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_MOST_VALUES = 100_000  # in a YAML file, with its aliases replaced


def shipped_configs() -> Path:
    """Return the folder of shipped tasks, ``presets/`` and ``prompts/``."""
    installed = _PACKAGE / "_configs"  # in a wheel; else in a checkout
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


@dataclass(frozen=True, slots=True)
class ShippedTask:
    """What a shipped task file says about itself, under ``about`` and ``preset``.

    Attributes:
        name: to give as ``--config``.
        image: what is labelled on which kind of image.
        modality: "radiograph", "CT", "MR", "ultrasound", "endoscopy", "dermoscopy", "fundus" or
            "histology".
        preset: the preset that the task uses by default, None for the default preset.
    """

    name: str
    image: str
    modality: str
    preset: str | None


def shipped_tasks() -> list[ShippedTask]:
    """Return all shipped tasks, sorted by modality and name."""
    tasks = []
    for path in shipped_configs().glob("*.yaml"):
        data = read_yaml(path)
        about: Mapping[str, str] = data["about"]
        tasks.append(ShippedTask(path.stem, about["image"], about["modality"], data.get("preset")))
    return sorted(tasks, key=lambda task: (task.modality, task.name))


def read_text(path: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is malformed, or holds no mapping.
    """
    try:
        data = load_yaml(read_text(path))
    except yaml.YAMLError as error:
        # The error's own text quotes the line, which may hold a secret.
        problem = getattr(error, "problem", None) or type(error).__name__
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise ConfigError(f"{path} is not valid YAML: {problem}{line}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must be a mapping of sections, found {kind_of(data)}")
    return data


def load_yaml(text: str) -> Any:
    """Return the data in a YAML text.

    Raises:
        YAMLError: it is malformed, nested too deeply, or its aliases stand for too many values: ten
            lines can stand for a billion.
    """
    problem = f"its aliases stand for more than {_MOST_VALUES:,} values"
    try:
        data = yaml.safe_load(text)
        if _count(data, {}) <= _MOST_VALUES:
            return data
    except RecursionError:
        problem = "it is nested too deeply"
    raise yaml.MarkedYAMLError(problem=problem)


def _count(value: Any, counts: dict[int, float]) -> float:
    """Return the number of values with all aliases replaced; infinite if one contains itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counts:
        counts[id(value)] = math.inf
        items = [*value, *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count(item, counts) for item in items)
    return counts[id(value)]


def kind_of(value: Any) -> str:
    """Return a plain word for the type of a value from a file."""
    kinds = {"NoneType": "nothing", "list": "a list", "str": "text", "dict": "a mapping"}
    name = type(value).__name__
    return kinds.get(name, f"a value ({name})")
