"""Other models in the places of SAM and CLIP."""

from __future__ import annotations

import numpy as np
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.proposer import Proposals
from salip_ray.cascade.refiner import RefinedMasks
from salip_ray.schema import Candidate, ClipScores, Selection


def halves(working):
    """Proposes the left and the right half."""
    height, width = working.shape[:2]
    candidates = []
    for number, columns in enumerate((slice(0, width // 2), slice(width // 2, width))):
        mask = np.zeros((height, width), dtype=bool)
        mask[:, columns] = True
        box = (float(columns.start), 0.0, columns.stop - 1.0, height - 1.0)
        candidates.append(Candidate(number, mask, int(mask.sum()), box, 1.0, 1.0, (0.0, 0.0), box))
    return Proposals(tuple(candidates), 2, torch.zeros(1))


class Brightest:
    """Selects the candidate whose pixels are brightest, for class 1."""

    def __call__(self, working, candidates):
        light = self.scores(working, candidates)[:, 0]
        best = int(light.argmax())
        return (Selection("organ", 1, candidates[best].id, 0, ClipScores(float(light[best]), 0.0)),)

    def scores(self, working, candidates):
        return torch.tensor([[working[c.mask].mean()] for c in candidates])


class WholeBox:
    """Segments all of a box."""

    def encode(self, working):
        raise AssertionError("the proposer's embedding serves")

    def __call__(self, embedding, *, boxes, working_size, original_size):
        masks = np.zeros((len(boxes), *original_size), dtype=bool)
        scale = original_size[0] / working_size[0]
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            rows = slice(int(y0 * scale), int((y1 + 1) * scale))
            mask[rows, int(x0 * scale) : int((x1 + 1) * scale)] = True
        ones = np.ones(len(boxes), dtype=np.float32)
        return RefinedMasks(masks, ones, ones)


def test_all_three_parts_may_be_others_and_no_model_is_loaded(configure, monkeypatch):
    monkeypatch.setattr("salip_ray.cascade.loading.load_sam", None)
    monkeypatch.setattr("salip_ray.cascade.loading.load_clip", None)
    image = np.zeros((64, 256, 3), dtype=np.uint8)
    image[:, 128:] = 200
    cascade = Cascade(configure(), propose=halves, retrieve=Brightest(), refine=WholeBox())
    (mask,) = cascade(image).masks
    np.testing.assert_array_equal(mask.mask, image[..., 0] > 0)
    assert mask.candidate_ids == (1,)


def test_one_part_alone_may_be_another(sam, clip, configure, picture):
    image = picture(90, 128)
    config = configure()
    plain = Cascade(config, sam=sam, clip=clip)(image)
    boxed = Cascade(config, sam=sam, clip=clip, refine=WholeBox())(image)
    assert [c.id for c in boxed.candidates] == [c.id for c in plain.candidates]
    assert boxed.selections == plain.selections
    x0, y0, x1, y1 = (int(value) for value in boxed.masks[0].prompt_boxes[0])
    assert boxed.masks[0].mask.sum() == (y1 + 1 - y0) * (x1 + 1 - x0)
