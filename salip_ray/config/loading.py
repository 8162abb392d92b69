"""From files and ``--set`` assignments to one :class:`~salip_ray.config.Config`.

Later wins: built-in defaults, preset, task file, ``--set section.field=value``. A preset or task is
a path, or the name of one that ships with the package.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from salip_ray.config.sections import Config
from salip_ray.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
DEFAULT_PRESET = "bundled"


def shipped_configs() -> Path:
    """The folder of shipped tasks, ``presets/`` and ``prompts/`` (in a wheel, or a checkout)."""
    installed = _PACKAGE / "_configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def load_config(
    task: str | Path | Mapping[str, Any],
    *,
    preset: str | Path | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> Config:
    """Build the configuration of a job.

    Args:
        task: name of a shipped task (``"lungs"``), path of a YAML file, or the mapping itself.
        preset: name of a shipped preset or path; by default the one the task names under
            ``preset``, else ``bundled``.
        overrides: ``"section.field=value"`` strings (values are YAML), or a nested mapping.

    Raises:
        ConfigError: a file is missing or malformed, a key unknown, a value out of range.
    """
    if isinstance(task, Mapping):
        task_data, folder, origin = dict(task), Path.cwd(), "the task mapping"
    else:
        path = _find(task, shipped_configs(), "task")
        task_data, folder, origin = _read_yaml(path), path.parent, str(path)
    preset = preset or task_data.pop("preset", None) or DEFAULT_PRESET
    task_data.pop("preset", None)
    preset_path = _find(preset, shipped_configs() / "presets", "preset")
    data = merge(_read_yaml(preset_path), _with_prompts(task_data, folder, origin))
    changes = overrides if isinstance(overrides, Mapping) else parse_assignments(overrides)
    data = merge(data, _with_prompts(dict(changes), Path.cwd(), "--set"))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(error)}") from None


def _find(name: str | Path, shipped: Path, kind: str) -> Path:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        # configs/lungs.yaml works outside a checkout too, where the file ships in the wheel.
        for candidate in (path, shipped / path.name):
            if candidate.is_file():
                return candidate
        raise ConfigError(f"{kind} file {path} does not exist")
    candidate = shipped / f"{name}.yaml"
    if candidate.is_file():
        return candidate
    known = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
    raise ConfigError(f"no {kind} named {str(name)!r}: give a path, or one of: {known}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        # Its own text quotes the line, which may hold a secret.
        problem = getattr(error, "problem", None) or type(error).__name__
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigError(f"{path} is not valid YAML: {problem}{where}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must be a mapping of sections, found {type(data).__name__}")
    return data


def _with_prompts(data: dict[str, Any], folder: Path, origin: str) -> dict[str, Any]:
    """Replace ``task.prompts: file.json``, or ``task.distractors``, by the file's content.

    SaLIP's own format, a class's sentences by its name.
    """
    task = data.get("task")
    if not isinstance(task, dict):
        return data
    named = {key: task[key] for key in ("prompts", "distractors") if isinstance(task.get(key), str)}
    read = {key: _read_prompts(folder / name, key, origin) for key, name in named.items()}
    return {**data, "task": {**task, **read}} if read else data


def _read_prompts(path: Path, key: str, origin: str) -> dict[str, Any]:
    try:
        prompts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{origin}: task.{key} names {path}, which does not exist") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(prompts, dict):
        raise ConfigError(
            f"{path} must map each class to its sentences, found {type(prompts).__name__}"
        )
    # A lone sentence is accepted as a list of one.
    return {label: [text] if isinstance(text, str) else text for label, text in prompts.items()}


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Nested data from ``"section.field=value"`` strings; values are YAML, later ones win.

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
    """An assignment for people to read: of a storage option the key, which ends at a ``=``."""
    if not assignment.strip().startswith("storage"):
        return assignment
    key, equals, _ = assignment.partition("=")
    return key.strip() if equals else "storage"


def parse_options(place: str, options: Iterable[str]) -> dict[str, Any]:
    """Nested storage options from ``"key=value"`` strings; later ones win.

    Unlike YAML, a value is the text as it stands, for it may be a secret of any look; only
    ``true``, ``false``, whole numbers, and what is in braces or brackets are not text.

    Args:
        place: what the options are for, as in ``--PLACE-option``.
        options: ``"client_kwargs.region_name=eu-central-1"`` and the like.

    Raises:
        ConfigError: an option is not ``key=value``. Its text is never shown.
    """
    data: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not key.strip() or not equals:
            raise ConfigError(f"--{place}-option must look like key=value")
        value: Any = text
        if _NOT_TEXT.fullmatch(text):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise ConfigError(
                    f"--{place}-option {key}: the value in braces is not valid YAML"
                ) from None
        data = merge(data, _nested(key, value))
    return data


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``a.b`` and a value as ``{"a": {"b": value}}``."""
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


_NOT_TEXT = re.compile(r"true|false|0|[1-9]\d{0,8}|\{.*\}|\[.*\]", re.DOTALL)

#: Mappings that are values of their own: a later one replaces an earlier one whole.
_WHOLE = {
    ("task", "prompts"),
    ("task", "distractors"),
    ("task", "companions"),
    ("task", "top_k"),
    ("image", "window"),
}


def merge(
    base: Mapping[str, Any], change: Mapping[str, Any], at: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Nested data with a change to it; ``at`` is where in the configuration they are."""
    merged = dict(base)
    for key, value in change.items():
        place = (*at, str(key))
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and place not in _WHOLE:
            merged[key] = merge(old, value, place)
        else:
            merged[key] = value
    return merged


_BRANCHES = ("constrained-", "dict[", "literal[", "Window")


def _first_problem(error: ValidationError) -> str:
    """One line: field, what is wrong, what was found, and for an unknown key what is meant."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    # A union's branch names ("constrained-int") are pydantic's, not the user's.
    parts = [str(part) for part in problem["loc"]]
    field = ".".join(part for part in parts if not part.startswith(_BRANCHES)) or "config"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = _fields_at(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {field}; {hint}{more}"
    if problem["type"] == "missing":
        return f"{field} is missing{more}"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    secret = field.startswith("storage")
    shown = "" if secret or isinstance(found, dict) else f", found {found!r}"
    return f"{field}: {message[0].lower()}{message[1:]}{shown}{more}"


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in loc:
        field = model.model_fields.get(str(part))
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return sorted(model.model_fields)
