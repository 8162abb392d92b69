"""Classes without a mask: the reason of the row."""

from __future__ import annotations

import numpy as np
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.compose import compose
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.schema import Candidate, ClipScores, Selection
from tests.unit.cascade.conftest import ALL, TASK, of

SOFTMAX = {"scoring": "softmax", "logit_scale": 5.0}


def test_without_a_candidate_above_the_limit_the_row_says_so(sam, clip, configure, picture):
    config = configure(
        task={"prompts": {"lung": ["a lobe"]}, "top_k": "all"}, retrieve={"min_score": 101.0}
    )
    result = Cascade(config, sam=sam, clip=clip)(picture(90, 128))
    (outcome,) = result.outcomes
    assert outcome.reason == (
        f"none of the {len(result.candidates)} candidates reaches retrieve.min_score 101"
    )
    every = configure(
        task={"prompts": {"lung": ["a lobe"]}, "top_k": "all"}, retrieve={"min_score": -101.0}
    )
    result = Cascade(every, sam=sam, clip=clip)(picture(90, 128))
    assert len(result.selections) == len(result.candidates) > 2
    assert len(result.masks[0].instances) > 2


def test_trap_2_no_candidate_is_an_outcome_with_a_reason(sam, clip, configure, picture):
    config = configure(task=TASK, propose={"pred_iou_thresh": 1.0}, run={"modes": ALL})
    reference = {"heart": np.ones((90, 128), dtype=bool)}
    result = Cascade(config, sam=sam, clip=clip)(picture(90, 128), references=reference)
    assert [(o.label, o.outcome, o.reason) for o in result.outcomes] == [
        ("lung", "empty", "SAM proposed no candidate"),
        ("heart", "empty", "SAM proposed no candidate"),
    ]
    assert (result.candidates, result.selections) == ((), ())
    assert [(m.method, m.label) for m in result.masks] == [("gt_sam", "heart")]


def test_trap_2_one_candidate_is_enough(sam, clip, configure, picture):
    image = picture(90, 128)
    scores = {c.predicted_iou for c in Cascade(configure(), sam=sam, clip=clip)(image).candidates}
    config = configure(task=TASK, propose={"pred_iou_thresh": sorted(scores)[-2]})
    result = Cascade(config, sam=sam, clip=clip)(image)
    assert len(result.candidates) == 1
    assert [len(mask.candidate_ids) for mask in result.masks] == [1, 1]
    assert result.masks[0].clip.margin is None


def test_candidates_outside_the_area_limits_are_counted_in_the_reason(
    sam, clip, configure, picture
):
    config = configure(task={"max_area": 2.0})
    result = Cascade(config, sam=sam, clip=clip)(picture(90, 128))
    assert result.n_proposed > 0
    assert result.outcomes[0].reason == (
        f"none of the {result.n_proposed} candidates lies within the area limits"
    )


def test_an_empty_refined_mask_is_an_outcome_with_a_reason(sam, configure):
    class Nothing(SamRefiner):
        def __call__(self, *args, **kwargs):
            refined = super().__call__(*args, **kwargs)
            refined.masks[:] = False
            return refined

    config = configure(run={"modes": ALL})
    whole = np.ones((90, 128), dtype=bool)
    candidate = Candidate(7, whole, whole.size, (0, 0, 127, 89), 0.9, 0.9, (0, 0), (0, 0, 127, 89))
    labels = compose(
        config,
        Nothing(sam, config),
        candidates=[candidate],
        n_proposed=9,
        embedding=torch.zeros(1, 32, 16, 16),
        selections=[Selection("organ", 1, 7, 0, ClipScores(20.0))],
        working_size=(90, 128),
        original_size=(90, 128),
        references={"organ": whole},
    )
    assert [(o.outcome, o.reason) for o in labels.outcomes] == [
        ("empty", "SAM's mask from the retrieved boxes is empty")
    ]
    assert {mask.method for mask in labels.masks} == {"unprompted_confident", "unprompted_largest"}


def test_a_class_that_is_not_present_is_empty_and_the_row_says_why(sam, clip, configure, picture):
    task = {**TASK, "distractors": {"foot": ["five long bones"]}}
    image = picture(180, 256)
    sure = Cascade(configure(task=task, retrieve=SOFTMAX), sam=sam, clip=clip)(image)
    assert [outcome.outcome for outcome in sure.outcomes] == ["labelled", "labelled"]
    for mask in sure.masks:
        best = next(s for s in sure.selections if s.label == mask.label)
        assert mask.clip == best.clip

    presence = {s.label: s.clip.presence for s in sure.selections}
    here, absent = sorted(presence, key=lambda label: -presence[label])
    retrieve = {**SOFTMAX, "min_presence": sum(presence.values()) / 2}
    result = Cascade(configure(task=task, retrieve=retrieve), sam=sam, clip=clip)(image)
    assert result.selections == sure.selections
    assert list(of(result, "cascade")) == [here]
    outcomes = {outcome.label: outcome for outcome in result.outcomes}
    assert outcomes[here].outcome == "labelled"
    assert outcomes[absent].outcome == "empty"
    assert outcomes[absent].reason == (
        f"its presence {presence[absent]:.3f} is below retrieve.min_presence "
        f"{retrieve['min_presence']:g}"
    )


def test_label_below_min_confidence_is_empty_and_the_row_says_why(sam, clip, configure, picture):
    shared = {"distractors": {"foot": ["five long bones"]}, "companions": {"lung": ["foot"]}}
    task = {**TASK, **shared, "signs": {"lung": ["foot"]}}
    image = picture(180, 256)
    sure = Cascade(configure(task=task, retrieve=SOFTMAX), sam=sam, clip=clip)(image)
    evidence = {s.label: s.clip.evidence for s in sure.selections}
    assert evidence["lung"] is not None
    assert [evidence[label] for label in evidence if label != "lung"] == [None]
    known = {label: mask.confidence for label, mask in of(sure, "cascade").items()}
    likely, unlikely = sorted(known, key=lambda label: -known[label])
    limit = (known[likely] + known[unlikely]) / 2
    config = configure(task={**task, "min_confidence": limit}, retrieve=SOFTMAX)
    result = Cascade(config, sam=sam, clip=clip)(image)
    assert list(of(result, "cascade")) == [likely]
    outcomes = {outcome.label: outcome for outcome in result.outcomes}
    assert outcomes[likely].outcome == "labelled"
    assert (outcomes[unlikely].outcome, outcomes[unlikely].reason) == (
        "empty",
        f"its confidence {known[unlikely]:.3f} is below task.min_confidence {limit:g}",
    )
