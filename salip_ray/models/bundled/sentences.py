"""Sentences about image regions: what the bundled CLIP's text tower is trained and measured on.

`train_sentence` draws from thousands of paraphrases per class; `held_out_sentences` lists ones
whose descriptions and sentence patterns never occur in training. Which words were learnt is a
matter of the former alone: `unknown_words` tells which words of a prompt were not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from salip_ray.models.bundled.concepts import BRAIN, CHEST, CONCEPTS, FETAL, Concept

LABELS: tuple[str, ...] = tuple(concept.label for concept in CONCEPTS)

_SCANS: dict[str, tuple[str, ...]] = {
    CHEST: (
        "a chest X-ray",
        "a frontal chest radiograph",
        "an X-ray image of the chest",
        "a thoracic X-ray",
        "a CXR",
        "a posteroanterior radiograph",
    ),
    BRAIN: (
        "a brain MRI",
        "a magnetic resonance image",
        "an MRI scan of the head",
        "an axial MR slice",
        "a T1-weighted MRI",
        "a head MRI",
    ),
    FETAL: (
        "an ultrasound image",
        "a fetal ultrasound",
        "a prenatal ultrasound scan",
        "a sonogram",
        "an obstetric ultrasound",
        "an echographic image in pregnancy",
    ),
}
_SCANS[""] = (*_SCANS[CHEST], *_SCANS[BRAIN], *_SCANS[FETAL], "a medical image", "a medical scan")

# {name}, {look} and {scan} are filled in; {is}, {appears} and {shows} agree with the name.
_PATTERNS = (
    "{name}",
    "{name}.",
    "{name} in {scan}",
    "{name}: {look}",
    "{name}, {look}",
    "{name} {is} {look}.",
    "{name} {appears} as {look}.",
    "{name} {appears} as {look} in {scan}.",
    "{name} {shows} up as {look}",
    "{name} {is} seen as {look} on {scan}.",
    "in {scan}, {name} {is} {look}.",
    "on {scan} {name} {appears} like {look}",
    "an image of {name}",
    "a picture of {name}, {look}.",
    "a crop that shows {name}",
    "a crop of {scan} with {name}, {look}",
    "{scan} showing {name}",
    "{scan} showing {name} as {look}.",
    "{look}",
    "{look} in {scan}",
    "{look}: {name}",
    "this is {name}, {look}.",
    "this region of {scan} is {look}, typical of {name}",
    "{name} cut out of {scan}, the rest black",
    "{look}, marked in {scan}",
    "{name} outlined in red",
    "{name} inside a red box",
    "{name} {is} {look} and {other}.",
    "{name}, {look}, {other}",
    "{look}; {other}",
)
_HELD_PATTERNS = (
    "{name} with the look of {held}",
    "what we see here on {scan} is {name}, shown as {held}.",
    "{held}, as {name} would be in {scan}",
)

# English that every sentence may hold and that says nothing about the image.
_GLUE = frozenset(
    re.findall(
        r"\w+",
        "about above across after against along also among another around because been before "
        "behind being below beneath beside besides between both cannot could does down during each "
        "either every from have having here inside into itself like look looking many might more "
        "most much near only onto other outside over same seen several should some such than that "
        "their them then there these they this those through toward towards under until upon very "
        "were what when where whether which while will with within without would your",
    )
)

# Words a prompt may well contain and that carry no class: sprinkled over training sentences.
_FILLERS = (
    "clearly visible",
    "typically",
    "usually",
    "often",
    "commonly",
    "distinct",
    "visible",
    "medical image",
    "anatomical structure",
    "appearance",
    "region of interest",
    "well defined",
    "characteristic",
    "in this picture",
    "photo",
    "grayscale",
    "that can be seen",
    "located",
    "contrast",
    "shape",
    "texture",
    "boundary",
    "organ",
    "tissue",
    "intensity",
)


def train_sentence(concept: Concept, rng: np.random.Generator) -> str:
    """One random sentence of the training wordings; the same `rng` state gives the same one."""
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))]
    names = concept.names + concept.plurals
    which = int(rng.integers(len(names)))
    first, second = rng.choice(len(concept.looks), 2, replace=False)
    scans = _SCANS[concept.kind]
    sentence = _fill(
        pattern,
        name=names[which],
        plural=which >= len(concept.names),
        look=concept.looks[first],
        other=concept.looks[second],
        scan=scans[rng.integers(len(scans))],
    )
    if rng.random() < 0.2:
        filler = _FILLERS[rng.integers(len(_FILLERS))]
        sentence = f"{filler}, {sentence}" if rng.random() < 0.4 else f"{sentence}, {filler}"
    return sentence


def held_out_sentences(concept: Concept, count: int = 6) -> tuple[str, ...]:
    """`count` sentences that are never trained on, always the same."""
    scans = _SCANS[concept.kind][::-1]
    return tuple(
        _fill(
            _HELD_PATTERNS[index % len(_HELD_PATTERNS)],
            name=concept.names[index % len(concept.names)],
            plural=False,
            held=concept.held[index % len(concept.held)],
            scan=scans[index % len(scans)],
        )
        for index in range(count)
    )


def training_texts() -> Iterator[str]:
    """Texts that together hold every word of every training sentence."""
    for concept in CONCEPTS:
        yield from concept.names + concept.plurals + concept.looks
    for scans in _SCANS.values():
        yield from scans
    yield from _FILLERS
    for pattern in _PATTERNS:
        for plural in (False, True):
            yield _fill(pattern, name="", plural=plural, look="", other="", scan="")


@cache
def known_words() -> frozenset[str]:
    """Every word, in lower case, that occurs in training sentences."""
    return frozenset(word for text in training_texts() for word in _words(text))


def unknown_words(sentence: str) -> tuple[str, ...]:
    """Words of `sentence` that the bundled CLIP never learnt, in order, each once.

    Plurals and possessives of known words count as known; words of three letters or fewer and
    other words of mere grammar are passed over.
    """
    unknown = (
        word
        for word in _words(sentence)
        if len(word) > 3 and word not in _GLUE and not _is_known(word)
    )
    return tuple(dict.fromkeys(unknown))


def _is_known(word: str) -> bool:
    return any(form in known_words() for form in _forms(word))


def _forms(word: str) -> Iterable[str]:
    yield word
    for ending in ("'s", "es", "s"):
        if word.endswith(ending):
            yield word.removesuffix(ending)
    yield word + "s"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())


def _fill(pattern: str, *, plural: bool, **parts: str) -> str:
    verbs = (
        {"is": "are", "appears": "appear", "shows": "show"}
        if plural
        else {"is": "is", "appears": "appears", "shows": "shows"}
    )
    return pattern.format(**parts, **verbs)
