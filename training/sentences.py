"""Sentences about image regions that train and measure the text tower of the bundled CLIP.

`train_sentence` draws from thousands of paraphrases per class. `held_out_sentences` lists sentences
whose descriptions and patterns never occur in training.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.models.bundled.vocabulary import (
    TaughtClass,
    fill_pattern,
    known_classes,
    load_vocabulary,
)

LABELS: tuple[str, ...] = known_classes()
_FILLED = 0.2  # share of sentences that get a filler
_FILLER_FIRST = 0.4  # share of those that begin with it


def train_sentence(taught: TaughtClass, rng: np.random.Generator) -> str:
    """Return a random training sentence; the same state of `rng` gives the same one."""
    vocabulary = load_vocabulary()
    pattern = vocabulary.patterns[rng.integers(len(vocabulary.patterns))]
    names = taught.names + taught.plurals
    index = int(rng.integers(len(names)))
    first, second = rng.choice(len(taught.looks), 2, replace=False)
    scans = vocabulary.scans[taught.kind]
    sentence = fill_pattern(
        pattern,
        plural=index >= len(taught.names),
        name=names[index],
        look=taught.looks[first],
        other=taught.looks[second],
        scan=scans[rng.integers(len(scans))],
    )
    if rng.random() < _FILLED:
        filler = vocabulary.fillers[rng.integers(len(vocabulary.fillers))]
        at_front = rng.random() < _FILLER_FIRST
        sentence = f"{filler}, {sentence}" if at_front else f"{sentence}, {filler}"
    return sentence


def held_out_looks(taught: TaughtClass) -> tuple[str, ...]:
    """Return the descriptions of a class that are never trained on."""
    return tuple(_held_out()["looks"][taught.label])


def held_out_sentences(taught: TaughtClass, count: int = 6) -> tuple[str, ...]:
    """Return `count` sentences that are never trained on, always the same."""
    patterns = _held_out()["patterns"]
    looks = held_out_looks(taught)
    scans = load_vocabulary().scans[taught.kind][::-1]
    return tuple(
        fill_pattern(
            patterns[index % len(patterns)],
            plural=False,
            name=taught.names[index % len(taught.names)],
            look=looks[index % len(looks)],
            scan=scans[index % len(scans)],
        )
        for index in range(count)
    )


@cache
def _held_out() -> dict[str, Any]:
    text = Path(__file__).with_name("held_out.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
