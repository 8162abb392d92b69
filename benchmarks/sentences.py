"""Measure how the wording of a task changes its labels.

Usage:
    python benchmarks/sentences.py [--images 20]

The task ``chest`` (lungs and heart) is labelled with other descriptions of its classes, on
phantoms of the tune bank. The table shows the Dice of each class and the change of their mean
against the shipped sentences, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import torch
import typer
from intervals import Column

from salip_ray import Cascade, load_config
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import make_phantom

_TASK = "chest"
_CLASSES = {spec.label: list(spec.sentences) for spec in load_config(_TASK).task.classes}
#: Descriptions without the name of the organ.
_LOOKS = {
    "lungs": ["A tall dark field crossed by faint ribs.", "A dark, air-filled region."],
    "heart": ["A bright rounded mass in the middle.", "A white shape that leans to one side."],
}
_DESCRIPTIONS = {
    "shipped sentences": _CLASSES,
    "first sentence only": {name: texts[:1] for name, texts in _CLASSES.items()},
    "all sentences as one": {name: [" ".join(texts)] for name, texts in _CLASSES.items()},
    "name only": {name: [f"the {name}"] for name in _CLASSES},
    "image and name": {name: [f"A chest X-ray showing the {name}."] for name in _CLASSES},
    "looks without the name": _LOOKS,
}
_ALLOW = "clip.allow_untaught=true"
VARIANTS = {
    **{
        title: (f"task.prompts={json.dumps(prompts)}", _ALLOW)
        for title, prompts in _DESCRIPTIONS.items()
    },
    "no distractors": ("task.distractors={}", "task.companions={}"),
    "cosine instead of softmax": ("retrieve.scoring=cosine",),
}


def main(images: Annotated[int, typer.Option(min=2)] = 20) -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(1)
    phantoms = [make_phantom("chest_xray", index, bank="tune") for index in range(images)]
    base: Column | None = None
    print(f"| {images} phantoms | {' | '.join(_CLASSES)} | mean | change, in points |")
    print("| --- |" + " --- |" * (len(_CLASSES) + 2))
    for title, overrides in VARIANTS.items():
        # Each class is scored against its whole organ, which layers would cut.
        whole = ("task.layered=false", *overrides)
        cascade = Cascade(load_config(_TASK, overrides=whole))
        scores = []
        for phantom in phantoms:
            masks = {mask.label: mask.mask for mask in cascade(phantom.image).masks}
            scores.append(
                [
                    dice(masks[name], phantom.mask(name)) if name in masks else 0.0
                    for name in _CLASSES
                ]
            )
        column = Column([float(np.mean(row)) for row in scores])
        base = base or column
        summary = column.summary(base)
        low, high = (100 * bound for bound in summary["change_interval"])
        cells = [f"{value:.3f}" for value in (*np.mean(scores, axis=0), summary["mean"])]
        print(
            f"| {title} | {' | '.join(cells)} | {100 * summary['change']:+.1f} "
            f"({low:+.1f} to {high:+.1f}) |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
