"""Time of the faithful preset against the published loop: ``python -m benchmarks.published_loop``.

The loop does per image what the published code does, through the official packages: the mask
generator, one CLIP batch of all visual prompts, every sentence encoded again, and the image encoded
again for the box prompt. Ours is :class:`salip_ray.Cascade` with the preset ``salip-2d``. Both use
the bundled models, float32 and one thread. They run in turns on the same phantoms; the figures are
seconds of CPU, which a busy machine does not change much.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import PIL.Image
import torch
import typer
from rich.console import Console
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from benchmarks.conventions import KINDS, PUBLISHED_RECIPE
from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.geometry import make_working, to_original
from salip_ray.cascade.visual_prompts import visual_prompt
from salip_ray.config import Config, load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.models.clip.load import ClipModel, load_clip
from salip_ray.models.sam.load import load_sam
from salip_ray.schema import Candidate, Image, Mask

_SIZE = 320  # pixels of a phantom
_SETTINGS = (
    *("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh"),
    *("box_nms_thresh", "crop_nms_thresh", "crop_n_layers", "crop_n_points_downscale_factor"),
    "min_mask_region_area",
)


class PublishedLoop:
    """The published steps on one image at a time."""

    def __init__(self, config: Config, sam: Sam, clip: ClipModel) -> None:
        settings = {name: getattr(config.propose, name) for name in _SETTINGS}
        self.config, self.clip = config, clip
        self.generator, self.predictor = (
            SamAutomaticMaskGenerator(sam, **settings),
            SamPredictor(sam),
        )

    @torch.no_grad()
    def __call__(self, image: Image) -> Mask:
        """Return the label of the only class, bool [H, W]."""
        working = make_working(image, self.config.image)
        size = working.shape[:2]
        low, high = self.config.area_limits(*size)
        records = [r for r in self.generator.generate(working) if low < r["area"] < high]
        final = np.zeros(size, np.bool_)
        if records:
            candidates = [_candidate(number, record) for number, record in enumerate(records)]
            self.predictor.set_image(working)
            for pick in self._picks(working, candidates):
                box = np.array(candidates[pick].box)
                mask, _, _ = self.predictor.predict(box=box, multimask_output=False)
                final |= mask[0]
        return to_original(final, image.shape[:2])

    def _picks(self, working: Image, candidates: list[Candidate]) -> list[int]:
        net, (spec,) = self.clip.model, self.config.task.classes
        pixels = [
            self.clip.preprocess(
                PIL.Image.fromarray(visual_prompt(working, candidate, self.config.retrieve))
            )
            for candidate in candidates
        ]
        images = net.encode_image(torch.stack(pixels))
        images = images / images.norm(dim=-1, keepdim=True)
        texts = [net.encode_text(self.clip.tokenizer([sentence])) for sentence in spec.sentences]
        text = torch.stack(texts).mean(dim=0)
        scores = (100.0 * images @ (text / text.norm(dim=-1, keepdim=True)).T)[:, 0].tolist()
        order = sorted(range(len(scores)), key=lambda number: scores[number], reverse=True)
        return order[: spec.most(len(order))]


def _candidate(number: int, record: dict[str, Any]) -> Candidate:
    x, y, width, height = record["bbox"]
    return Candidate(
        id=number,
        mask=np.ascontiguousarray(record["segmentation"]),
        area=int(record["area"]),
        box=(x, y, x + width, y + height),
        predicted_iou=record["predicted_iou"],
        stability_score=record["stability_score"],
        point=tuple(record["point_coords"][0]),
        crop_box=tuple(record["crop_box"]),
    )


def _cpu_seconds(work: Callable[[Image], Any], image: Image) -> tuple[float, Any]:
    began = time.process_time()
    result = work(image)
    return time.process_time() - began, result


def main(
    count: Annotated[int, typer.Option("--images", min=1, help="Of each task.")] = 5,
) -> None:
    """Measure pairs and print the ratio of each task."""
    torch.set_num_threads(1)
    official = load_bundled_sam().requires_grad_(False)
    defaults = load_config("lungs")
    sam, clip = load_sam(defaults.sam), load_clip(defaults.clip)
    console = Console()
    console.print("| task | loop, s | ours, s | ratio, median (range) | equal labels |")
    console.print("| --- | --- | --- | --- | --- |")
    for task, kind in KINDS.items():
        config = load_config(
            task, preset="salip-2d", overrides=[*PUBLISHED_RECIPE, "task.min_confidence=0"]
        )
        loop, ours = PublishedLoop(config, official, clip), Cascade(config, sam=sam, clip=clip)
        pairs, equal = [], 0
        for number in range(-1, count):  # the first pair warms caches up
            image = make_phantom(kind, max(0, number), bank="tune", size=_SIZE).image
            published, label = _cpu_seconds(loop, image)
            own, result = _cpu_seconds(ours, image)
            if number < 0:
                continue
            pairs.append((published, own))
            mask = result.masks[0].mask if result.masks else np.zeros(label.shape, np.bool_)
            equal += bool(np.array_equal(mask, label))
        ratios = [one / other for one, other in pairs]
        means = [statistics.fmean(side) for side in zip(*pairs, strict=True)]
        console.print(
            f"| {task} | {means[0]:.2f} | {means[1]:.2f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {equal} of {count} |",
            highlight=False,
        )


if __name__ == "__main__":
    typer.run(main)
