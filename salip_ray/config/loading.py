"""Build a :class:`~salip_ray.config.Config` from files and ``--set`` assignments.

Later layers win: built-in defaults, preset, task file, ``--set section.field=value``. A preset or
task is a path, or the name of one that ships with the package.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from salip_ray.config.assignments import merge, parse_assignments
from salip_ray.config.config import Config
from salip_ray.config.problems import describe_problem
from salip_ray.config.shipped import kind_of, read_text, read_yaml, shipped_configs
from salip_ray.errors import ConfigError

DEFAULT_PRESET = "bundled"
#: Sentences about every class that the bundled CLIP was taught.
_ANATOMY = "prompts/anatomy.json"


def load_config(
    task: str | Path | Mapping[str, Any],
    *,
    preset: str | Path | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> Config:
    """Build the configuration of a job.

    Args:
        task: name of a shipped task (``"lungs"``), path of a YAML file, or a nested mapping.
        preset: name of a shipped preset, or a path; by default the one that the task names under
            ``preset``, else ``bundled``.
        overrides: ``"section.field=value"`` strings with YAML values, or a nested mapping.

    Raises:
        ConfigError: a file is missing or malformed, a key unknown, or a value out of range.

    Examples:
        >>> from salip_ray import load_config
        >>> config = load_config("lungs", overrides=["propose.points_per_side=8"])
        >>> config.task.name, config.propose.points_per_side
        ('lungs', 8)
    """
    if isinstance(task, Mapping):
        task_data, folder, origin = dict(task), Path.cwd(), "the task mapping"
    else:
        path = _find(task, shipped_configs(), "task")
        task_data, folder, origin = read_yaml(path), path.parent, str(path)
    task_data.pop("about", None)  # for the list of shipped tasks only
    named_preset = _named_preset(task_data.pop("preset", None), origin)
    preset = preset or named_preset or DEFAULT_PRESET
    preset_path = _find(preset, shipped_configs() / "presets", "preset")
    if isinstance(overrides, Mapping):
        changes, changes_origin = dict(overrides), "overrides"
    else:
        changes, changes_origin = parse_assignments(overrides), "--set"
    layers = [
        (str(preset_path), read_yaml(preset_path)),
        (origin, _with_prompts(task_data, folder, origin)),
        (changes_origin, _with_prompts(changes, Path.cwd(), changes_origin)),
    ]
    data: dict[str, Any] = {}
    for _, layer in layers:
        data = merge(data, layer)
    try:
        return Config.model_validate(_with_default_distractors(data))
    except ValidationError as error:
        raise ConfigError(describe_problem(error, layers)) from None


def preset_settings(preset: str | Path) -> dict[str, Any]:
    """Return the sections of a preset, by name or path.

    Raises:
        ConfigError: there is no such preset, or it is malformed.
    """
    return read_yaml(_find(preset, shipped_configs() / "presets", "preset"))


def _named_preset(preset: Any, origin: str) -> str | None:
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"{origin}: preset must be a name or path, found {preset!r}")
    return preset


def _find(name: str | Path, shipped: Path, kind: str) -> Path:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        # configs/lungs.yaml also works outside of a checkout: the file ships in the wheel.
        for candidate in (path, shipped / path.name):
            if candidate.is_file():
                return candidate
        raise ConfigError(f"{kind} file {path} does not exist")
    candidate = shipped / f"{name}.yaml"
    if candidate.is_file():
        return candidate
    known = sorted(file.stem for file in shipped.glob("*.yaml"))
    if close := difflib.get_close_matches(str(name), known, cutoff=0.7):
        raise ConfigError(f"no {kind} named {str(name)!r}: did you mean {' or '.join(close)}?")
    raise ConfigError(f"no {kind} named {str(name)!r}: give a path, or one of: {', '.join(known)}")


def _with_prompts(data: dict[str, Any], folder: Path, origin: str) -> dict[str, Any]:
    """Replace the file names under ``task.prompts`` and ``task.distractors`` by the content.

    The format is SaLIP's: a JSON object of sentences by class name.
    """
    task = data.get("task")
    if not isinstance(task, dict):
        return data
    named = {key: task[key] for key in ("prompts", "distractors") if isinstance(task.get(key), str)}
    read = {key: _read_prompts(folder / name, key, origin) for key, name in named.items()}
    return {**data, "task": {**task, **read}} if read else data


def _read_prompts(path: Path, key: str, origin: str) -> dict[str, list[str]]:
    if not path.exists():
        raise ConfigError(f"{origin}: task.{key} names {path}, which does not exist")
    try:
        prompts = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not valid JSON (line {error.lineno}, column {error.colno})"
        ) from None
    if not isinstance(prompts, dict):
        raise ConfigError(f"{path} must map each class to its sentences, found {kind_of(prompts)}")
    for label, texts in prompts.items():
        sentences = [texts] if isinstance(texts, str) else texts
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise ConfigError(f"{path}: the sentences of {label!r} must be a list of text")
        prompts[label] = sentences
    return prompts


def _with_default_distractors(data: dict[str, Any]) -> dict[str, Any]:
    """Add distractors and companions to a task for the bundled CLIP that names none.

    Without them the only class of a task has the probability 1 on every candidate of every image.
    """
    task, clip, retrieve = (data.get(name) for name in ("task", "clip", "retrieve"))
    if not (isinstance(task, dict) and isinstance(task.get("prompts"), dict)):
        return data
    if not (isinstance(clip, dict) and clip.get("model") == "bundled"):
        return data
    if "distractors" in task or not isinstance(retrieve, dict):
        return data
    if retrieve.get("scoring") != "softmax" or retrieve.get("model", "clip") != "clip":
        return data
    prompts = task["prompts"]
    if not all(isinstance(texts, list | tuple) for texts in prompts.values()):
        return data  # validation reports it
    from salip_ray.models.bundled.taught import same_kind, taught_as

    anatomy = _read_prompts(shipped_configs() / _ANATOMY, "distractors", DEFAULT_PRESET)
    taught = {
        str(label): taught_as(str(label), [str(text) for text in texts])
        for label, texts in prompts.items()
    }
    own = frozenset().union(*taught.values())
    distractors = {label: texts for label, texts in anatomy.items() if label not in own}
    companions = {
        label: [other for other in distractors if other in same_kind(labels)]
        for label, labels in taught.items()
        if labels
    }
    defaults = {"distractors": distractors, "companions": companions}
    return {**data, "task": {**defaults, **task}}
