"""The space of a search: fields that may change, and the seeded recipes drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from salip_ray.config import Config
from salip_ray.config.shipped import load_yaml
from salip_ray.errors import ConfigError
from salip_ray.wording import one_line

_SECTIONS = ("task", "propose", "retrieve", "refine")
#: Fields that define the task, the weights or the batch sizes, and not the quality of labels.
_FIXED = frozenset(
    {"task.name", "task.prompts", "task.distractors", "task.companions", "task.signs"}
    | {"task.tuned_on"}
    | {"refine.sam", "retrieve.resize", "retrieve.batch_size", "refine.batch_size"}
    | {"propose.points_per_batch"}
    | {f"{stage}.{name}" for stage in _SECTIONS[1:] for name in ("model", "options", "weights")}
)
#: Settings of the default space that only one family reads.
_OF_FAMILY = {
    ("propose", "sam"): (
        *("propose.points_per_side", "propose.pred_iou_thresh", "propose.stability_score_thresh"),
        *("propose.box_nms_thresh", "propose.min_mask_region_area"),
    ),
    ("retrieve", "clip"): ("retrieve.visual_prompt", "retrieve.padding"),
    ("refine", "sam"): ("refine.mask_feedback",),
}
_ATTEMPTS = 200


@dataclass(frozen=True)
class Range:
    """Any number from ``low`` to ``high``."""

    low: float
    high: float


Space = Mapping[str, tuple[Any, ...] | Range]
"""Field (``propose.pred_iou_thresh``) -> its choices, or its range."""


@dataclass(frozen=True)
class Recipe:
    """A recipe to try; number 0 is the given configuration."""

    number: int
    changes: Mapping[str, Any]
    config: Config


def default_space(config: Config) -> dict[str, tuple[Any, ...] | Range]:
    """Return the paper's search space (thresholds, points, areas) and settings of the retrieval.

    It is centred on a configuration, and no recipe of it takes much longer than that one.
    """
    task, propose = config.task, config.propose
    points, area = propose.points_per_side, propose.min_mask_region_area
    space: dict[str, tuple[Any, ...] | Range] = {
        "propose.points_per_side": tuple(sorted({max(2, points // 2), points})),
        "propose.pred_iou_thresh": Range(0.3, 0.95),
        "propose.stability_score_thresh": Range(0.3, 0.95),
        "propose.box_nms_thresh": Range(0.6, 0.97),
        "propose.min_mask_region_area": tuple(sorted({0, area, 4 * area})),
        "retrieve.visual_prompt": ("crops", "crop_expand", "bbox", "reverse_box_mask", "contour"),
        "retrieve.padding": ("none", "square"),
        "retrieve.max_overlap": (0.3, 0.5, 0.8, 1.0),
        "retrieve.sam_prior": (0.0, 1.0, 2.0, 4.0, 8.0),
        "refine.mask_feedback": (0, 1),
        "refine.fill_holes": (False, True),
    }
    if config.retrieve.ensemble:
        del space["retrieve.visual_prompt"]  # could name one twice
    if isinstance(task.top_k, int):
        space["task.top_k"] = tuple(sorted({max(1, task.top_k - 1), task.top_k, task.top_k + 1}))
    if propose.max_area is not None and propose.max_area > 1:
        # The published search space, for its working image of 256 x 256.
        pixels = config.image.long_side**2 / 256**2
        space["propose.max_area"] = tuple(a * pixels for a in (20_000.0, 40_000.0, 50_000.0))
    elif propose.max_area is None and task.min_area <= 1 and task.max_area <= 1:
        space["task.min_area"] = Range(0.0, min(1.0, 2 * task.min_area + 0.01))
        space["task.max_area"] = Range(task.max_area / 2, min(1.0, 1.5 * task.max_area))
    for (role, name), names in _OF_FAMILY.items():
        if getattr(config, role).model != name:
            space = {field: values for field, values in space.items() if field not in names}
    return space


def read_space(path: Path) -> dict[str, tuple[Any, ...] | Range]:
    """Read a space from YAML: choices of a field as a list, or ``{low: 0.3, high: 0.9}``.

    Raises:
        ConfigError: the file is missing or malformed, or a field cannot be searched.
    """
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"space file {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from None
    if not isinstance(data, dict) or not data:
        raise ConfigError(f"{path} must map fields to their choices, found {data!r}")
    space: dict[str, tuple[Any, ...] | Range] = {}
    for field, values in data.items():
        _check_field(str(field), str(path))
        if isinstance(values, list) and values:
            space[str(field)] = tuple(values)
        elif isinstance(values, dict) and set(values) == {"low", "high"}:
            low, high = values["low"], values["high"]
            if not all(isinstance(v, int | float) for v in (low, high)) or low > high:
                raise ConfigError(
                    f"{path}: the range of {field} must ascend, found {low!r} to {high!r}"
                )
            space[str(field)] = Range(float(low), float(high))
        else:
            raise ConfigError(
                f"{path}: {field} must be a list of choices or {{low: ..., high: ...}}, "
                f"found {values!r}"
            )
    return space


def _check_field(field: str, origin: str) -> None:
    section, _, name = field.partition(".")
    known = Config.model_fields[section].annotation if section in _SECTIONS else None
    if section in _SECTIONS[1:] and name.startswith("options."):
        return
    if field in _FIXED or known is None or name not in getattr(known, "model_fields", ()):
        raise ConfigError(
            f"{origin}: {field!r} cannot be searched: name a field of {', '.join(_SECTIONS)}, "
            "as in propose.pred_iou_thresh or propose.options.threshold"
        )


def draw_recipes(config: Config, space: Space, trials: int, seed: int) -> list[Recipe]:
    """Return the given recipe and ``trials`` - 1 random ones; the same arguments give the same.

    Raises:
        ConfigError: the space has hardly any valid recipe.
    """
    chance = np.random.default_rng(seed)
    recipes = [Recipe(0, {}, config)]
    attempts, reason = 0, ""
    while len(recipes) < trials:
        changes = {field: _drawn(values, chance) for field, values in space.items()}
        try:
            recipes.append(Recipe(len(recipes), changes, with_changes(config, changes)))
            attempts = 0
        except ValidationError as error:
            attempts, reason = attempts + 1, error.errors(include_url=False)[0]["msg"]
        if attempts == _ATTEMPTS:
            raise ConfigError(
                f"the space has hardly any valid recipe: {_ATTEMPTS} in a row failed with: {reason}"
            )
    return recipes


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return the configuration with some fields changed and validated.

    Other sections are not copied field by field: pools that were left open must stay open.
    """
    data: dict[str, Any] = {name: getattr(config, name) for name in Config.model_fields}
    for field, value in changes.items():
        section, *path = field.split(".")
        if not isinstance(data[section], dict):
            data[section] = data[section].model_dump()
        values = data[section]
        for part in path[:-1]:
            values = values[part]
        values[path[-1]] = value
    return Config.model_validate(data)


def _drawn(values: tuple[Any, ...] | Range, chance: np.random.Generator) -> Any:
    if isinstance(values, Range):
        # Rounded before the trial, so that the value in a file is the value that was tried.
        return round(float(chance.uniform(values.low, values.high)), 4)
    return values[int(chance.integers(len(values)))]
