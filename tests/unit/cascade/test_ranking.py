"""Merits of candidates, from CLIP's scores and SAM's own opinion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from salip_ray.cascade.geometry import shared_area
from salip_ray.cascade.ranking import Ranking, quality, rank
from salip_ray.cascade.selecting import select_class
from salip_ray.config import ClassSpec, RetrieveConfig
from salip_ray.schema import Candidate


def part(number, predicted_iou=0.9, stability=0.8):
    mask = np.ones((4, 4), dtype=bool)
    box = (0.0, 0.0, 3.0, 3.0)
    return Candidate(number, mask, 16, box, predicted_iou, stability, (0, 0), box)


PARTS = [part(0), part(1, 0.5), part(2, 0.9, 0.4)]
# Columns: a class and two distractors.
SCORES = torch.tensor([[30.0, 10.0, 40.0], [29.0, 10.0, 10.0], [20.0, 19.0, 10.0]])

ALONE = torch.tensor([[True, False, False]])


def test_cosine_ranking_has_no_probability_or_presence():
    ranking = rank(SCORES, ALONE, PARTS, RetrieveConfig(), None)
    assert ranking.probability is None
    assert ranking.presence is None
    assert torch.equal(ranking.merit, SCORES[:, :1])


def test_softmax_ranks_candidate_like_distractor_last():
    ranking = rank(SCORES, ALONE, PARTS, RetrieveConfig(scoring="softmax"), 10.0)
    expected = torch.softmax(SCORES / 10, dim=1)[:, :1]
    torch.testing.assert_close(ranking.probability, expected)
    # The candidate of highest cosine is more like a distractor, and now comes last.
    assert ranking.merit[:, 0].argsort(descending=True).tolist() == [1, 2, 0]
    assert torch.equal(ranking.score, SCORES[:, :1])


def test_merits_differ_where_probabilities_are_all_one():
    ranking = rank(SCORES, ALONE, PARTS, RetrieveConfig(scoring="softmax"), 1e4)
    sure = rank(torch.tensor([[90.0, 0.0], [80.0, 0.0]]), ALONE[:, :2], PARTS[:2],
                RetrieveConfig(scoring="softmax"), 20.0)  # fmt: skip
    assert ranking.probability is not None
    assert sure.merit[0, 0] > sure.merit[1, 0]


def test_the_prior_adds_the_logarithm_of_sams_qualities():
    ranking = rank(SCORES, ALONE, PARTS, RetrieveConfig(sam_prior=2.0), None)
    qualities = np.array([0.9 * 0.8, 0.5 * 0.8, 0.9 * 0.4])
    np.testing.assert_allclose(
        ranking.merit[:, 0], SCORES[:, 0].numpy() + 2 * np.log(qualities), rtol=1e-6
    )


def test_nan_quality_stays_finite():
    qualities = quality([part(0, 0.0, 0.5), part(1, 0.5, math.nan)])
    assert torch.isfinite(qualities.log()).all()


def test_companions_compete_for_the_candidate_and_speak_for_the_class():
    config = RetrieveConfig(scoring="softmax")
    together = torch.tensor([[True, False, True]])
    ranking = rank(SCORES, together, PARTS, config, 10.0)
    alone = rank(SCORES, ALONE, PARTS, config, 10.0)
    assert torch.equal(ranking.merit, alone.merit)
    assert torch.equal(ranking.probability, alone.probability)
    of_all = torch.softmax(SCORES / 10, dim=1)
    torch.testing.assert_close(alone.presence, of_all[:, :1].mean(dim=0))
    torch.testing.assert_close(ranking.presence, of_all[:, [0, 2]].sum(dim=1).mean()[None])


def test_signs_add_to_the_evidence_of_each_candidate_and_change_nothing_else():
    config = RetrieveConfig(scoring="softmax")
    signs = torch.tensor([[True, False, True]])
    ranking = rank(SCORES, ALONE, PARTS, config, 10.0, signs)
    alone = rank(SCORES, ALONE, PARTS, config, 10.0, ALONE)
    assert torch.equal(ranking.merit, alone.merit)
    assert torch.equal(ranking.presence, alone.presence)
    of_all = torch.softmax(SCORES / 10, dim=1)
    torch.testing.assert_close(alone.evidence, of_all[:, :1])
    torch.testing.assert_close(ranking.evidence, of_all[:, [0, 2]].sum(dim=1, keepdim=True))
    assert rank(SCORES, ALONE, PARTS, config, 10.0).evidence is None


def spread(count):
    """Return candidates that do not overlap."""
    parts = []
    for number in range(count):
        mask = np.zeros((4, 4), dtype=bool)
        mask[number] = True
        box = (0.0, float(number), 3.0, float(number))
        parts.append(Candidate(number, mask, 4, box, 0.9, 0.8, (0, 0), box))
    return parts


def selected(top_k, config, candidates):
    spec = ClassSpec(label="tooth", class_id=1, sentences=("a tooth",), top_k=top_k)
    ranking = rank(SCORES, ALONE, candidates, config, 10.0)
    return [item.candidate_id for item in select_class(spec, 0, ranking, candidates, config)]


def test_all_candidates_that_reach_the_limit_are_retrieved():
    parts = spread(3)
    softmax = RetrieveConfig(scoring="softmax", min_score=0.5)  # probabilities .26, .77 and .43
    assert selected("all", softmax, parts) == [1]
    assert selected("all", softmax.model_copy(update={"min_score": 0.4}), parts) == [1, 2]
    assert selected(1, softmax.model_copy(update={"min_score": 0.4}), parts) == [1]
    assert selected("all", softmax.model_copy(update={"min_score": 0.9}), parts) == []
    assert selected("all", RetrieveConfig(min_score=25.0), parts) == [0, 1]  # cosines
    assert selected("all", RetrieveConfig(min_score=25.0, max_overlap=0.5), PARTS) == [0]


@pytest.mark.parametrize("max_overlap", [0.0, 0.3, 0.9])
def test_distinct_candidates_are_those_of_comparing_all_pairs(max_overlap):
    rng = np.random.default_rng(9)
    parts = []
    for number in range(60):
        mask = np.zeros((40, 50), bool)
        y, x, height, width = *rng.integers(0, 36, 2), *rng.integers(0, 9, 2)
        mask[y : y + height, x : x + width] = True
        mask[rng.integers(0, 40)] |= rng.random() < 0.1  # some are long lines
        parts.append(Candidate(number, mask, int(mask.sum()), (0, 0, 1, 1), 1, 1, (0, 0), (0,) * 4))
    expected = []
    for number in range(60):
        if all(shared_area(parts[number], parts[n]) <= max_overlap for n in expected):
            expected.append(number)
    spec = ClassSpec(label="tooth", class_id=1, sentences=("a tooth",), top_k="all")
    falling = torch.arange(60, 0, -1.0)[:, None]
    config = RetrieveConfig(max_overlap=max_overlap)
    chosen = select_class(spec, 0, Ranking(falling, falling), parts, config)
    assert [item.candidate_id for item in chosen] == expected
    assert 5 < len(expected) < 60
