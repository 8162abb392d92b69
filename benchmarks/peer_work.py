"""The work that ``benchmarks.peers`` gives to every candidate: weights, an image, thresholds.

:func:`prepare` writes it into a folder once. Every candidate reads it in a separate process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import peer_models, ratios
from benchmarks.peer_models import SHAPES
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.sam2 import Sam2Proposer
from salip_ray.config import Config, load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.models.sam.load import quicken
from salip_ray.models.sam.sam2 import Sam2
from salip_ray.schema import Image

#: Works: proposals by their models, and whole cascades by their CLIP.
PROPOSALS = (*SHAPES, "bundled", "sam2")
CLIPS = {"cascade-b32": "ViT-B-32-quickgelu", "cascade-l14": "ViT-L-14-quickgelu"}
CASCADES = (*CLIPS, "cascade-bundled")

_SHARE_IOU, _SHARE_STABLE = 0.30, 0.85  #: of the masks of random weights that fail a threshold
_MARGIN = 0.05
_THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh")


def phantom(side: int) -> Image:
    """Return the image, uint8 RGB [side, side, 3]."""
    image = make_phantom("chest_xray", 0, bank="test", size=max(side, 128)).image
    return np.ascontiguousarray(image[:side, :side])


def prepare(work: str, folder: Path, points: int) -> None:
    """Write the weights, the image and the settings of a work.

    Args:
        work: one of ``PROPOSALS`` or ``CASCADES``.
        folder: where to write.
        points: per side of the grid.
    """
    settings: dict[str, Any] = {"points_per_side": points}
    if work in CASCADES:
        # These have weights, thresholds and images of the other benchmarks.
        image = ratios.images(1, 256 if work == "cascade-bundled" else 1024)[0]
    else:
        image = phantom(SHAPES.get(work, SHAPES["vit_b"]).side)
        settings |= {"points_per_batch": 64, "min_mask_region_area": 0}
        settings |= _rest(work, folder, settings, image)
    np.save(folder / "image.npy", image)
    (folder / "settings.json").write_text(json.dumps(settings))


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the settings of a prepared work."""
    values: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    return values


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the random weights of a prepared work."""
    state: dict[str, Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return state


def config_of(settings: dict[str, Any], side: int, precision: str = "exact") -> Config:
    """Return the configuration of ours with the settings of a prepared work."""
    overrides = {
        "propose": {"crop_n_layers": 0, **settings},
        "image": {"long_side": side},
        "task": {"min_area": 0, "max_area": 1},
        "run": {"precision": precision},
    }
    return load_config("lungs", overrides=overrides)


def our_proposer(
    work: str, folder: Path, settings: dict[str, Any], side: int, precision: str
) -> SamProposer:
    """Return our proposer with the weights of a prepared work."""
    config = config_of(settings, side, precision)
    if work == "sam2":
        model, _ = peer_models.transformers_sam2(weights(folder))
        proposer = Sam2Proposer.__new__(Sam2Proposer)  # without a checkpoint
        proposer.sam2 = Sam2(model, precision)
        SamProposer.__init__(proposer, model, config)
        return proposer
    if work == "bundled":
        sam = load_bundled_sam().requires_grad_(False)
    else:
        sam = peer_models.official_sam("segment_anything", SHAPES[work], weights(folder))
    quicken(sam, "fast" if precision == "fast" else "exact")
    return SamProposer(sam, config)


def _rest(work: str, folder: Path, settings: dict[str, Any], image: Image) -> dict[str, float]:
    """Write the weights of proposals; return their thresholds."""
    if work == "bundled":
        propose = load_config("lungs").propose
        return {name: getattr(propose, name) for name in _THRESHOLDS}
    sam2 = work == "sam2"
    state = peer_models.random_state_sam2() if sam2 else peer_models.random_state(SHAPES[work])
    torch.save(state, folder / "weights.pt")
    # Boxes of random weights are nearly the whole image: NMS keeps them all.
    nms = {"box_nms_thresh": 1.0}
    return nms | _thresholds(work, folder, settings | nms, image)


def _thresholds(
    work: str, folder: Path, settings: dict[str, Any], image: Image
) -> dict[str, float]:
    """Return thresholds that some masks of random weights pass, none of them by a narrow margin.

    Few pass: such masks are noise, whose run-length codes take longer than those of organs.
    """
    everything = {**settings, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    proposer = our_proposer(work, folder, everything, image.shape[0], "exact")
    views = proposer.decode_views(image)[0]
    ious = torch.cat([view.predicted_iou for view in views])
    stable = torch.cat([view.stability for view in views]).nan_to_num()
    least_iou = widest_gap(ious.tolist(), _SHARE_IOU)
    least_stable = widest_gap(stable[ious > least_iou].tolist(), _SHARE_STABLE)
    return {"pred_iou_thresh": least_iou, "stability_score_thresh": least_stable}


def widest_gap(values: Sequence[float], share: float) -> float:
    """Return the middle of the widest gap between values near a quantile, within 0 and 1.

    Rounding moves no value across it.
    """
    ordered = np.sort(np.clip(values, 0.0, 1.0))
    low, high = (
        round(np.clip(share + step, 0, 1) * (len(ordered) - 1)) for step in (-_MARGIN, _MARGIN)
    )
    near = ordered[max(0, low - 1) : high + 2]
    widest = int(np.argmax(np.diff(near)))
    return float(near[widest : widest + 2].mean())
