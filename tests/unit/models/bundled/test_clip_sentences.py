from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from salip_ray.models.bundled.concepts import CONCEPTS
from salip_ray.models.bundled.phantoms import KINDS, TARGETS
from salip_ray.models.bundled.sentences import (
    LABELS,
    held_out_sentences,
    known_words,
    train_sentence,
    training_texts,
    unknown_words,
)

PROMPTS = Path(__file__).parents[4] / "configs" / "prompts"


def test_there_are_enough_classes_and_they_are_distinct():
    assert len(LABELS) >= 24
    assert len(set(LABELS)) == len(LABELS)
    assert {concept.kind for concept in CONCEPTS} <= {*KINDS, ""}
    assert set(TARGETS.values()) <= set(LABELS)


def test_no_wording_belongs_to_two_classes():
    looks = [look for concept in CONCEPTS for look in concept.looks + concept.held]
    twice = {look for look in looks if looks.count(look) > 1}
    allowed = {"a piece cut off along a straight line"}  # of a brain as of a fetal head
    assert twice <= allowed


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.label)
def test_each_class_has_many_paraphrases(concept):
    rng = np.random.default_rng(1)
    sentences = {train_sentence(concept, rng) for _ in range(200)}
    assert len(sentences) > 100
    again = np.random.default_rng(1)
    assert {train_sentence(concept, again) for _ in range(200)} == sentences


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.label)
def test_held_out_sentences_are_never_trained_on(concept):
    rng = np.random.default_rng(2)
    trained = " | ".join([*training_texts(), *(train_sentence(concept, rng) for _ in range(300))])
    held = held_out_sentences(concept)
    assert len(set(held)) == len(held) == 6
    assert not any(look in trained for look in concept.held)
    assert not any(sentence in trained for sentence in held)
    assert all(any(look in sentence for look in concept.held) for sentence in held)


def test_every_word_of_training_is_known():
    rng = np.random.default_rng(3)
    for concept in CONCEPTS:
        for _ in range(50):
            assert unknown_words(train_sentence(concept, rng)) == ()


def test_words_never_learnt_are_told():
    assert unknown_words("The liver is a large reddish organ, the liver.") == ("liver", "reddish")
    assert unknown_words("the brain's two hemispheres") == ()
    assert unknown_words("") == ()
    assert {"lung", "brain", "fetal", "heart"} <= known_words()


@pytest.mark.parametrize(
    ("file", "label"), [("lungs", "lungs"), ("brain", "brain"), ("fetal_head", "fetal head")]
)
def test_shipped_prompts_are_salip_files_of_known_words(file, label):
    prompts = json.loads((PROMPTS / f"{file}.json").read_text(encoding="utf-8"))
    assert list(prompts) == [label]
    sentences = prompts[label]
    assert len(set(sentences)) == len(sentences) >= 4
    for sentence in sentences:
        assert unknown_words(sentence) == ()
        assert len(sentence.split()) >= 8  # descriptions, not names
