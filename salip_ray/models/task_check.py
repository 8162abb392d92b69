"""Refuse a task whose classes the configured models were not taught."""

from __future__ import annotations

from salip_ray.config import Config
from salip_ray.errors import ConfigError
from salip_ray.models.bundled.taught import taught_as
from salip_ray.models.registry import needs_retriever


def untaught_classes(config: Config) -> tuple[str, ...]:
    """Return the labels of the task's classes that its CLIP was not taught.

    Only the bundled CLIP's vocabulary is known: with another CLIP, or without the mode ``cascade``,
    the result is empty.
    """
    if config.clip.model != "bundled" or "cascade" not in config.run.modes:
        return ()
    if config.retrieve.model != "clip" or not needs_retriever(config):
        return ()
    return tuple(
        spec.label for spec in config.task.classes if not taught_as(spec.label, spec.sentences)
    )


def require_taught_classes(config: Config) -> None:
    """Raise ConfigError if the bundled CLIP was not taught a class of the task.

    ``clip.allow_untaught`` permits it; labels of such classes then have no confidence.
    """
    if config.clip.allow_untaught or not (untaught := untaught_classes(config)):
        return
    noun = "class" if len(untaught) == 1 else "classes"
    raise ConfigError(
        f"the bundled CLIP was not taught the {noun} {', '.join(map(repr, untaught))}: it knows "
        "lungs, brain and fetal head, and the structures around them. Use another CLIP (for "
        "example --preset paper-2d, or clip.model and clip.pretrained), or force it with "
        "--set clip.allow_untaught=true, which leaves confidence empty"
    )
