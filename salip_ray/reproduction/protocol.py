"""The published protocol of each dataset: sentences, weights, search space, settings of runs.

Source: ``sam_clip.py``, ``sam_clip_3d.py`` and ``config/`` of aleemsidra/SaLIP, and the abstract of
arXiv 2404.06362.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salip_ray.config import Config, load_config
from salip_ray.config.assignments import merge, parse_assignments
from salip_ray.errors import ConfigError, InputError, WeightsError
from salip_ray.tuning.space import Recipe, Space, draw_recipes

#: ``--weights`` with this value uses the models that ship with the package.
BUNDLED = "bundled"
#: Random settings that the published search tries.
DRAWS = 5
#: Settings that our search tries.
TRIALS = 20
_MODES = ("cascade", "unprompted", "gt_sam")


@dataclass(frozen=True)
class WeightsFile:
    """A file of official weights.

    Attributes:
        name: in the folder of weights.
        url: where it is published.
        sha256: of its content.
    """

    name: str
    url: str
    sha256: str


SAM_VIT_H = WeightsFile(
    "sam_vit_h_4b8939.pth",
    "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
)
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_L14_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_B32_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP_L14 = WeightsFile("ViT-L-14.pt", f"{_OPENAI}/{_L14_SHA256}/ViT-L-14.pt", _L14_SHA256)
CLIP_B32 = WeightsFile("ViT-B-32.pt", f"{_OPENAI}/{_B32_SHA256}/ViT-B-32.pt", _B32_SHA256)

_SPACE_2D: Space = {
    "propose.points_per_side": (4, 8, 16),
    "propose.pred_iou_thresh": (0.2, 0.5, 0.8),
    "propose.stability_score_thresh": (0.2, 0.5, 0.8),
    "propose.crop_nms_thresh": (0.7, 0.8, 0.9),
    "propose.box_nms_thresh": (0.7, 0.8, 0.9),
    "propose.max_area": (20_000, 40_000, 50_000),
}
_SPACE_3D: Space = {
    "propose.points_per_side": (16, 32, 64),
    "propose.pred_iou_thresh": (0.2, 0.5, 0.8, 0.9),
    "propose.stability_score_thresh": (0.2, 0.5, 0.8, 0.95),
}


@dataclass(frozen=True)
class Protocol:
    """What the paper does on a dataset, and what we change.

    Attributes:
        published: preset of the published conventions; ``ours`` is that of ours.
        task: shipped task, whose limits of a candidate's area our run uses.
        prompts: name of SaLIP's file of sentences.
        clip: SaLIP's CLIP.
        space: published search space.
        gain: points of Dice over un-prompted SAM in the paper's abstract.
        search: settings that only the published search has.
        image: settings of both runs.
        published_image: settings of the published run.
        volumes: the images are volumes, scored slice by slice in the published code.
        binary: the published loader makes the resized reference binary.
    """

    published: str
    ours: str
    task: str
    prompts: str
    clip: WeightsFile
    space: Space
    gain: float
    search: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    published_image: Mapping[str, Any] = field(default_factory=dict)
    volumes: bool = False
    binary: bool = True


#: The published search removes components below 5000 px; its labelling, below 200.
_SEARCH_2D = {"min_mask_region_area": 5000}

PROTOCOLS: Mapping[str, Protocol] = {
    "lungs": Protocol(
        *("salip-2d", "paper-2d", "lungs", "lungs.json", CLIP_L14, _SPACE_2D, 50.11),
        search=_SEARCH_2D,
    ),
    "fetal-head": Protocol(
        *("salip-2d", "paper-2d", "fetal_head", "fetal_head.json", CLIP_L14, _SPACE_2D, 30.82),
        search=_SEARCH_2D,
        published_image={"channels": "rgb"},
        binary=False,
    ),
    "brain": Protocol(
        *("salip-3d", "paper-3d", "brain", "brain_seg.json", CLIP_B32, _SPACE_3D, 63.46),
        image={"axis": "sagittal"},
        volumes=True,
    ),
}


@dataclass(frozen=True)
class Settings:
    """The configurations of a reproduction.

    Attributes:
        published: of the published code's conventions, before the search.
        draws: what the published search tries, in order.
        ours: of our conventions, before our search.
        ours_preset: the preset that ``ours`` is made of.
        bundled: the models are those that ship with the package.
    """

    published: Config
    draws: Sequence[Recipe]
    ours: Config
    ours_preset: str
    bundled: bool


def make_settings(
    protocol: Protocol,
    weights: str | None,
    prompts: Path | None,
    *,
    seed: int,
    assignments: Sequence[str] = (),
) -> Settings:
    """Return the configurations of a reproduction.

    Args:
        protocol: of the dataset.
        weights: a folder with the official files, or :data:`BUNDLED`.
        prompts: SaLIP's JSON of sentences.
        seed: of the published search.
        assignments: ``section.field=value`` for both runs, such as sizes of pools.

    Raises:
        WeightsError: files are missing; the message lists them.
        InputError: the prompts are missing, or have more than one class.
        ConfigError: an assignment is wrong.
    """
    models = _models(protocol, weights)
    label, sentences = _sentences(protocol, prompts)
    shipped = load_config(protocol.task).task
    task = {
        "name": protocol.task,
        "prompts": {label: sentences},
        "top_k": shipped.top_k,
        "min_area": shipped.min_area,
        "max_area": shipped.max_area,
    }
    both = {**models, "image": protocol.image, "run": {"modes": list(_MODES)}}
    changes = parse_assignments(assignments)
    if fixed := sorted({"sam", "clip", "task", "storage"} & changes.keys()):
        raise ConfigError(f"--set {fixed[0]} cannot be changed in a reproduction")

    def config(preset: str, own: Mapping[str, Any]) -> Config:
        return load_config(
            {"task": task}, preset=preset, overrides=merge(merge(both, own), changes)
        )

    published = config(protocol.published, {"image": protocol.published_image})
    bundled = weights == BUNDLED
    ours = "paper-bundled" if bundled else protocol.ours
    # Recipe 0 is the given one, which the published search does not try.
    draws = draw_recipes(published, protocol.space, DRAWS + 1, seed)[1:]
    return Settings(published, draws, config(ours, {}), ours, bundled)


def required_files(protocol: Protocol) -> tuple[WeightsFile, WeightsFile]:
    """Return the weights of a dataset: SAM's and CLIP's."""
    return SAM_VIT_H, protocol.clip


def _models(protocol: Protocol, weights: str | None) -> dict[str, Any]:
    """Return the sections ``sam`` and ``clip``."""
    if weights == BUNDLED:
        return {
            "sam": {"model": "bundled", "checkpoint": None},
            "clip": {"model": "bundled", "pretrained": None, "allow_untaught": True},
        }
    sam, clip = required_files(protocol)
    folder = Path(weights or "no-weights").expanduser().resolve()
    missing = [file for file in (sam, clip) if not (folder / file.name).is_file()]
    if missing:
        where = "--weights is missing" if weights is None else f"{folder} lacks weights"
        lines = [f"  {file.name}  sha256 {file.sha256}\n    {file.url}" for file in missing]
        files = "\n".join(lines)
        raise WeightsError(
            f"{where}. Download these files into one folder and name it with --weights "
            f"(or try the command with --weights {BUNDLED}):\n{files}"
        )
    return {
        "sam": {"model": "vit_h", "checkpoint": str(folder / sam.name), "sha256": sam.sha256},
        "clip": {"pretrained": str(folder / clip.name), "sha256": clip.sha256},
    }


def _sentences(protocol: Protocol, prompts: Path | None) -> tuple[str, list[str]]:
    """Return the class and the sentences of SaLIP's JSON."""
    source = f"clip_prompts/{protocol.prompts} of github.com/aleemsidra/SaLIP"
    if prompts is None:
        raise InputError(f"--prompts is missing: give SaLIP's own sentences, {source}")
    try:
        data = json.loads(prompts.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{prompts} cannot be read: {error.strerror}. It must be {source}"
        ) from None
    except ValueError:
        raise InputError(f"{prompts} is not valid JSON: it must be {source}") from None
    if not isinstance(data, dict) or len(data) != 1:
        raise InputError(f"{prompts} must map one class to its sentences, as {source} does")
    ((label, sentences),) = data.items()
    return str(label), sentences
