"""Which classes of a task the bundled CLIP was taught.

CLIP compares a crop with sentences. A sentence about an organ that the bundled CLIP never saw gives
a confident answer that means nothing, so a class counts as taught only if its label or its
sentences use names that occurred in training.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from salip_ray.models.bundled.vocabulary import load_vocabulary, unknown_words

_ARTICLES = {"a", "an", "the"}


def taught_as(label: str, sentences: Collection[str]) -> frozenset[str]:
    """Return the labels of the taught classes that a class of a task stands for.

    The label decides if it is a taught name ("fetal_head", "left lung") and one sentence or more
    names that class or consists of taught words. Any other label needs sentences that all consist
    of taught words and name a taught class.

    Args:
        label: name of the class in the task.
        sentences: its descriptions.

    Returns:
        Labels of the vocabulary; empty if the class was not taught.
    """
    return _taught_as(label, tuple(sentences))


@cache
def _taught_as(label: str, sentences: tuple[str, ...]) -> frozenset[str]:
    own = _labels_by_name().get(_bare(label))
    if own is not None:
        known = any(own in _named(text) or not unknown_words(text) for text in sentences)
        return frozenset({own}) if known else frozenset()
    named = [frozenset() if unknown_words(text) else _named(text) for text in sentences]
    return frozenset().union(*named) if all(named) else frozenset()


def same_kind(labels: Collection[str]) -> frozenset[str]:
    """Return the taught classes that are seen in the same kind of image as ``labels``."""
    classes = load_vocabulary().classes
    kinds = {taught.kind for taught in classes if taught.label in labels}
    return frozenset(taught.label for taught in classes if taught.kind in kinds)


def _named(sentence: str) -> frozenset[str]:
    """Return the labels of the taught classes that a sentence names."""
    words = f" {_bare(sentence)} "
    return frozenset(label for name, label in _labels_by_name().items() if f" {name} " in words)


@cache
def _labels_by_name() -> dict[str, str]:
    return {
        _bare(name): taught.label
        for taught in load_vocabulary().classes
        for name in (taught.label, *taught.names, *taught.plurals)
    }


def _bare(text: str) -> str:
    words = re.sub(r"[_\W]+", " ", text.lower()).split()
    return " ".join(word for word in words if word not in _ARTICLES)
