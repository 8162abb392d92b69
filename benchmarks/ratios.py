"""The ratios of one process: the cascade against the serial loop on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from benchmarks.measure import clocked, flops, paired, peak_flops, seconds
from benchmarks.parity import compare
from benchmarks.serial import SerialCascade
from salip_ray.cascade import sam_ops as prompting
from salip_ray.cascade.cascade import Cascade
from salip_ray.config import Config, load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.models.clip.load import ClipModel, load_clip
from salip_ray.models.clip.transform import DeviceTransform
from salip_ray.models.sam.load import quicken
from salip_ray.schema import Image


@dataclass(frozen=True)
class Setup:
    """One recipe in both forms.

    Attributes:
        name: of the models.
        official: the serial loop, in float32.
        ours: the cascade.
        images: uint8 RGB, all that is measured.
        device: of both.
        dtype: in which ours multiplies.
    """

    name: str
    official: SerialCascade
    ours: Cascade
    images: Sequence[Image]
    device: torch.device
    dtype: torch.dtype


def images(count: int, size: int = 256) -> list[Image]:
    """Chest phantoms of the tune bank, 256 pixels and up."""
    return [make_phantom("chest_xray", i, bank="tune", size=size).image for i in range(count)]


def bundled(count: int, precision: str = "exact", device: str = "cpu") -> Setup:
    """Return the bundled models under their preset."""
    torch_device = torch.device(device)
    config = load_config("lungs", overrides=[f"run.precision={precision}", "task.min_confidence=0"])
    sam = load_bundled_sam().requires_grad_(False).to(torch_device)
    clip = load_clip(config.clip, device=torch_device)
    return _setup("bundled", config, sam, clip, images(count), torch_device)


def official_size(
    model: str, clip: str, settings: dict[str, Any], count: int, precision: str, device: str
) -> Setup:
    """Return an official SAM and an open_clip model with random weights.

    They cost as much as trained ones.

    Random weights know no parts, so the threshold on the predicted IoU is set such that about 50
    masks of the first image pass, and NMS is told to keep them.
    """
    torch_device = torch.device(device)
    torch.manual_seed(0)
    sam = sam_model_registry[model]().eval().requires_grad_(False)
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        if "hypernetworks" in name and "layers.2.weight" in name:
            parameter.mul_(40)
    sam = sam.to(torch_device)
    net, _, transform = open_clip.create_model_and_transforms(clip)
    net = net.eval().requires_grad_(False).to(torch_device)
    text = ClipModel(net, transform, open_clip.get_tokenizer(clip), torch_device)
    pictures = images(count, size=1024)
    overrides = {
        "image": {"long_side": 1024},
        # The serial loop has no confidence, and leaves no class empty.
        "task": {"min_area": 0, "max_area": 1, "min_confidence": 0},
        "retrieve": {"max_overlap": 1},
        "propose": {
            **settings,
            "stability_score_thresh": 0,
            "box_nms_thresh": 1,
            "crop_nms_thresh": 1,
            "min_mask_region_area": 0,
            "pred_iou_thresh": _threshold(sam, pictures[0], settings),
        },
        "run": {"precision": precision},
    }
    return _setup(
        model, load_config("lungs", overrides=overrides), sam, text, pictures, torch_device
    )


def _threshold(sam: Sam, image: Image, settings: dict[str, Any], wanted: int = 50) -> float:
    """Return the predicted IoU that about ``wanted`` masks of all of an image's points exceed."""
    side = int(settings["points_per_side"])
    points = 5 * side**2 // 4 if settings.get("crop_n_layers") else side**2
    random = np.random.default_rng(0)
    height, width = image.shape[:2]
    some = torch.as_tensor(random.uniform(0, 1, (16, 2)) * (width, height))
    embedding = prompting.encode(sam, image)
    _, ious = prompting.decode(sam, embedding, (height, width), points=some, multimask=True)
    share = max(0.0, 1 - wanted / (3 * points))
    return float(np.clip(np.quantile(ious.float().cpu().numpy(), share), 0.001, 0.999))


def _setup(
    name: str,
    config: Config,
    sam: Sam,
    clip: ClipModel,
    pictures: Sequence[Image],
    torch_device: torch.device,
) -> Setup:
    official = SerialCascade(config, sam, clip)
    quick, ours_clip, dtype = copy.deepcopy(sam), clip, torch.float32
    quicken(quick, "fast" if config.run.precision == "fast" else "exact")
    if config.run.precision == "fast":
        dtype = torch.bfloat16
        net = copy.deepcopy(clip.model)
        net.visual.to(dtype)  # type: ignore[union-attr]
        transform = DeviceTransform.like(clip.preprocess) if torch_device.type == "cuda" else None
        ours_clip = ClipModel(net, clip.preprocess, clip.tokenizer, torch_device, transform, dtype)
    ours = Cascade(config, device=torch_device, sam=quick, clip=ours_clip)
    return Setup(name, official, ours, pictures, torch_device, dtype)


def end_to_end(setup: Setup, pairs: int) -> dict[str, Any]:
    """Whole cascades in one process, official over ours, and whether the labels are the same."""
    results: list[Any] = []

    def serial(index: int) -> None:
        results.append(setup.official(setup.images[index]))

    times, parities = [], []
    for index in range(min(pairs, len(setup.images))):
        official = seconds(lambda index=index: serial(index), setup.device)  # type: ignore[misc]
        ours: list[Any] = []
        own = seconds(
            lambda index=index, ours=ours: ours.append(setup.ours(setup.images[index])),  # type: ignore[misc]
            setup.device,
        )
        times.append((official, own))
        parities.append(compare(ours[0], results[-1]))
    ratios = [official / own for official, own in times]
    return {
        "ratio": float(np.median(ratios)),
        "official_seconds": float(np.median([t for t, _ in times])),
        "ours_seconds": float(np.median([t for _, t in times])),
        "official_steps": {
            step: float(np.median([r.seconds[step] for r in results]))
            for step in ("propose", "retrieve", "refine")
        },
        "candidates": float(np.median([len(r.candidates) for r in results])),
        "parity": float(np.mean([p.holds for p in parities])),
        "same_picks": float(np.mean([p.picks for p in parities])),
        "bit_identical": float(np.mean([p.exact for p in parities])),
        "dice": float(min(p.dice for p in parities)),
    }


def encoder_efficiency(setup: Setup, pairs: int) -> dict[str, Any]:
    """Return the encoder's FLOP/s over the peak of a matrix product in the same run."""
    quick, official = setup.ours.propose.sam, setup.official.predictor.model
    side = quick.image_encoder.img_size
    pixels = torch.randn(1, 3, side, side, device=setup.device)
    work = flops(lambda: quick.image_encoder(pixels))
    with torch.no_grad():
        theirs, own = paired(
            lambda: official.image_encoder(pixels),
            lambda: quick.image_encoder(pixels),
            setup.device,
            pairs,
        )
    peak = peak_flops(setup.device, setup.dtype)
    return {
        "efficiency": work / own / peak,
        "gflop": work / 1e9,
        "official_seconds": theirs,
        "ours_seconds": own,
        "peak_gflops": peak / 1e9,
    }


def decode_ratio(setup: Setup, pairs: int) -> dict[str, Any]:
    """Everything of the proposals but the encoder, per point, official over ours."""
    image = setup.images[0]
    generator, proposer = setup.official.generator, setup.ours.propose
    times = []
    for _ in range(pairs):
        theirs: list[float] = []
        with clocked(generator.predictor, "set_image", theirs, setup.device):
            official = seconds(lambda: generator.generate(image), setup.device)
        ours: list[float] = []
        with clocked(prompting, "encode_views", ours, setup.device):
            own = seconds(lambda: proposer(image), setup.device)
        times.append((official - sum(theirs), own - sum(ours)))
    points = sum(len(grid) for grid in proposer.point_grids[:1]) or 1
    official, own = (float(np.median(column)) for column in zip(*times, strict=True))
    return {
        "ratio": official / own,
        "official_ms_per_point": 1000 * official / points,
        "ours_ms_per_point": 1000 * own / points,
    }


def shares(setup: Setup) -> dict[str, Any]:
    """Where our time goes, and how near it is to the matrix products' own at peak.

    The floor is the time that the official networks' multiplications take at the machine's peak,
    each view encoded once; ``own_floor_over_wall`` counts only those that are still made here. Glue
    is what is neither a network nor the masks' upscaling.
    """
    image, sam, clip = setup.images[-1], setup.ours.propose.sam, setup.ours.retrieve
    assert clip is not None
    setup.ours(image)
    wall = min(seconds(lambda: setup.ours(image), setup.device) for _ in range(3))
    # A compiled forward is not to be wrapped: there, what prepares its input counts as encoder.
    encoder: tuple[Any, str, str] = (sam.image_encoder, "forward", "encoder")
    if setup.device.type == "cuda":
        encoder = (prompting, "encode_views", "encoder")
    spent: dict[str, list[float]] = {"encoder": [], "decoder": [], "upscale": [], "clip": []}
    with ExitStack() as stack:
        for owner, name, part in (
            encoder,
            (sam.mask_decoder, "_decode", "decoder"),
            (prompting, "upscale", "upscale"),
            (clip.clip.model, "encode_image", "clip"),
        ):
            stack.enter_context(clocked(owner, name, spent[part], setup.device))
        whole = seconds(lambda: setup.ours(image), setup.device)
    work = flops(lambda: setup.ours(image))
    official = setup.official.predictor.model
    side = official.image_encoder.img_size
    view = torch.zeros(1, 3, side, side, device=setup.device)
    # The serial loop encodes the image again for the boxes.
    counted = flops(lambda: setup.official(image)) - flops(lambda: official.image_encoder(view))
    peak = peak_flops(setup.device, setup.dtype)
    parts = {part: sum(times) / whole for part, times in spent.items()}
    return {
        "floor_over_wall": counted / peak / wall,
        "own_floor_over_wall": work / peak / wall,
        "gflop": counted / 1e9,
        "own_gflop": work / 1e9,
        "wall_seconds": wall,
        **parts,
        "glue": 1 - sum(parts.values()),
    }
