"""Instances of a class, and alternatives to its candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.cleaning import filled, without_small_parts
from salip_ray.cascade.compose import compose
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.errors import ImageError
from salip_ray.schema import ClipScores, Selection
from tests.unit.cascade.conftest import TASK, part


def test_the_masks_that_were_united_are_the_instances(cascade, picture, references):
    for mask in cascade(picture(180, 256), references=references).masks:
        instances = mask.instances
        assert len(instances) == (2 if mask.label == "lung" else 0), (mask.label, mask.method)
        if instances:
            np.testing.assert_array_equal(np.any([i.mask for i in instances], axis=0), mask.mask)
            ids = () if mask.method == "gt_sam" else mask.candidate_ids
            assert tuple(i.candidate_id for i in instances if i.candidate_id is not None) == ids
            ious = [i.sam.predicted_iou for i in instances]
            assert mask.sam.predicted_iou == pytest.approx(np.mean(ious))
            assert all((i.confidence is not None) == (mask.method == "cascade") for i in instances)


def test_an_empty_refined_mask_is_no_instance(sam, clip, configure, picture):
    class HalfEmpty:
        """Refine the first box to nothing, and each other one to its first pixel."""

        def __call__(self, embedding, *, boxes, working_size, original_size):
            masks = np.zeros((len(boxes), *original_size), bool)
            masks[1:, 0, 0] = True
            return masks

    def label(k):
        config = configure(task={"prompts": {"lung": ["a lobe"]}, "top_k": k})
        (mask,) = Cascade(config, sam=sam, clip=clip, refine=HalfEmpty())(picture(90, 128)).masks
        return mask

    assert label(2).instances == ()
    assert len(label(3).instances) == 2


def test_instances_are_cleaned_like_the_mask(sam, clip, configure, picture):
    config = configure(task=TASK, refine={"fill_holes": True, "min_part": 0.5})
    for mask in Cascade(config, sam=sam, clip=clip)(picture(180, 256)).masks:
        for instance in mask.instances:
            np.testing.assert_array_equal(filled(instance.mask), instance.mask)
            np.testing.assert_array_equal(without_small_parts(instance.mask, 0.5), instance.mask)
        if mask.instances:
            union = np.any([instance.mask for instance in mask.instances], axis=0)
            np.testing.assert_array_equal(union, mask.mask)


def test_objects_whose_masks_do_not_fit_in_memory_are_refused(sam, configure):
    config = configure(
        task={"top_k": "all"}, retrieve={"min_score": 1}, image={"max_bytes": 20_000}
    )
    parts = [part(number, slice(9 * number, 9 * number + 8), 0.9) for number in range(3)]
    given = {
        "candidates": parts,
        "n_proposed": 3,
        "embedding": torch.zeros(1, 32, 16, 16),
        "working_size": (40, 60),
        "original_size": (80, 120),
    }
    of = [Selection("organ", 1, number, number, ClipScores(20.0)) for number in range(3)]
    with pytest.raises(ImageError, match=r"3 objects of 'organ' in 120 x 80 pixels need 28,800"):
        compose(config, SamRefiner(sam, config), selections=of, **given)
    labels = compose(config, SamRefiner(sam, config), selections=of[:2], **given)
    assert [outcome.outcome for outcome in labels.outcomes] == ["labelled"]


def test_alternatives_exchange_one_retrieved_candidate_and_change_no_label(
    sam, clip, configure, picture
):
    config = configure(task=TASK, retrieve={"runners_up": 2})
    cascade, image = Cascade(config, sam=sam, clip=clip), picture(90, 128)
    proposals = cascade.propose(image)
    selections = cascade.retrieve(image, proposals.candidates)
    given = {
        "candidates": proposals.candidates,
        "n_proposed": proposals.n_proposed,
        "embedding": proposals.embedding,
        "selections": selections,
        "working_size": (90, 128),
        "original_size": (90, 128),
    }
    plain = compose(config, cascade.refine, **given)
    result = compose(config, cascade.refine, **given, alternatives=True)
    assert plain.alternatives == ()
    assert result.outcomes == plain.outcomes
    for one, other in zip(result.masks, plain.masks, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        assert (one.sam, one.confidence) == (other.sam, other.confidence)
    for label, k in (("lung", 2), ("heart", 1)):
        chosen = tuple(s.candidate_id for s in selections if s.label == label)
        runners = [r.candidate_id for s in selections if s.label == label for r in s.runners_up]
        first, *others = [item for item in result.alternatives if item.label == label]
        assert (first.candidate_ids, len(chosen), len(runners)) == (chosen, k, 2)
        assert [item.candidate_ids for item in others] == [
            (*chosen[:position], runner, *chosen[position + 1 :])
            for position in range(k)
            for runner in runners
        ]
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    last = result.alternatives[-1]
    expected, _, _ = predictor.predict(box=np.array(last.prompt_boxes[0]), multimask_output=False)
    np.testing.assert_array_equal(last.mask, expected[0])


def test_alternatives_of_a_union_are_no_duplicates(sam, clip, configure, picture):
    """With `max_overlap` 0, no runner-up is united with a candidate that it touches."""
    config = configure(
        task={"prompts": {"lung": ["a lobe"]}, "top_k": 2},
        retrieve={"runners_up": 8, "max_overlap": 0.0},
    )
    cascade, image = Cascade(config, sam=sam, clip=clip), picture(90, 128)
    proposals = cascade.propose(image)
    result = compose(
        config,
        cascade.refine,
        candidates=proposals.candidates,
        n_proposed=proposals.n_proposed,
        embedding=proposals.embedding,
        selections=cascade.retrieve(image, proposals.candidates),
        working_size=(90, 128),
        original_size=(90, 128),
        alternatives=True,
    )
    masks = {candidate.id: candidate.mask for candidate in proposals.candidates}
    pairs = [item.candidate_ids for item in result.alternatives if len(item.candidate_ids) == 2]
    assert pairs
    assert not any((masks[one] & masks[other]).any() for one, other in pairs)
