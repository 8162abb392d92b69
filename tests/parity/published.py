"""The conventions of SaLIP's published code, written independently of ``salip_ray.cascade``.

One image of 256 x 256 at a time, through the official ``SamAutomaticMaskGenerator``, open_clip and
``SamPredictor``. Boxes are xywh with w = x1 - x0 (inclusive corners), as the generator gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

RED = (255, 0, 0)


def crops(image, mask, x, y, w, h):
    masked = np.where(mask[..., None], image, 0)
    return masked[y : y + h, x : x + w]


def crop_expand(image, mask, x, y, w, h):
    top, left = max(0, y - 10), max(0, x - 10)
    return image[top : min(256, y + h + 10), left : min(256, x + w + 10)]


def bbox(image, mask, x, y, w, h):
    return cv2.rectangle(image.copy(), (x, y), (x + w, y + h), RED, 5)


def reverse_box_mask(image, mask, x, y, w, h):
    half = image.astype(np.float64) / 2 + np.array([62.0, 58.0, 52.0])
    dimmed = np.rint(half).astype(np.uint8)  # half to even
    dimmed[y : y + h + 1, x : x + w + 1] = image[y : y + h + 1, x : x + w + 1]
    return dimmed


def contour(image, mask, x, y, w, h):
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(image.copy(), contours, -1, RED, 3)


PROMPTS = {
    function.__name__: function
    for function in (crops, crop_expand, bbox, reverse_box_mask, contour)
}


@dataclass
class Published:
    """The results of one visual prompt: pictures, scores, picks (best first) and the final mask."""

    pictures: list[np.ndarray]
    scores: list[float]
    picks: list[int]
    final: np.ndarray


class PublishedCode:
    """Run the published steps with an official SAM and a CLIP of open_clip."""

    def __init__(self, sam, clip, **settings):
        self.generator = SamAutomaticMaskGenerator(sam, **settings)
        self.predictor = SamPredictor(sam)
        self.clip = clip

    def propose(self, image, area_below):
        return [m for m in self.generator.generate(image) if m["area"] < area_below]

    @torch.no_grad()
    def __call__(self, image, masks, mode, sentences, k) -> Published:
        boxes = [[int(v) for v in mask["bbox"]] for mask in masks]
        pictures = [
            PROMPTS[mode](image, mask["segmentation"], *box)
            for mask, box in zip(masks, boxes, strict=True)
        ]
        net, tokenizer = self.clip.model, self.clip.tokenizer
        pixels = [self.clip.preprocess(PIL.Image.fromarray(picture)) for picture in pictures]
        images = net.encode_image(torch.stack(pixels))
        images = images / images.norm(dim=-1, keepdim=True)
        texts = [net.encode_text(tokenizer([sentence])) for sentence in sentences]
        text = torch.stack(texts).mean(dim=0)
        text = text / text.norm(dim=-1, keepdim=True)
        scores = (100.0 * images @ text.T)[:, 0].tolist()
        picks = sorted(range(len(scores)), key=lambda i: scores[i], reverse=True)[:k]
        self.predictor.set_image(image)
        final = np.zeros(image.shape[:2], bool)
        for pick in picks:
            x, y, w, h = boxes[pick]
            box = np.array([x, y, x + w, y + h])
            mask, _, _ = self.predictor.predict(box=box, multimask_output=False)
            final |= mask[0]
        return Published(pictures, scores, picks, final)
