"""Models of other packages as steps of the cascade: what is filled in, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.interfaces import Instances, Proposals, RefinedMasks
from salip_ray.cascade.own_models import ProposerOf, RefinerOf, RetrieverOf
from salip_ray.errors import ConfigError, ModelError
from salip_ray.schema import Candidate, ClipScores, Selection

WORKING = np.zeros((20, 30, 3), np.uint8)
WORKING[5:15, 5:20] = 200


def proposer(configure, result, *, labels=False, **sections):
    return ProposerOf(lambda _: result, configure(**sections), name="mine", labels=labels)


def test_boxes_alone_become_candidates_with_filled_masks(configure):
    made = proposer(configure, Instances([0.5, 0.75], boxes=[[0, 0, 1, 2], [4, 4, 50, 7]]))
    proposals = made(WORKING)
    first, second = proposals.candidates
    assert (first.id, first.area, first.box) == (0, 6, (0.0, 0.0, 1.0, 2.0))
    assert (second.id, second.box) == (1, (4.0, 4.0, 29.0, 7.0))  # cut at the border
    assert second.mask[4:8, 4:30].all()
    assert second.area == second.mask.sum() == 4 * 26
    assert (second.predicted_iou, second.stability_score) == (0.75, 1.0)
    assert second.point == (16.5, 5.5)
    assert second.crop_box == (0.0, 0.0, 29.0, 19.0)
    assert (proposals.embedding, proposals.selections) == (None, None)


def test_masks_alone_get_the_boxes_of_their_pixels(configure):
    masks = torch.zeros(2, 20, 30, dtype=torch.uint8)
    masks[0, 3:5, 7:9] = masks[1, 19, 29] = 1
    result = Instances(torch.tensor([0.5, 0.25], dtype=torch.bfloat16), masks)
    boxes = [c.box for c in proposer(configure, result)(WORKING).candidates]
    assert boxes == [(7, 3, 8, 4), (29, 19, 29, 19)]


def test_ids_are_those_before_the_area_filter(configure):
    result = Instances([1, 1, 1], boxes=[[0, 0, 29, 19], [0, 0, 3, 3], [0, 0, 1, 1]])
    made = proposer(configure, result, task={"max_area": 0.5})
    proposals = made(WORKING)
    assert [c.id for c in proposals.candidates] == [1, 2]
    assert proposals.n_proposed == 3


def test_no_instance_is_no_error(configure):
    proposals = proposer(configure, Instances([], masks=[], labels=[]), labels=True)(WORKING)
    assert (proposals.candidates, proposals.n_proposed, proposals.selections) == ((), 0, ())
    assert proposer(configure, Instances([], boxes=[]))(WORKING).candidates == ()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1, 2], "returned list, expected salip_ray.Instances"),
        (Instances([1.0]), "neither masks nor boxes"),
        (Instances([[1.0]], boxes=[[0, 0, 1, 1]]), r"scores of shape \[1, 1\], expected \[n\]"),
        (Instances(["a"], boxes=[[0, 0, 1, 1]]), "scores that are not numbers"),
        (Instances([np.nan], boxes=[[0, 0, 1, 1]]), "scores with NaN or infinite values"),
        (Instances([1.0], boxes=[[0, 0, np.inf, 1]]), "boxes with NaN"),
        (Instances([1.0], boxes=[[0, 0, 1]]), r"boxes of shape \[1, 3\], expected \[1, 4\]"),
        (Instances([1.0], boxes=[[3, 0, 1, 1]]), "right or bottom is before"),
        (Instances([1.0], np.zeros((1, 20, 31), bool)), r"masks of shape \[1, 20, 31\]"),
        (Instances([1.0], np.full((1, 20, 30), 0.5)), "other values than 0 and 1"),
        (Instances([1.0], boxes=[[0, 0, 1, 1]], stability=[np.nan]), "stability with NaN"),
    ],
)
def test_an_unusable_result_names_the_model(configure, result, message):
    with pytest.raises(ModelError, match=f"mine .*{message}"):
        proposer(configure, result)(WORKING)


TASK = {"prompts": {"lung": ["a lung"], "heart": ["a heart"]}, "top_k": {"lung": 2}}
THREE = [[0, 0, 3, 3], [10, 0, 13, 3], [20, 0, 23, 3]]


def test_labels_of_the_proposer_select_the_best_candidates(configure, clip):
    labels = ["lung", "rib", "lung"]
    made = proposer(
        configure, Instances([0.5, 0.9, 0.7], boxes=THREE, labels=labels), labels=True, task=TASK
    )
    config = configure(task=TASK, image={"long_side": 30}, refine={"model": "none"})
    cascade = Cascade(config, propose=made, clip=clip)
    result = cascade(WORKING)
    assert cascade.retrieve is None
    assert [(s.label, s.candidate_id, s.clip.score) for s in result.selections] == [
        ("lung", 2, pytest.approx(0.7)),
        ("lung", 0, pytest.approx(0.5)),
    ]
    (mask,) = result.masks
    assert mask.mask.sum() == 32
    assert (mask.candidate_ids, mask.prompt_boxes, mask.confidence) == ((2, 0), (), None)
    assert [(o.label, o.outcome, o.reason) for o in result.outcomes] == [
        ("lung", "labelled", ""),
        ("heart", "empty", "none of the 3 candidates is labelled 'heart'"),
    ]


def test_missing_labels_are_an_error(configure):
    result = Instances([0.5], boxes=[[0, 0, 1, 1]])
    with pytest.raises(ModelError, match="labels its instances, but returned none"):
        proposer(configure, result, labels=True)(WORKING)


def candidates(*boxes):
    made = []
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        mask = np.zeros(WORKING.shape[:2], bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        made.append(
            Candidate(number, mask, int(mask.sum()), (x0, y0, x1, y1), 1.0, 1.0, (0, 0), (0,) * 4)
        )
    return made


def test_scores_are_ranked_for_each_class(configure):
    table = np.array([[1.0, 5.0], [3.0, 4.0], [2.0, 6.0]])
    retriever = RetrieverOf(lambda *_: table, configure(task=TASK))
    picks = retriever(WORKING, candidates(*THREE)[::-1])
    assert [(s.label, s.candidate_id, s.clip.score) for s in picks] == [
        ("lung", 1, 3.0),
        ("lung", 2, 2.0),
        ("heart", 2, 6.0),
    ]
    assert picks[0].clip.margin == 2.0
    assert retriever.scores(WORKING, candidates(*THREE)).tolist() == table.tolist()
    assert retriever(WORKING, []) == ()


def test_columns_for_distractors_compete_in_a_softmax(configure):
    task = {**TASK, "distractors": {"rib": ["a rib"]}}
    config = configure(task=task, retrieve={"scoring": "softmax"})
    table = torch.tensor([[1.0, 0.0, 5.0], [0.9, 0.0, -5.0]])
    (best, *_) = RetrieverOf(lambda *_: table, config)(WORKING, candidates(*THREE[:2]))
    assert (best.label, best.candidate_id) == ("lung", 1)
    assert best.clip.probability == pytest.approx(table[1].softmax(0)[0].item())


def test_a_retriever_may_select_itself(configure):
    chosen = (Selection("lung", 1, 1, 0, ClipScores(7.0)),)
    retriever = RetrieverOf(lambda *_: chosen, configure(task=TASK))
    assert retriever(WORKING, candidates(*THREE)) == chosen
    assert retriever.scores(WORKING, candidates(*THREE))[1].tolist() == [7.0, 0.0]
    unknown = (Selection("lung", 1, 9, 0, ClipScores(7.0)),)
    with pytest.raises(ModelError, match="selected candidate 9"):
        RetrieverOf(lambda *_: unknown, configure(task=TASK))(WORKING, candidates(*THREE))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((2, 2)), r"expected \[3, n\]"),
        (np.zeros((3, 5)), r"a column for each class"),
        (np.full((3, 2), np.nan), "NaN"),
    ],
)
def test_an_unusable_table_of_scores_is_an_error(configure, table, message):
    retriever = RetrieverOf(lambda *_: table, configure(task=TASK), name="mine")
    with pytest.raises(ModelError, match=message):
        retriever(WORKING, candidates(*THREE))


class Squares:
    def encode(self, working):
        working[:] = 0  # a copy: the cascade's image stays
        return working

    def __call__(self, embedding, *, boxes, working_size, original_size):
        self.got = embedding.shape, working_size
        return np.ones((len(boxes), *original_size), bool)


def test_masks_alone_are_a_result_without_scores(configure, clip):
    squares = Squares()
    config = configure(task=TASK)
    box = Instances([0.5], boxes=[[0, 0, 9, 9]])
    image = WORKING.copy()
    result = Cascade(config, propose=lambda _: box, clip=clip, refine=squares)(image)
    np.testing.assert_array_equal(image, WORKING)
    assert squares.got == ((85, 128, 3), (85, 128))
    mask = result.masks[0]
    assert mask.mask.all()
    assert np.isnan(mask.sam.predicted_iou)
    assert mask.confidence is None


def test_masks_of_another_size_are_an_error(configure):
    def refine(_, *, boxes, working_size, original_size):
        return RefinedMasks(np.ones((1, 4, 4), bool), np.ones(1), np.ones(1))

    refiner = RefinerOf(refine, configure(), name="mine")
    with pytest.raises(ModelError, match=r"masks of shape \[1, 4, 4\], expected \[1, 9, 9\]"):
        refiner(None, boxes=[(0, 0, 1, 1)], working_size=(3, 3), original_size=(9, 9))


def test_own_proposer_without_embedding_uses_encoder_of_sam(sam, clip, configure, picture):
    image = picture(90, 128)
    config = configure()
    plain = Cascade(config, sam=sam, clip=clip)
    result = plain(image)
    box = result.masks[0].prompt_boxes[0]
    given = Cascade(config, sam=sam, clip=clip, propose=lambda _: Instances([0.9], boxes=[box]))(
        image
    )
    np.testing.assert_array_equal(given.masks[0].mask, result.masks[0].mask)


def test_a_result_of_the_package_passes_unchanged(configure):
    made = Proposals((), 3)
    assert proposer(configure, made)(WORKING) is made


def test_only_a_model_with_batches_gets_their_size(configure):
    class Batched:
        def set_batch_size(self, size):
            self.size = size

        def __call__(self, working):
            return Instances([], boxes=[])

    model = Batched()
    step = ProposerOf(model, configure(propose={"points_per_batch": 9}))
    assert (step.has_batches, model.size) == (True, 9)
    step.set_batch_size(4)
    assert model.size == 4
    assert not ProposerOf(lambda _: None, configure()).has_batches


def test_gt_sam_needs_a_refiner(configure):
    with pytest.raises(ValueError, match="needs a refiner"):
        configure(run={"modes": ["gt_sam"]}, refine={"model": "none"})


def test_prompts_beyond_boxes_need_sam(sam, clip, configure):
    config = configure(refine={"centre_point": True})
    cascade = Cascade(config, sam=sam, clip=clip, refine=Squares())
    with pytest.raises(ConfigError, match="as the refiner, found Squares: remove"):
        cascade(WORKING)
