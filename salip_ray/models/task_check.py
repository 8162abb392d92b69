"""Refuse a task whose classes the bundled models cannot label."""

from __future__ import annotations

from salip_ray.config import Config
from salip_ray.errors import ConfigError
from salip_ray.models.bundled.taught import taught_as
from salip_ray.models.registry import needs_retriever

#: What the bundled models label. CLIP was taught more structures, but only as distractors: the
#: bundled SAM does not outline them.
ORGANS = frozenset({"lungs", "heart", "brain", "head outline", "fetal head"})


def untaught_classes(config: Config) -> tuple[str, ...]:
    """Return the labels of the task's classes that its models were not taught to label.

    Only what the bundled CLIP was taught is known: with another CLIP, or without the mode
    ``cascade``, the result is empty.
    """
    if config.clip.model != "bundled" or "cascade" not in config.run.modes:
        return ()
    if config.retrieve.model != "clip" or not needs_retriever(config):
        return ()
    return tuple(
        spec.label
        for spec in config.task.classes
        if not taught_as(spec.label, spec.sentences) & ORGANS
    )


def require_taught_classes(config: Config) -> None:
    """Raise ConfigError if the bundled models were not taught to label a class of the task.

    ``clip.allow_untaught`` permits it; labels of such classes then have no confidence.
    """
    if config.clip.allow_untaught or not (untaught := untaught_classes(config)):
        return
    noun = "class" if len(untaught) == 1 else "classes"
    raise ConfigError(
        f"the bundled models were not taught the {noun} {', '.join(map(repr, untaught))}: they "
        "label lungs, heart, brain, head and fetal head. Use other models (for example --preset "
        "paper-2d, or clip.model and clip.pretrained), or force it with --set "
        "clip.allow_untaught=true, which leaves confidence empty"
    )
