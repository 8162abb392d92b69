"""Toy models: dark regions as candidates, ranked by darkness, cut out by a threshold."""

from __future__ import annotations

import json

import cv2
import numpy as np
import torch

from salip_ray import Instances, RefinedMasks


class Proposer:
    """Propose the dark regions of an image at two thresholds."""

    embedding = "toy"

    def __init__(self, context):
        self.levels = context.options.get("levels", [60, 90])

    def __call__(self, working):
        grey = working.mean(axis=2)
        masks = []
        for level in self.levels:
            count, regions = cv2.connectedComponents((grey < level).astype(np.uint8))
            masks += [regions == number for number in range(1, count)]
        masks = [mask for mask in masks if mask.sum() > 20]
        return Instances(
            scores=[1 - grey[mask].mean() / 255 for mask in masks],
            masks=np.array(masks, bool).reshape(-1, *grey.shape),
            embedding={
                "grey": torch.from_numpy(grey).float(),
                "levels": np.array(self.levels, np.int16),
            },
        )


class Retriever:
    """Prefer large candidates in the middle."""

    def __init__(self, context):
        self.classes = len(context.task.classes)

    def __call__(self, working, candidates):
        height, width = working.shape[:2]
        rows, columns = np.mgrid[:height, :width]
        near = 1 - np.hypot(rows / height - 0.5, columns / width - 0.5)
        scores = [near[c.mask].sum() / (height * width) for c in candidates]
        return np.repeat(np.array(scores)[:, None], self.classes, axis=1)


class Refiner:
    """Cut what is darker than a threshold out of each box."""

    embedding = "toy"

    def __init__(self, context):
        self.threshold = context.options.get("threshold", 80)
        if "table" in context.weights:
            self.threshold = json.loads(context.weights["table"].read_text())["threshold"]

    def __call__(self, embedding, *, boxes, working_size, original_size):
        assert embedding["levels"].dtype == torch.int16
        grey = embedding["grey"].numpy()
        assert grey.shape == working_size
        grey = cv2.resize(grey, original_size[::-1], interpolation=cv2.INTER_LINEAR)
        scale = np.array(original_size) / np.array(working_size)
        masks = np.zeros((len(boxes), *original_size), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            top, bottom = round(y0 * scale[0]), round((y1 + 1) * scale[0])
            left, right = round(x0 * scale[1]), round((x1 + 1) * scale[1])
            mask[top:bottom, left:right] = grey[top:bottom, left:right] < self.threshold
        return RefinedMasks(masks, np.full(len(boxes), 0.9), np.ones(len(boxes)))


class Labeller(Proposer):
    """Propose dark regions and say that all of them are the first class."""

    labels_candidates = True
    embedding = None

    def __init__(self, context):
        super().__init__(context)
        self.label = context.task.classes[0].label

    def __call__(self, working):
        result = super().__call__(working)
        return Instances(result.scores, result.masks, labels=[self.label] * len(result.scores))


propose, retrieve, refine = Proposer, Retriever, Refiner
