from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from salip_ray.models.bundled.phantoms import KINDS, TARGETS
from salip_ray.models.bundled.vocabulary import (
    ANY_KIND,
    known_classes,
    known_words,
    load_vocabulary,
    unknown_words,
)

PROMPTS = Path(__file__).parents[4] / "configs" / "prompts"


def test_classes_are_distinct_and_cover_the_organs_of_all_phantoms():
    classes = known_classes()
    assert len(classes) == len(set(classes)) == 36
    assert {taught.kind for taught in load_vocabulary().classes} == {*KINDS, ANY_KIND}
    assert set(TARGETS.values()) <= set(classes)


def test_unknown_words_are_listed_once_in_order():
    assert unknown_words("The liver is a large reddish organ, the liver.") == ("liver", "reddish")
    assert unknown_words("the brain's two hemispheres") == ()
    assert unknown_words("") == ()
    assert {"lung", "brain", "fetal", "heart"} <= known_words()


@pytest.mark.parametrize(
    ("file", "label"), [("lungs", "lungs"), ("brain", "brain"), ("fetal_head", "fetal head")]
)
def test_shipped_prompts_have_one_class_and_known_words_only(file, label):
    prompts = json.loads((PROMPTS / f"{file}.json").read_text(encoding="utf-8"))
    assert list(prompts) == [label]
    sentences = prompts[label]
    assert len(set(sentences)) == len(sentences) >= 4
    for sentence in sentences:
        assert unknown_words(sentence) == ()
        assert len(sentence.split()) >= 8  # descriptions, not names


def test_the_vocabulary_loads_without_torch():
    code = (
        "import sys; from salip_ray.models.bundled.vocabulary import known_classes; "
        "assert 'lungs' in known_classes(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
