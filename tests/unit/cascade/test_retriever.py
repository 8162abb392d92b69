"""Texts and retrieval against plain open_clip on the same weights."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F

from salip_ray.cascade.ranking import class_features
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.schema import Candidate

PROMPTS = {
    "lung": ["a dark lobe", "a large dark region next to the spine of a patient"],
    "heart": ["a bright blob"],
    "rib": ["a thin curved line", "a bright arc", "a bone"],
}


@pytest.fixture
def parts():
    """Eight discs of different sizes and places, ids with gaps, given out of order."""
    y, x = np.mgrid[:100, :120]
    discs = []
    for index, number in enumerate((3, 0, 11, 4, 7, 20, 5, 9)):
        row, column, radius = 15 + 9 * index, 15 + 12 * index, 5 + 2 * (index % 4)
        mask = (y - row) ** 2 + (x - column) ** 2 <= radius**2
        rows, columns = np.nonzero(mask)
        box = tuple(float(v) for v in (columns.min(), rows.min(), columns.max(), rows.max()))
        discs.append(Candidate(number, mask, int(mask.sum()), box, 0.9, 0.9, (0, 0), box))
    return discs


class ScriptedClip:
    """A CLIP whose scores are given: image features are one-hot rows times ``scores``."""

    def __init__(self, scores):
        self.features = torch.tensor(scores, dtype=torch.float32)
        self.text_calls, self.image_calls = 0, []

    def encode_texts(self, sentences, *, normalize=True):
        self.text_calls += 1
        return torch.eye(self.features.shape[1])[[self.text_calls - 1]]

    def encode_images(self, images):
        done = sum(self.image_calls)
        self.image_calls.append(len(images))
        return self.features[done : done + len(images)]


def test_text_feature_is_the_mean_of_the_sentences_normalised_after_it(clip, configure):
    config = configure(task={"prompts": PROMPTS})
    features = class_features(clip, config.task.classes)
    for feature, sentences in zip(features, PROMPTS.values(), strict=True):
        mean = clip.model.encode_text(clip.tokenizer(sentences)).mean(dim=0)
        assert torch.equal(feature, mean / mean.norm())
    # Normalising each sentence before the mean, as others do, is something else.
    each = F.normalize(clip.encode_texts(PROMPTS["lung"]).mean(dim=0), dim=-1)
    assert not torch.allclose(features[0], each, atol=1e-6)


@pytest.mark.parametrize("mode", ["crops", "bbox"])
def test_parity_with_open_clip(clip, configure, picture, parts, mode):
    """The same picks and scores as open_clip alone gives for the same crops."""
    from salip_ray.cascade.visual_prompts import visual_prompt

    config = configure(
        task={"prompts": PROMPTS, "top_k": {"lung": 2, "rib": 3}}, retrieve={"visual_prompt": mode}
    )
    image = picture(100, 120)
    selections = ClipRetriever(clip, config)(image, parts)

    parts = sorted(parts, key=lambda part: part.id)
    pictures = [PIL.Image.fromarray(visual_prompt(image, p, config.retrieve)) for p in parts]
    image_features = clip.model.encode_image(torch.stack([clip.preprocess(p) for p in pictures]))
    image_features = image_features / image_features.norm(dim=-1, keepdim=True)
    expected = []
    for label, k in (("lung", 2), ("heart", 1), ("rib", 3)):
        text = clip.model.encode_text(clip.tokenizer(PROMPTS[label])).mean(dim=0)
        scores = 100 * image_features @ (text / text.norm())
        best = scores.argsort(descending=True)
        expected += [
            (label, parts[i].id, rank, scores[i].item(), (scores[i] - scores[best[k]]).item())
            for rank, i in enumerate(best[:k].tolist())
        ]
    assert [(s.label, s.candidate_id, s.rank) for s in selections] == [e[:3] for e in expected]
    np.testing.assert_allclose(
        [s.clip.score for s in selections], [e[3] for e in expected], rtol=1e-5
    )
    np.testing.assert_allclose(
        [s.clip.margin for s in selections], [e[4] for e in expected], atol=1e-4
    )
    assert [s.class_id for s in selections] == [1, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 8])
def test_trap_2_zero_one_and_k_candidates_are_ordinary(clip, configure, picture, parts, n, k):
    config = configure(task={"prompts": PROMPTS, "top_k": k})
    selections = ClipRetriever(clip, config)(picture(100, 120), parts[:n])
    assert len(selections) == len(PROMPTS) * min(n, k)
    for label in PROMPTS:
        ranks = [s.rank for s in selections if s.label == label]
        assert ranks == list(range(min(n, k)))
    assert all((s.clip.margin is None) == (n <= k) for s in selections)


def test_trap_6_of_equal_scores_the_lower_id_wins(configure, picture, parts):
    config = configure(task={"prompts": {"organ": ["an organ"]}, "top_k": 3})
    clip = ScriptedClip([[0.2], [0.7], [0.7], [0.1], [0.7], [0.7], [0.3], [0.7]])
    selections = ClipRetriever(clip, config)(picture(100, 120), parts)
    ids = sorted(part.id for part in parts)
    assert [s.candidate_id for s in selections] == [ids[1], ids[2], ids[4]]
    assert [s.clip.margin for s in selections] == [0.0, 0.0, 0.0]


def test_score_is_100_cosine_and_margin_to_the_best_not_retrieved(configure, picture, parts):
    config = configure(task={"prompts": {"organ": ["an organ"]}, "top_k": 2})
    clip = ScriptedClip([[0.5], [-0.25], [0.75]])
    selections = ClipRetriever(clip, config)(picture(100, 120), parts[:3])
    assert [(s.rank, s.clip.score, s.clip.margin) for s in selections] == [
        (0, 75, 100),
        (1, 50, 75),
    ]


@pytest.mark.parametrize("count", [0, 2, 9])
def test_runners_up_are_recorded_with_their_scores(configure, picture, parts, count):
    config = configure(
        task={"prompts": {"organ": ["an organ"]}, "top_k": 2}, retrieve={"runners_up": count}
    )
    clip = ScriptedClip([[0.5], [-0.25], [0.75], [0.125], [0.25]])
    ids = sorted(part.id for part in parts[:5])
    first, second = ClipRetriever(clip, config)(picture(100, 120), parts[:5])
    assert (first.candidate_id, second.candidate_id) == (ids[2], ids[0])
    runners_up = [(runner.candidate_id, runner.score) for runner in first.runners_up]
    assert runners_up == [(ids[4], 25.0), (ids[3], 12.5), (ids[1], -25.0)][:count]
    assert second.runners_up == ()


def test_trap_1_selections_name_candidates_whatever_their_order(clip, configure, picture, parts):
    config = configure(task={"prompts": PROMPTS, "top_k": 2})
    retriever, image = ClipRetriever(clip, config), picture(100, 120)
    assert retriever(image, parts) == retriever(image, parts[::-1])
    best, second = (s for s in retriever(image, parts) if s.label == "heart")
    others = [part for part in parts if part.id != best.candidate_id]
    again = next(s for s in retriever(image, others) if s.label == "heart")
    assert again.candidate_id == second.candidate_id
    np.testing.assert_allclose(again.clip.score, second.clip.score, rtol=1e-5)


def test_trap_11_texts_are_encoded_once(configure, picture, parts):
    config = configure(task={"prompts": PROMPTS}, retrieve={"batch_size": 3})
    clip = ScriptedClip(np.random.default_rng(0).normal(size=(16, 3)).tolist())
    retriever = ClipRetriever(clip, config)
    retriever(picture(100, 120), parts)
    retriever(picture(100, 120), parts)
    assert clip.text_calls == len(PROMPTS)
    assert clip.image_calls == [3, 3, 2, 3, 3, 2]


def test_distractors_compete_under_softmax_and_are_never_selected(configure, picture, parts):
    # The second candidate has the higher cosine, and is a rib all the same.
    scores = [[0.5, 0.1], [0.6, 0.9], [0.2, 0.1]]
    task = {"prompts": {"lung": ["a lobe"]}, "distractors": {"rib": ["an arc"]}}
    image, few = picture(100, 120), sorted(parts, key=lambda part: part.id)[:3]
    by_cosine = ClipRetriever(ScriptedClip(scores), configure(task=task))
    (choice,) = by_cosine(image, few)
    assert choice.candidate_id == few[1].id
    assert choice.clip.probability is None
    assert by_cosine.clip.text_calls == 1

    options = {"scoring": "softmax", "logit_scale": 10.0}
    retriever = ClipRetriever(ScriptedClip(scores), configure(task=task, retrieve=options))
    (choice,) = retriever(image, few)
    assert (choice.label, choice.candidate_id) == ("lung", few[0].id)
    np.testing.assert_allclose(choice.clip.probability, 1 / (1 + np.exp(-4)), rtol=1e-5)
    np.testing.assert_allclose(choice.clip.score, 50, rtol=1e-6)
    again = ClipRetriever(ScriptedClip(scores), configure(task=task, retrieve=options))
    np.testing.assert_allclose(again.scores(image, few), [[50], [60], [20]], rtol=1e-6)


def test_a_distractor_with_the_name_of_a_class_is_that_class(configure):
    task = {"prompts": {"lung": ["a lobe"]}, "distractors": {"lung": ["air"], "rib": ["an arc"]}}
    config = configure(task=task)
    assert [(c.label, c.class_id) for c in config.task.competitors] == [("rib", 2)]


def test_the_scale_is_the_one_clip_was_trained_to(clip, configure):
    config = configure(retrieve={"scoring": "softmax"})
    assert ClipRetriever(clip, config).ranker.logit_scale == pytest.approx(
        clip.model.logit_scale.exp().item()
    )


@pytest.mark.parametrize("padding", ["none", "both"])
def test_an_ensemble_averages_unit_features_of_all_pictures(
    clip, configure, picture, parts, padding
):
    image = picture(100, 120)
    parts = sorted(parts, key=lambda part: part.id)

    def features(**options):
        return ClipRetriever(clip, configure(retrieve=options)).image_features(image, parts)

    prompts = ("crops", "bbox")
    paddings = ("none", "square") if padding == "both" else ("none",)
    single = [features(visual_prompt=v, padding=p) for v in prompts for p in paddings]
    mean = F.normalize(torch.stack(single).mean(dim=0), dim=-1)
    features_of_all = features(visual_prompt="crops", ensemble=["bbox"], padding=padding)
    torch.testing.assert_close(features_of_all, mean)
    assert not torch.allclose(features_of_all, single[0])


def test_presence_counts_companions_in_all_candidates(configure, picture, parts):
    scores = [[0.5, 0.1, 0.0], [0.6, 0.9, 0.0], [0.2, 0.1, 0.7]]
    task = {
        "prompts": {"lung": ["a lobe"]},
        "distractors": {"rib": ["an arc"], "eye": ["a ball"]},
        "companions": {"lung": ["rib"]},
    }
    config = configure(task=task, retrieve={"scoring": "softmax", "logit_scale": 10.0})
    few = sorted(parts, key=lambda part: part.id)[:3]
    (choice,) = ClipRetriever(ScriptedClip(scores), config)(picture(100, 120), few)
    of_all = torch.softmax(10 * torch.tensor(scores), dim=1)
    np.testing.assert_allclose(choice.clip.presence, (1 - of_all[:, 2]).mean(), rtol=1e-5)
    np.testing.assert_allclose(choice.clip.probability, of_all[0, 0], rtol=1e-5)
