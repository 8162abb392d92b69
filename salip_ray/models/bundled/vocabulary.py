"""The classes, sentences and words that the bundled CLIP was taught.

`vocabulary.json` holds them. A class is what one crop can show: a structure of a phantom, or a
mistake that a candidate can be (a fragment of the organ, the organ with its neighbours,
background). The order of the lists is part of the training, as a random draw is an index. Wordings
that are held out for evaluation are in `training/held_out.json`.

This module imports no torch, so that a configuration can be checked before a model is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

ANY_KIND = "any"  #: kind of a class that every kind of phantom shows


@dataclass(frozen=True, slots=True)
class TaughtClass:
    """One class of image regions.

    Attributes:
        label: unique name, in lower case.
        kind: kind of phantom that shows the class (see `phantoms.KINDS`), or `ANY_KIND`.
        names: names in the singular, with article.
        plurals: names that take a plural verb.
        looks: descriptions of the region, as noun phrases.
    """

    label: str
    kind: str
    names: tuple[str, ...]
    plurals: tuple[str, ...]
    looks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All that training sentences are composed of.

    Attributes:
        classes: in the order of the training labels.
        scans: names of an image, by kind of phantom; under `ANY_KIND`, those of all kinds.
        patterns: sentence patterns for `fill_pattern`.
        fillers: words without a class that are added to some sentences.
        grammar: English words that any sentence may contain and that say nothing about an image.
    """

    classes: tuple[TaughtClass, ...]
    scans: dict[str, tuple[str, ...]]
    patterns: tuple[str, ...]
    fillers: tuple[str, ...]
    grammar: frozenset[str]


@cache
def load_vocabulary() -> Vocabulary:
    """Return the vocabulary of the shipped weights."""
    text = resources.files(__package__).joinpath("vocabulary.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    scans = {kind: tuple(names) for kind, names in data["scans"].items()}
    scans[ANY_KIND] = tuple(name for names in scans.values() for name in names)
    return Vocabulary(
        classes=tuple(
            TaughtClass(
                label=entry["label"],
                kind=entry["kind"],
                names=tuple(entry["names"]),
                plurals=tuple(entry.get("plurals", ())),
                looks=tuple(entry["looks"]),
            )
            for entry in data["classes"]
        ),
        scans=scans,
        patterns=tuple(data["patterns"]),
        fillers=tuple(data["fillers"]),
        grammar=frozenset(data["grammar"].split()),
    )


def known_classes() -> tuple[str, ...]:
    """Return the labels of the classes that the bundled CLIP was taught, such as "fetal head"."""
    return tuple(taught.label for taught in load_vocabulary().classes)


def _bare(name: str) -> str:
    words = re.sub(r"[_\W]+", " ", name.lower()).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def fill_pattern(pattern: str, *, plural: bool, **parts: str) -> str:
    """Return a sentence: `pattern` with `parts` filled in and verbs that agree with the name.

    Fields are {name}, {look}, {other} (a second look), {scan}, and the verbs {is}, {appears} and
    {shows}.
    """
    verbs = (
        {"is": "are", "appears": "appear", "shows": "show"}
        if plural
        else {"is": "is", "appears": "appears", "shows": "shows"}
    )
    return pattern.format(**parts, **verbs)


def training_texts() -> Iterator[str]:
    """Yield texts that together contain every word of every training sentence."""
    vocabulary = load_vocabulary()
    for taught in vocabulary.classes:
        yield from taught.names + taught.plurals + taught.looks
    for scans in vocabulary.scans.values():
        yield from scans
    yield from vocabulary.fillers
    for pattern in vocabulary.patterns:
        for plural in (False, True):
            yield fill_pattern(pattern, plural=plural, name="", look="", other="", scan="")


@cache
def known_words() -> frozenset[str]:
    """Return every word, in lower case, that occurs in training sentences."""
    return frozenset(word for text in training_texts() for word in _words(text))


def unknown_words(sentence: str) -> tuple[str, ...]:
    """Return the words of `sentence` that the bundled CLIP was not taught, in order, each once.

    Plurals and possessives of known words are known. Words of three letters or fewer and other
    words of mere grammar are ignored.
    """
    grammar = load_vocabulary().grammar
    unknown = (
        word
        for word in _words(sentence)
        if len(word) > 3 and word not in grammar and not _is_known(word)
    )
    return tuple(dict.fromkeys(unknown))


def _is_known(word: str) -> bool:
    return any(form in known_words() for form in _forms(word))


def _forms(word: str) -> Iterator[str]:
    yield word
    for ending in ("'s", "es", "s"):
        if word.endswith(ending):
            yield word.removesuffix(ending)
    yield word + "s"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())
