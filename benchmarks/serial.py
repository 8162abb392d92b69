"""The cascade as a plain loop over the official packages: the baseline, and the reference.

One image at a time, in float32: ``SamAutomaticMaskGenerator``, a crop at a time through open_clip's
own transform and model, ``SamPredictor`` on the image for the boxes. Sentences are encoded once,
which SaLIP's published loop does for every image; nothing is logged or plotted. What makes a label
(area limits, visual prompts, ranking, presence) is this package's; all work on pixels is theirs.
The options of ``refine`` beyond the paper have no official counterpart and must be off.
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
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.geometry import make_working
from salip_ray.cascade.ranking import Ranker
from salip_ray.cascade.retriever import mean_features, single_prompts
from salip_ray.cascade.visual_prompts import visual_prompt
from salip_ray.config import Config
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import Box, Candidate, Image, Selection


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
        settings = config.propose.model_dump(include=official.keys() - {"model"})
        self.generator = SamAutomaticMaskGenerator(sam, **settings)
        self.predictor = SamPredictor(sam)
        self.clip = clip
        self.ranker = Ranker(clip, config)

    def __call__(self, image: Image) -> SerialResult:
        """Label one image, uint8 RGB [H, W, 3]."""
        clock = [time.perf_counter()]
        working = make_working(image, self.config.image)
        everything = self._propose(working)
        low, high = self.config.area_limits(*working.shape[:2])
        candidates = [c for c in everything if low < c.area < high]
        result = SerialResult(candidates, len(everything))
        clock.append(time.perf_counter())
        selections: tuple[Selection, ...] = ()
        if candidates:
            selections = self.ranker.select(self._features(working, candidates), candidates)
        for selection in selections:
            result.picks.setdefault(selection.label, []).append(selection.candidate_id)
        clock.append(time.perf_counter())
        boxes = {c.id: c.box for c in candidates}
        least = self.config.retrieve.min_presence
        present = [s for s in selections if s.clip.presence is None or s.clip.presence >= least]
        if present:
            self.predictor.set_image(image)
            scale = image.shape[1] / working.shape[1], image.shape[0] / working.shape[0]
            for selection in present:
                mask = self._segment(boxes[selection.candidate_id], scale)
                known = result.masks.get(selection.label)
                result.masks[selection.label] = mask if known is None else known | mask
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
    def _features(self, working: Image, candidates: list[Candidate]) -> torch.Tensor:
        visited = []
        for config in single_prompts(self.config.retrieve):
            rows = []
            for candidate in candidates:
                picture = visual_prompt(working, candidate, config)
                pixels = self.clip.preprocess(PIL.Image.fromarray(picture)).to(self.clip.device)
                rows.append(F.normalize(self.clip.model.encode_image(pixels[None])[0], dim=-1))
            visited.append(torch.stack(rows))
        return mean_features(visited)

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
