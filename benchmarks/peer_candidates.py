"""The candidates of ``benchmarks.peers``: packages that do the same work, and ours."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from benchmarks import peer_models, ratios
from benchmarks.peer_models import SHAPES
from benchmarks.peer_output import Output
from benchmarks.peer_work import CASCADES, CLIPS, our_proposer, settings_of, weights
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.schema import Image

Run = Callable[[Image], Output]
#: From the name of a work and its folder to a function of an image.
Load = Callable[[str, Path], Run]

_GENERATOR = (
    *("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh"),
    *("box_nms_thresh", "min_mask_region_area"),
)
_INITIALIZE = ("points_per_side", "points_per_batch")


@dataclass(frozen=True)
class Candidate:
    """A package with a generator of masks, or ours.

    Attributes:
        name: in the table.
        load: how it does a work.
        works: those that it can do.
        module: it must be importable.
        package: whose version the table shows.
    """

    name: str
    load: Load
    works: tuple[str, ...]
    module: str = "salip_ray"
    package: str = "salip-ray"

    @property
    def missing(self) -> bool:
        """True if it is not installed."""
        return importlib.util.find_spec(self.module) is None

    @property
    def version(self) -> str:
        """Version of the package."""
        return importlib.metadata.version(self.package)


def _sam_of(package: str, work: str, folder: Path) -> Any:
    if work == "bundled":
        return load_bundled_sam().requires_grad_(False)
    return peer_models.official_sam(package, SHAPES[work], weights(folder))


def official_interface(package: str, work: str, folder: Path) -> Run:
    """Run ``SamAutomaticMaskGenerator`` of ``segment_anything`` or of a fork."""
    sam = _sam_of(package, work, folder)
    settings = {name: settings_of(folder)[name] for name in _GENERATOR}
    generator = importlib.import_module(package).SamAutomaticMaskGenerator(sam, **settings)
    return lambda image: Output([record["segmentation"] for record in generator.generate(image)])


def sam2_package(_: str, folder: Path) -> Run:
    """Run ``SAM2AutomaticMaskGenerator``."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    settings = {name: settings_of(folder)[name] for name in _GENERATOR}
    generator = SAM2AutomaticMaskGenerator(peer_models.official_sam2(), **settings)
    return lambda image: Output(
        [np.asarray(record["segmentation"], np.bool_) for record in generator.generate(image)]
    )


def micro_sam(work: str, folder: Path) -> Run:
    """Run the ``AutomaticMaskGenerator`` of ``micro_sam``."""
    from micro_sam.instance_segmentation import AutomaticMaskGenerator
    from micro_sam.util import precompute_image_embeddings
    from segment_anything import SamPredictor

    settings = settings_of(folder)
    predictor = SamPredictor(_sam_of("segment_anything", work, folder))
    predictor.model_type, predictor.model_name = "vit_b", "vit_b"
    generator = AutomaticMaskGenerator(predictor, **{k: settings[k] for k in _INITIALIZE})
    later = {name: settings[name] for name in _GENERATOR if name not in _INITIALIZE}

    def run(image: Image) -> Output:
        # By itself it takes the rows of an RGB image for slices.
        embedding = precompute_image_embeddings(predictor, image, ndim=2, verbose=False)
        generator.initialize(image, image_embeddings=embedding)
        records = generator.generate(**later, output_mode="binary_mask")
        return Output([record["segmentation"] for record in records])

    return run


def transformers_pipeline(work: str, folder: Path) -> Run:
    """Run the ``mask-generation`` pipeline of ``transformers``."""
    from transformers import pipeline

    state, settings = weights(folder), settings_of(folder)
    if work == "sam2":
        model, processor = peer_models.transformers_sam2(state)
    else:
        model, processor = peer_models.transformers_sam(SHAPES[work], state)
    generate = pipeline("mask-generation", model=model, image_processor=processor, device="cpu")
    options = {
        "points_per_crop": settings["points_per_side"],
        "points_per_batch": settings["points_per_batch"],
        "pred_iou_thresh": settings["pred_iou_thresh"],
        "stability_score_thresh": settings["stability_score_thresh"],
        "crops_nms_thresh": settings["box_nms_thresh"],
    }

    def run(image: Image) -> Output:
        result = generate(PIL.Image.fromarray(image), **options)
        return Output([np.asarray(mask, np.bool_) for mask in result["masks"]])

    return run


def ours(precision: str, work: str, folder: Path) -> Run:
    """Run our proposer."""
    side = len(np.load(folder / "image.npy", mmap_mode="r"))
    proposer = our_proposer(work, folder, settings_of(folder), side, precision)
    return lambda image: Output([candidate.mask for candidate in proposer(image).candidates])


def _setup(precision: str, work: str, folder: Path) -> ratios.Setup:
    if work == "cascade-bundled":
        return ratios.bundled(1, precision)
    points = {"points_per_side": settings_of(folder)["points_per_side"]}
    return ratios.official_size("vit_b", CLIPS[work], points, 1, precision, "cpu")


def official_cascade(work: str, folder: Path) -> Run:
    """Run the serial loop over ``segment_anything`` and ``open_clip``."""
    loop = _setup("exact", work, folder).official

    def run(image: Image) -> Output:
        result = loop(image)
        positions = {c.id: index for index, c in enumerate(result.candidates)}
        picks = {name: [positions[i] for i in ids] for name, ids in result.picks.items()}
        return Output([c.mask for c in result.candidates], picks, result.masks)

    return run


def our_cascade(precision: str, work: str, folder: Path) -> Run:
    """Run ``salip_ray.Cascade``."""
    cascade = _setup(precision, work, folder).ours

    def run(image: Image) -> Output:
        result = cascade(image)
        positions = {c.id: index for index, c in enumerate(result.candidates)}
        picks: dict[str, list[int]] = {}
        for selection in result.selections:
            picks.setdefault(selection.label, []).append(positions[selection.candidate_id])
        labels = {mask.label: mask.mask for mask in result.masks if mask.method == "cascade"}
        return Output([c.mask for c in result.candidates], picks, labels)

    return run


_V1 = ("vit_b", "tiny", "bundled")
#: The first of a work is what the others are compared with.
CANDIDATES = (
    Candidate(
        "segment_anything",
        partial(official_interface, "segment_anything"),
        _V1,
        "segment_anything",
        "segment-anything",
    ),
    Candidate("sam2", sam2_package, ("sam2",), "sam2", "sam2"),
    Candidate("official packages", official_cascade, CASCADES, "open_clip", "open-clip-torch"),
    Candidate(
        "mobile_sam",
        partial(official_interface, "mobile_sam"),
        ("vit_b", "tiny"),
        "mobile_sam",
        "mobilesam-mirror",
    ),
    Candidate("micro_sam", micro_sam, _V1, "micro_sam", "micro-sam"),
    Candidate(
        "transformers",
        transformers_pipeline,
        ("vit_b", "tiny", "sam2"),
        "transformers",
        "transformers",
    ),
    *(
        Candidate(f"salip-ray, {precision}", partial(load, precision), works)
        for load, works in ((ours, (*_V1, "sam2")), (our_cascade, CASCADES))
        for precision in ("exact", "fast")
    ),
)


def of_work(work: str) -> list[Candidate]:
    """Return the candidates that can do a work."""
    return [candidate for candidate in CANDIDATES if work in candidate.works]


def named(name: str, work: str) -> Candidate:
    """Return a candidate by its name in the table."""
    return next(candidate for candidate in of_work(work) if candidate.name == name)
