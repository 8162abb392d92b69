"""The cascade as a plain loop over the official packages: the baseline, and the reference.

One image at a time, in float32: ``SamAutomaticMaskGenerator``, a crop at a time through open_clip's
own transform and model, ``SamPredictor`` on the image for the boxes. Sentences are encoded once,
which SaLIP's published loop does for every image; nothing is logged or plotted. What makes a label
(area limits, visual prompts, ties, distinct candidates) is this package's; all work on pixels is
theirs.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from salip_ray.cascade.crops import visual_prompt
from salip_ray.cascade.resolution import to_working
from salip_ray.config import Config
from salip_ray.models.clip import ClipModel
from salip_ray.rows import Box, Candidate, Image


@dataclass
class SerialResult:
    """What the loop made of one image.

    ``picks`` are candidate ids by label, best first; ``masks`` bool [H, W] by label, of the image's
    own size; ``seconds`` by step.
    """

    candidates: list[Candidate]
    n_proposed: int
    picks: dict[str, list[int]] = field(default_factory=dict)
    masks: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class SerialCascade:
    """The official packages in a loop.

    Args:
        config: as for :class:`salip_ray.Cascade`; the mode ``cascade`` alone.
        sam: an official, unmodified SAM.
        clip: an open_clip model with its transform and tokenizer.
    """

    def __init__(self, config: Config, sam: Sam, clip: ClipModel) -> None:
        self.config = config
        official = inspect.signature(SamAutomaticMaskGenerator).parameters
        knobs = {
            name: knob for name, knob in config.propose.model_dump().items() if name in official
        }
        self.generator = SamAutomaticMaskGenerator(sam, **knobs)
        self.predictor = SamPredictor(sam)
        self.clip = clip
        self.text = [self._text(spec.sentences) for spec in config.task.classes]

    def __call__(self, image: Image) -> SerialResult:
        """Label one image, uint8 RGB [H, W, 3]."""
        clock = [time.perf_counter()]
        working = to_working(image, self.config.image.long_side)
        everything = self._propose(working)
        low, high = self.config.task.area_limits(*working.shape[:2])
        candidates = [c for c in everything if low < c.area < high]
        result = SerialResult(candidates, len(everything))
        clock.append(time.perf_counter())
        if candidates:
            scores = self._scores(working, candidates)
            for spec, column in zip(self.config.task.classes, scores.T, strict=True):
                result.picks[spec.label] = self._pick(column, candidates, spec.top_k)
        clock.append(time.perf_counter())
        boxes = {c.id: c.box for c in candidates}
        if result.picks:
            self.predictor.set_image(image)
            scale = image.shape[1] / working.shape[1], image.shape[0] / working.shape[0]
            for label, picks in result.picks.items():
                masks = [self._segment(boxes[pick], scale) for pick in picks]
                result.masks[label] = np.any(masks, axis=0)
        clock.append(time.perf_counter())
        steps = ("propose", "retrieve", "refine")
        result.seconds = dict(zip(steps, np.diff(clock).tolist(), strict=True))
        return result

    def _propose(self, working: Image) -> list[Candidate]:
        try:
            records = self.generator.generate(working)
        except IndexError:  # what it raises with crop layers and no mask at all
            records = []
        return [_candidate(index, record) for index, record in enumerate(records)]

    @torch.no_grad()
    def _text(self, sentences: tuple[str, ...]) -> torch.Tensor:
        tokens = self.clip.tokenizer(list(sentences)).to(self.clip.device)
        mean = self.clip.model.encode_text(tokens).mean(dim=0)
        return mean / mean.norm()

    @torch.no_grad()
    def _scores(self, working: Image, candidates: list[Candidate]) -> npt.NDArray[np.float32]:
        rows = []
        for candidate in candidates:
            picture = visual_prompt(working, candidate, self.config.retrieve)
            pixels = self.clip.preprocess(PIL.Image.fromarray(picture)).to(self.clip.device)
            seen = self.clip.model.encode_image(pixels[None])[0]
            rows.append([100 * (seen / seen.norm()) @ text for text in self.text])
        return np.array(rows, dtype=np.float32)

    def _pick(
        self, column: npt.NDArray[np.float32], candidates: list[Candidate], k: int
    ) -> list[int]:
        chosen: list[Candidate] = []
        for index in np.argsort(-column, kind="stable"):
            candidate = candidates[index]
            distinct = all(
                (candidate.mask & other.mask).sum() / max(1, min(candidate.area, other.area))
                <= self.config.retrieve.max_overlap
                for other in chosen
            )
            if distinct and len(chosen) < k:
                chosen.append(candidate)
        return [candidate.id for candidate in chosen]

    def _segment(self, box: Box, scale: tuple[float, float]) -> npt.NDArray[np.bool_]:
        prompt = np.array(box) * np.array([*scale, *scale])
        masks, _, _ = self.predictor.predict(box=prompt, multimask_output=False)
        return masks[0]


def _candidate(index: int, record: dict[str, Any]) -> Candidate:
    x, y, width, height = record["bbox"]
    crop_x, crop_y, crop_width, crop_height = record["crop_box"]
    return Candidate(
        id=index,
        mask=np.ascontiguousarray(record["segmentation"]),
        area=int(record["area"]),
        box=(x, y, x + width, y + height),
        predicted_iou=record["predicted_iou"],
        stability_score=record["stability_score"],
        point=tuple(record["point_coords"][0]),
        crop_box=(crop_x, crop_y, crop_x + crop_width - 1, crop_y + crop_height - 1),
    )
