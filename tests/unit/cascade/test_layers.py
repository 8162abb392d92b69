"""With task.layered, a pixel of several classes belongs to the last of them alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from salip_ray.cascade import selecting
from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.compose import compose
from salip_ray.cascade.given import given_candidates
from salip_ray.cascade.interfaces import RefinedMasks
from salip_ray.cascade.layers import in_layers
from salip_ray.cascade.ranking import Ranking
from salip_ray.cascade.selecting import select_classes
from salip_ray.config import RetrieveConfig, TaskConfig, load_config
from salip_ray.errors import ConfigError
from salip_ray.output.masks import label_map
from salip_ray.schema import Candidate, ClassMask, ClipScores, Instance, ProposedMask, Selection

TASK = {"prompts": {"lung": ["a lobe"], "heart": ["a lobe"]}, "top_k": {"lung": 2}}


def rows(*numbers: int) -> np.ndarray:
    mask = np.zeros((6, 4), dtype=bool)
    mask[list(numbers)] = True
    return mask


def test_later_classes_take_the_pixels_of_all_earlier_ones():
    masks = [
        ClassMask("cascade", "head", 1, rows(0, 1, 2, 3), confidence=0.9),
        ClassMask("cascade", "eye", 3, rows(3, 4)),
        ClassMask("cascade", "brain", 2, rows(1, 2, 3, 4)),
    ]
    head, eye, brain = in_layers(masks)
    np.testing.assert_array_equal(head.mask, rows(0))
    np.testing.assert_array_equal(eye.mask, rows(3, 4))
    np.testing.assert_array_equal(brain.mask, rows(1, 2))
    assert head.confidence == 0.9


def test_a_mask_below_another_is_left_out():
    masks = [ClassMask("cascade", "a", 1, rows(2)), ClassMask("cascade", "b", 2, rows(1, 2))]
    assert [mask.label for mask in in_layers(masks)] == ["b"]


def test_instances_and_candidates_are_cut():
    parts = (Instance(rows(0, 1)), Instance(rows(2)), Instance(rows(4, 5)))
    lungs = ClassMask(
        "cascade",
        "lungs",
        1,
        rows(0, 1, 2, 4, 5),
        proposed=ProposedMask(rows(0, 1, 2), 0.8),
        instances=parts,
    )
    heart = ClassMask("cascade", "heart", 2, rows(1, 2))
    cut, _ = in_layers([lungs, heart])
    assert cut.proposed.agreement == 0.8
    np.testing.assert_array_equal(cut.proposed.mask, rows(0))
    np.testing.assert_array_equal([part.mask for part in cut.instances], [rows(0), rows(4, 5)])
    rest = ClassMask("cascade", "heart", 2, rows(1, 2, 4, 5))
    assert in_layers([lungs, rest])[0].instances == ()  # one object is left


def test_layered_masks_are_disjoint_and_unprompted_sam_is_not_cut(sam, clip, configure, picture):
    image = picture(90, 128)
    lung, heart = np.zeros((2, 90, 128), dtype=bool)
    heart[30:60, 40:80] = lung[20:80, 30:70] = True
    modes = {"modes": ["cascade", "unprompted", "gt_sam"]}
    given = {"references": {"lung": lung, "heart": heart}}
    plain = Cascade(configure(task=TASK, run=modes), sam=sam, clip=clip)(image, **given)
    layered = {**TASK, "layered": True}
    result = Cascade(configure(task=layered, run=modes), sam=sam, clip=clip)(image, **given)
    whole = {(mask.method, mask.label): mask.mask for mask in plain.masks}
    cut = {(mask.method, mask.label): mask.mask for mask in result.masks}
    for name in whole:
        if name[0].startswith("unprompted"):
            np.testing.assert_array_equal(cut[name], whole[name])
    assert (whole["gt_sam", "lung"] & whole["gt_sam", "heart"]).any()
    np.testing.assert_array_equal(
        cut["gt_sam", "lung"], whole["gt_sam", "lung"] & ~whole["gt_sam", "heart"]
    )
    # The label map needs no scores to decide: the masks are its classes.
    labels = label_map(result.masks, 90, 128)
    np.testing.assert_array_equal(labels == 1, cut["cascade", "lung"])
    np.testing.assert_array_equal(labels == 2, cut["cascade", "heart"])


def test_a_candidate_is_retrieved_for_one_class_only(sam, clip, configure, picture):
    image = picture(90, 128)
    shared = Cascade(configure(task=TASK), sam=sam, clip=clip)(image).selections
    lungs = [s.candidate_id for s in shared if s.label == "lung"]
    assert [s.candidate_id for s in shared if s.label == "heart"] == lungs[:1]
    apart = Cascade(configure(task={**TASK, "layered": True}), sam=sam, clip=clip)(image).selections
    assert [s.candidate_id for s in apart if s.label == "lung"] == lungs  # the earlier class
    (heart,) = (s.candidate_id for s in apart if s.label == "heart")
    assert heart not in lungs


def candidate(number: int, *covered: int) -> Candidate:
    """Return a candidate that covers whole rows of a picture of 6 by 4 pixels."""
    mask = rows(*covered)
    box = (0, min(covered), 3, max(covered))
    return Candidate(number, mask, int(mask.sum()), box, 1.0, 1.0, (0, 0), (0, 0, 3, 5))


def chosen(classes, merit, candidates, *, apart=True) -> list[tuple[str, int]]:
    ranking = Ranking(merit, merit)
    selections = select_classes(classes, ranking, candidates, RetrieveConfig(), apart=apart)
    return [(selection.label, selection.candidate_id) for selection in selections]


def test_a_candidate_goes_to_the_class_with_the_higher_merit():
    classes = TaskConfig(name="t", prompts={"a": ("x",), "b": ("y",)}).classes
    candidates = [candidate(3, 0), candidate(5, 1), candidate(8, 2)]
    score = torch.tensor([[9.0, 8.0], [1.0, 7.0], [2.0, 0.0]])

    def select(apart: bool) -> list[tuple[str, int]]:
        return chosen(classes, score, candidates, apart=apart)

    assert select(apart=False) == [("a", 3), ("b", 3)]
    assert select(apart=True) == [("a", 3), ("b", 5)]
    score = score.flip(1)
    assert select(apart=True) == [("a", 5), ("b", 3)]
    score = torch.tensor([[9.0, 9.5], [8.0, 8.5], [1.0, 0.0]])  # b has the better of both
    assert select(apart=True) == [("a", 5), ("b", 3)]


HEAD_AND_BRAIN = TaskConfig(name="t", prompts={"head": ("x",), "brain": ("y",)}).classes


def test_no_class_gets_a_candidate_that_one_of_a_later_class_covers():
    brain, head, eye = candidate(0, 2, 3), candidate(1, 1, 2, 3, 4), candidate(2, 0)
    taken_for_each_other = torch.tensor([[-0.4, -0.9], [-0.5, -0.3]])
    both = [brain, head]
    assert chosen(HEAD_AND_BRAIN, taken_for_each_other, both, apart=False) == [
        ("head", 0),
        ("brain", 1),
    ]
    assert chosen(HEAD_AND_BRAIN, taken_for_each_other, both) == [("head", 1), ("brain", 0)]
    # With a third candidate: the highest sum of those that are possible.
    for eyes, expected in (
        ((-0.5, -9), [("head", 2), ("brain", 1)]),
        ((-2, -9), [("head", 1), ("brain", 0)]),
    ):
        merit = torch.cat((taken_for_each_other, torch.tensor([eyes])))
        assert chosen(HEAD_AND_BRAIN, merit, [*both, eye]) == expected


def test_a_later_class_may_lie_inside_an_earlier_one():
    merit = torch.tensor([[-1.0, -0.1], [-0.1, -1.0]])
    for brain in (candidate(0, 2, 3), candidate(0, 1, 2, 3)):
        assert chosen(HEAD_AND_BRAIN, merit, [brain, candidate(1, 1, 2, 3, 4)]) == [
            ("head", 1),
            ("brain", 0),
        ]


def test_two_labels_are_better_than_one_of_a_higher_merit():
    merit = torch.tensor([[-0.1, -8.0], [-9.0, -0.1]])
    assert chosen(HEAD_AND_BRAIN, merit, [candidate(0, 2), candidate(1, 1, 2)]) == [
        ("head", 1),
        ("brain", 0),
    ]


@pytest.mark.parametrize("most", [0, 1000])
def test_objects_of_two_classes_never_cover_each_other(monkeypatch, most):
    monkeypatch.setattr(selecting, "_MOST_EXAMINED", most)
    task = TaskConfig(name="t", prompts={"cell": ("x",), "nucleus": ("y",)}, top_k="all")
    candidates = [candidate(n, n % 6) for n in range(60)]
    merit = -torch.rand((60, 2), generator=torch.Generator().manual_seed(0))
    pairs = chosen(task.classes, merit, candidates)
    cells, nuclei = ({n % 6 for label, n in pairs if label == name} for name in ("cell", "nucleus"))
    assert cells
    assert nuclei
    assert not cells & nuclei


def test_a_thousand_objects_of_two_classes_are_chosen(monkeypatch):
    task = TaskConfig(name="t", prompts={"cell": ("x",), "nucleus": ("y",)}, top_k="all")
    candidates = []
    for number in range(1000):
        mask = np.zeros((100, 100), dtype=bool)
        y, x = 10 * (number // 10 % 10), 10 * (number % 10)
        mask[y : y + 3, x : x + 3] = True
        box = (x, y, x + 2, y + 2)
        candidates.append(Candidate(number, mask, 9, box, 1.0, 1.0, (x, y), (0, 0, 99, 99)))
    merit = -torch.rand((1000, 2), generator=torch.Generator().manual_seed(0))
    calls = []
    select = selecting.select_class
    monkeypatch.setattr(
        selecting, "select_class", lambda *args: calls.append(args) or select(*args)
    )
    pairs = chosen(task.classes, merit, candidates)
    assert len(calls) < 100
    assert {label for label, _ in pairs} == {"cell", "nucleus"}


def test_a_class_whose_pixels_are_all_taken_is_empty_with_the_reason(configure):
    class Everything:
        def __call__(self, embedding, *, boxes, working_size, original_size):
            masks = np.ones((len(boxes), *original_size), bool)
            return RefinedMasks(masks, np.ones(len(boxes)), np.ones(len(boxes)))

    config = configure(task={**TASK, "layered": True}, propose={"model": "prompts"})
    sizes = {"working_size": (90, 128), "original_size": (90, 128)}
    boxes = [("lung", (5, 5, 40, 60)), ("heart", (50, 30, 70, 60))]
    candidates, selections = given_candidates(boxes, config.task.classes, **sizes)
    given = {"candidates": candidates, "n_proposed": 2, "selections": selections}
    result = compose(config, Everything(), embedding=None, **given, **sizes)
    assert [mask.label for mask in result.masks] == ["heart"]
    lung, heart = result.outcomes
    assert (lung.outcome, heart.outcome) == ("empty", "labelled")
    assert lung.reason == "later classes have all of its pixels (task.layered)"


def test_layers_exclude_consistent_volumes_and_are_not_in_older_recipes():
    with pytest.raises(ConfigError, match="turn one of them off"):
        load_config("lungs", overrides=["task.layered=true", "volumes.consistent=true"])
    assert "layered" not in load_config("lungs").recipe()["task"]
    on = load_config("lungs", overrides=["task.layered=true"])
    assert on.recipe()["task"]["layered"] is True


def test_a_class_whose_candidates_all_went_to_another_says_so(sam, clip, configure, picture):
    task = {**TASK, "layered": True, "min_area": 0, "max_area": 1}
    mask = np.zeros((90, 128), dtype=bool)
    mask[20:70, 30:90] = True
    for limit in (None, -101.0):
        config = configure(task=task, propose={"model": "none"}, retrieve={"min_score": limit})
        result = Cascade(config, sam=sam, clip=clip)(picture(90, 128), candidates=[mask])
        assert [(o.label, o.reason) for o in result.outcomes] == [
            ("lung", ""),
            ("heart", "other classes have all candidates (task.layered)"),
        ]


def test_a_class_whose_candidates_are_covered_says_so(sam, clip, configure, picture):
    task = {**TASK, "top_k": 1, "layered": True, "min_area": 0, "max_area": 1}
    inner, outer = np.zeros((2, 90, 128), dtype=bool)
    inner[20:70, 30:90] = outer[20:72, 30:90] = True
    for limit in (None, -101.0):
        config = configure(task=task, propose={"model": "none"}, retrieve={"min_score": limit})
        result = Cascade(config, sam=sam, clip=clip)(picture(90, 128), candidates=[inner, outer])
        assert sorted(o.reason for o in result.outcomes) == [
            "",
            "the candidates that are left cover those of other classes, or are covered by them "
            "(task.layered)",
        ]


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [
        # A brain may lie in a head, so only the limit can have left the head empty.
        ("brain", "none of the 1 candidate reaches retrieve.min_score -0.1"),
        ("head", "other classes have all candidates (task.layered)"),
    ],
)
def test_a_candidate_that_the_layers_allow_is_not_the_reason(configure, labelled, expected):
    task = {"name": "t", "prompts": {"head": ["x"], "brain": ["y"]}, "layered": True}
    config = configure(task=task, propose={"model": "none"}, retrieve={"min_score": -0.1})
    inner, outer = candidate(0, 2, 3), candidate(1, 1, 2, 3, 4)
    own = inner if labelled == "brain" else outer
    [spec] = [c for c in config.task.classes if c.label == labelled]
    selection = Selection(spec.label, spec.class_id, own.id, 0, ClipScores(0.0))
    candidates = [inner, outer] if labelled == "brain" else [outer]
    size = {"working_size": (6, 4), "original_size": (6, 4)}
    result = compose(
        config,
        None,
        candidates=candidates,
        n_proposed=2,
        embedding=None,
        selections=[selection],
        **size,
    )
    [empty] = [o for o in result.outcomes if o.outcome == "empty"]
    assert empty.reason == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_the_best_of_all_that_are_possible(seed):
    rng = np.random.default_rng(seed)
    nested = [candidate(n, *range(n // 2, 6 - (n + 1) // 2)) for n in range(6)]
    other = [candidate(6 + n, *rng.permutation(6)[:2]) for n in range(4)]
    candidates = [*nested, *other]
    merit = torch.from_numpy(rng.normal(-1, 0.5, (10, 2)))
    merit[:6, 0] += 1  # both classes want one of the nested masks
    merit[:6, 1] += 1
    possible = [
        (merit[below, 0].item() + merit[above, 1].item(), below, above)
        for below, above in itertools.permutations(range(10), 2)
        if not selecting.covers(candidates[above], candidates[below])
    ]
    _, below, above = max(possible)
    assert chosen(HEAD_AND_BRAIN, merit, candidates) == [("head", below), ("brain", above)]
