"""The whole cascade on one image, and its baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from salip_ray.cascade.baselines import unprompted
from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.cleaning import filled, without_small_parts
from salip_ray.cascade.compose import compose
from salip_ray.cascade.geometry import to_original
from salip_ray.cascade.given import given_candidates
from salip_ray.cascade.prompts import Prompt
from salip_ray.cascade.refiner import SamRefiner, refine
from salip_ray.config import TaskConfig
from salip_ray.errors import ConfigError, ImageError, InputError
from salip_ray.models.devices import resolve_device
from salip_ray.schema import Candidate, ClipScores, Points, Selection

TASK = {"prompts": {"lung": ["a lobe"], "heart": ["a blob", "a ball"]}, "top_k": {"lung": 2}}
ALL = ["cascade", "unprompted", "gt_sam"]


def of(result, method):
    return {mask.label: mask for mask in result.masks if mask.method == method}


@pytest.fixture
def cascade(sam, clip, configure):
    return Cascade(configure(task=TASK, run={"modes": ALL}), sam=sam, clip=clip)


@pytest.fixture
def references():
    lung, heart = np.zeros((2, 180, 256), dtype=bool)
    lung[20:100, 20:80] = lung[30:110, 160:230] = heart[100:160, 100:150] = True
    return {"lung": lung, "heart": heart}


def test_every_method_labels_every_class(cascade, picture, references):
    result = cascade(picture(180, 256), references=references)
    assert (result.height, result.width) == (180, 256)
    assert [outcome.outcome for outcome in result.outcomes] == ["labelled", "labelled"]
    for method in ("cascade", "unprompted_confident", "unprompted_largest", "gt_sam"):
        for class_id, label in enumerate(TASK["prompts"], start=1):
            mask = of(result, method)[label]
            assert mask.class_id == class_id
            assert mask.mask.shape == (180, 256)
            assert mask.mask.dtype == np.bool_
            assert mask.mask.any()
    assert len(result.masks) == 8


def test_trap_4_the_union_is_per_class_over_k(cascade, sam, picture, references):
    """Each class's mask is the union of the official predictor's masks from its own k boxes."""
    image = picture(90, 128)
    result = cascade(image, references={})
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    boxes = {candidate.id: candidate.box for candidate in result.candidates}
    for label, k in (("lung", 2), ("heart", 1)):
        chosen = [s for s in result.selections if s.label == label]
        assert len(chosen) == k
        expected = np.zeros((90, 128), dtype=bool)
        for selection in chosen:
            box = np.array(boxes[selection.candidate_id])
            expected |= predictor.predict(box=box, multimask_output=False)[0][0]
        mask = of(result, "cascade")[label]
        np.testing.assert_array_equal(mask.mask, expected)
        assert mask.candidate_ids == tuple(s.candidate_id for s in chosen)
        assert mask.prompt_boxes == tuple(boxes[s.candidate_id] for s in chosen)
        assert mask.clip == chosen[0].clip


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


def test_each_given_box_is_an_instance(sam, configure, picture):
    config = configure(task=TASK, propose={"model": "prompts"})
    refiner, image = SamRefiner(sam, config), picture(90, 128)
    boxes = [("lung", (5, 5, 40, 60)), ("heart", (50, 30, 70, 60)), ("lung", (80, 5, 120, 60))]
    boxes.append(("lung", (6, 5, 40, 60)))  # more than top_k, and like the first
    sizes = {"working_size": (90, 128), "original_size": (90, 128)}
    candidates, selections = given_candidates(boxes, config.task.classes, **sizes)
    embedding = refiner.encode(image)
    given = {"candidates": candidates, "n_proposed": 4, "selections": selections}
    lung, heart = compose(config, refiner, embedding=embedding, **given, **sizes).masks
    assert [(i.candidate_id, i.confidence) for i in lung.instances] == [
        *((0, None), (2, None), (3, None)),
    ]
    wanted = refiner(embedding, boxes=[boxes[n][1] for n in (0, 2, 3)], **sizes).masks
    np.testing.assert_array_equal([i.mask for i in lung.instances], wanted)
    assert heart.instances == ()


def test_given_points_have_the_masks_of_the_official_predictor(sam, configure, picture):
    config = configure(task=TASK, propose={"model": "prompts"})
    refiner, image = SamRefiner(sam, config), picture(90, 128)
    clicks = [
        ("lung", Points(((20, 30),))),
        ("heart", Points(((60, 45), (64, 50)), ((5, 5),))),
    ]
    sizes = {"working_size": (90, 128), "original_size": (90, 128)}
    candidates, selections = given_candidates(clicks, config.task.classes, **sizes)
    given = {"candidates": candidates, "n_proposed": 2, "selections": selections}
    masks = compose(config, refiner, embedding=refiner.encode(image), **given, **sizes).masks
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    three, ious, _ = predictor.predict(np.array([[20, 30]]), np.array([1]), multimask_output=True)
    one, iou, _ = predictor.predict(
        np.array([[60, 45], [64, 50], [5, 5]]), np.array([1, 1, 0]), multimask_output=False
    )
    for mask, expected, score in zip(
        masks, (three[ious.argmax()], one[0]), (ious.max(), iou[0]), strict=True
    ):
        np.testing.assert_array_equal(mask.mask, expected)
        assert mask.sam.predicted_iou == pytest.approx(float(score), abs=1e-5)
        assert (mask.prompt_boxes, mask.confidence) == ((), None)


def test_given_points_move_with_the_image(sam, configure, picture):
    points = Points(((0, 0), (255, 179)), ((127.5, 89.5),))
    (candidate,), _ = given_candidates(
        [("lung", points)],
        configure(task=TASK).task.classes,
        working_size=(90, 128),
        original_size=(180, 256),
    )
    assert candidate.points == Points(((0.0, 0.0), (127.0, 89.0)), ((63.5, 44.5),))
    assert candidate.box == (0.0, 0.0, 127.0, 89.0)
    assert np.argwhere(candidate.mask).tolist() == [[0, 0], [89, 127]]


def test_points_need_sam(configure):
    class Boxes:
        name = "mine"

    sizes = {"working_size": (9, 9), "original_size": (9, 9)}
    with pytest.raises(ConfigError, match=r"points, .* need SAM as the refiner, found mine"):
        refine(Boxes(), None, [Prompt(None, ((1, 1),))], configure().refine, **sizes)


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


def test_trap_11_the_image_is_encoded_once_per_view(sam, clip, configure, picture, monkeypatch):
    calls = []
    encoder = sam.image_encoder.forward
    monkeypatch.setattr(sam.image_encoder, "forward", lambda x: calls.append(len(x)) or encoder(x))
    config = configure(propose={"crop_n_layers": 1}, run={"modes": ALL})
    Cascade(config, sam=sam, clip=clip)(picture(90, 128), references={})
    assert calls == [5]  # one batch: the full view and four crops; no sixth for the box prompts


def test_a_refiner_with_other_weights_encodes_again(
    sam, other_sam, clip, configure, picture, monkeypatch
):
    """`refine.sam` answers as the official predictor does with those weights."""
    monkeypatch.setattr("salip_ray.cascade.loading.load_sam", lambda *_, **__: other_sam)
    image = picture(90, 128)
    config = configure(refine={"sam": {"model": "bundled"}})
    mask = Cascade(config, sam=sam, clip=clip)(image).masks[0]
    predictor = SamPredictor(other_sam)
    predictor.set_image(image)
    expected, _, _ = predictor.predict(box=np.array(mask.prompt_boxes[0]), multimask_output=False)
    np.testing.assert_array_equal(mask.mask, expected[0])


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


def part(number, columns, predicted_iou, height=40, width=60):
    mask = np.zeros((height, width), dtype=bool)
    mask[5:15, columns] = True
    return Candidate(
        number, mask, int(mask.sum()), (0, 0, 1, 1), predicted_iou, 0.8, (0, 0), (0, 0, 1, 1)
    )


def test_unprompted_takes_the_k_most_confident_and_the_k_largest():
    classes = TaskConfig(name="t", prompts={"a": ("x",), "b": ("y",)}, top_k={"a": 2}).classes
    parts = [
        part(2, slice(0, 10), 0.9),
        part(3, slice(10, 40), 0.7),
        part(5, slice(20, 25), 0.9),
        part(8, slice(30, 60), 0.8),
    ]
    masks = {(m.method, m.label): m for m in unprompted(classes, parts, (80, 120))}
    ids = {key: mask.candidate_ids for key, mask in masks.items()}
    assert ids == {
        ("unprompted_confident", "a"): (2, 5),  # of equals, the lower id first
        ("unprompted_confident", "b"): (2,),
        ("unprompted_largest", "a"): (3, 8),
        ("unprompted_largest", "b"): (3,),
    }
    confident = masks["unprompted_confident", "a"]
    np.testing.assert_array_equal(
        confident.mask, to_original(parts[0].mask | parts[2].mask, (80, 120))
    )
    np.testing.assert_allclose(confident.sam.predicted_iou, 0.9)
    assert confident.prompt_boxes == ()
    assert confident.clip is None
    assert unprompted(classes, [], (80, 120)) == []


def test_gt_sam_is_sam_prompted_with_the_references_boxes(cascade, sam, picture):
    image = picture(90, 128)
    lung = np.zeros((90, 128), dtype=bool)
    lung[10:50, 10:40] = lung[15:60, 80:115] = True
    lung[88, 2] = True  # too small for a box
    mask = of(cascade(image, references={"lung": lung}), "gt_sam")
    assert list(mask) == ["lung"]
    assert mask["lung"].prompt_boxes == ((10, 10, 39, 49), (80, 15, 114, 59))
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    expected = [
        predictor.predict(box=np.array(box), multimask_output=False)[0][0]
        for box in mask["lung"].prompt_boxes
    ]
    np.testing.assert_array_equal(mask["lung"].mask, expected[0] | expected[1])


def test_an_empty_reference_has_no_gt_sam_mask(cascade, picture):
    empty = {"lung": np.zeros((90, 128), dtype=bool)}
    assert of(cascade(picture(90, 128), references=empty), "gt_sam") == {}


def test_without_the_cascade_mode_no_clip_is_loaded(sam, configure, picture, monkeypatch):
    monkeypatch.setattr("salip_ray.cascade.loading.load_clip", None)
    config = configure(run={"modes": ["unprompted"]})
    result = Cascade(config, sam=sam)(picture(90, 128))
    assert {m.method for m in result.masks} == {"unprompted_confident", "unprompted_largest"}
    assert (result.selections, result.outcomes) == ((), ())


def test_other_modes_do_not_change_cascade(sam, clip, configure, picture, references):
    image = picture(180, 256)
    alone = Cascade(configure(task=TASK), sam=sam, clip=clip)(image)
    beside = Cascade(configure(task=TASK, run={"modes": ALL}), sam=sam, clip=clip)(
        image, references=references
    )
    assert alone.selections == beside.selections
    for label, mask in of(alone, "cascade").items():
        np.testing.assert_array_equal(mask.mask, of(beside, "cascade")[label].mask)


def test_trap_5_channels_are_rgb_as_the_official_predictor_takes_them(cascade, sam, picture):
    image = picture(90, 128)
    predictor = SamPredictor(sam)
    predictor.set_image(image, image_format="RGB")
    assert torch.equal(cascade.propose(image).embedding, predictor.get_image_embedding())
    assert not torch.equal(cascade.propose(image[..., ::-1]).embedding, predictor.features)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((10, 10), dtype=np.uint8), r"shape \[H, W, 3\] \(RGB\), found \[10, 10\]"),
        (np.zeros((10, 10, 4), dtype=np.uint8), r"found \[10, 10, 4\]"),
        (np.zeros((0, 10, 3), dtype=np.uint8), r"found \[0, 10, 3\]"),
        (np.zeros((10, 10, 3)), "must be uint8 .*, found float64"),
        ([[1, 2]], "must be a NumPy array, found list"),
    ],
    ids=["grey", "alpha", "empty", "float", "list"],
)
def test_non_rgb_image_is_refused(cascade, image, message):
    with pytest.raises(ImageError, match=message):
        cascade(image, references={})


def test_references_are_needed_and_must_fit(cascade, picture):
    with pytest.raises(InputError, match="gt_sam, which needs references"):
        cascade(picture(90, 128))
    with pytest.raises(ImageError, match=r"reference of 'lung' has shape \(90, 127\)"):
        cascade(picture(90, 128), references={"lung": np.ones((90, 127), dtype=bool)})


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert resolve_device("auto").type == "cuda"
    else:
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="no CUDA device"):
            resolve_device("cuda")


SOFTMAX = {"scoring": "softmax", "logit_scale": 5.0}


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


def test_gt_sam_is_prompted_with_plain_boxes_whatever_refine_says(sam, clip, configure, picture):
    image = picture(90, 128)
    lung = np.zeros((90, 128), dtype=bool)
    lung[10:50, 10:40] = True
    plain, rich = (
        Cascade(configure(task=TASK, run={"modes": ALL}, refine=options), sam=sam, clip=clip)(
            image, references={"lung": lung}
        )
        for options in ({}, {"box_jitter": 4, "jitter_share": 0.4, "centre_point": True})
    )
    expected = of(plain, "gt_sam")["lung"].mask
    np.testing.assert_array_equal(of(rich, "gt_sam")["lung"].mask, expected)
    assert (of(rich, "cascade")["lung"].mask != of(plain, "cascade")["lung"].mask).any()


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


def test_candidates_may_be_a_stack_and_what_is_no_mask_is_refused(sam, clip, configure, picture):
    image = picture(90, 128)
    masks = np.zeros((2, 90, 128), dtype=bool)
    masks[0, 20:70, 30:60] = masks[1, 10:80, 70:120] = True
    cascade = Cascade(configure(propose={"model": "none"}), sam=sam, clip=clip)
    assert cascade(image, candidates=masks).n_proposed == 2
    for wrong in (masks[0], [None], ["mask.png"], masks.tolist()):
        with pytest.raises(ImageError, match=r"candidate 1 "):
            cascade(image, candidates=wrong)
