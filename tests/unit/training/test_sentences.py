from __future__ import annotations

import hashlib

import numpy as np
import pytest

from salip_ray.models.bundled.vocabulary import load_vocabulary, training_texts, unknown_words
from training.sentences import held_out_looks, held_out_sentences, train_sentence

CLASSES = load_vocabulary().classes
each_class = pytest.mark.parametrize("taught", CLASSES, ids=lambda taught: taught.label)


def test_no_description_belongs_to_two_classes():
    looks = [look for taught in CLASSES for look in taught.looks + held_out_looks(taught)]
    twice = {look for look in looks if looks.count(look) > 1}
    assert twice == {"a piece cut off along a straight line"}  # of a brain and of a fetal head


@each_class
def test_each_class_has_many_paraphrases(taught):
    rng = np.random.default_rng(1)
    sentences = {train_sentence(taught, rng) for _ in range(200)}
    assert len(sentences) > 100
    again = np.random.default_rng(1)
    assert {train_sentence(taught, again) for _ in range(200)} == sentences


@each_class
def test_held_out_sentences_are_never_trained_on(taught):
    rng = np.random.default_rng(2)
    trained = " | ".join([*training_texts(), *(train_sentence(taught, rng) for _ in range(300))])
    held = held_out_sentences(taught)
    looks = held_out_looks(taught)
    assert len(set(held)) == len(held) == 6
    assert not any(look in trained for look in looks)
    assert not any(sentence in trained for sentence in held)
    assert all(any(look in sentence for look in looks) for sentence in held)


def test_every_word_of_training_is_known():
    rng = np.random.default_rng(3)
    for taught in CLASSES:
        for _ in range(50):
            assert unknown_words(train_sentence(taught, rng)) == ()


def test_a_seed_draws_the_sentences_of_the_shipped_runs():
    """An order changed in the vocabulary would train another model from the same seed."""
    rng = np.random.default_rng(4)
    drawn = [train_sentence(taught, rng) for _ in range(20) for taught in CLASSES]
    held = [sentence for taught in CLASSES for sentence in held_out_sentences(taught)]
    digest = hashlib.sha256("\n".join(drawn + held).encode()).hexdigest()
    assert digest == "8e6c112d493a2ad60874e50932eaf7ec1d6ffd28e01a2e749beac363889e21ed"
