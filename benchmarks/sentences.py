"""Variants of a task's sentences, for ``benchmarks/ablation.py --part sentences``.

They ask how a class should be described: by its name or its looks, by one sentence or several, and
with or without the classes that a candidate may show instead.
"""

from __future__ import annotations

import json

from salip_ray.config import load_config

_MODALITY = {"lungs": "chest X-ray", "brain": "head MR", "fetal_head": "fetal ultrasound"}
#: Descriptions without the name of the organ.
_LOOKS = {
    "lungs": ["A tall dark field crossed by faint ribs.", "A dark, air-filled region."],
    "brain": ["A large grey oval with folds.", "Soft tissue inside a ring of bone."],
    "fetal_head": ["A bright oval ring.", "An oval with a thin line in the middle."],
}


def sentence_variants(task: str) -> dict[str, tuple[str, ...]]:
    """Return the overrides that give ``task`` other sentences, by the name of the variant."""
    (spec,) = load_config(task).task.classes
    name, ours = spec.label, list(spec.sentences)
    descriptions = {
        "first sentence only": ours[:1],
        "first three sentences": ours[:3],
        "all sentences as one": [" ".join(ours)],
        "name only": [f"The {name}."],
        "modality and name": [f"A {_MODALITY[task]} showing the {name}."],
        "looks without the name": _LOOKS[task],
    }
    variants = {
        title: (f"task.prompts={json.dumps({name: texts})}", "clip.allow_untaught=true")
        for title, texts in descriptions.items()
    }
    return {**variants, "no distractors": ("task.distractors={}", "task.companions={}")}
