"""The configuration, as frozen typed sections.

A *task* file defines what to label (``task``: classes, sentences, top-k, area limits). A *preset*
sets models and recipe (``sam``, ``clip``, ``propose``, ``retrieve``, ``refine``, ``image``). The
other sections (``run``, ``pools``, ``privacy``, ``storage``) define how and where the job runs.
:mod:`salip_ray.config.loading` merges them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from salip_ray.config.base import Fraction, Percent, Positive, Section, Sha256
from salip_ray.config.job import PoolsConfig, PrivacyConfig, RunConfig, StorageConfig

Axis = Literal["axial", "coronal", "sagittal"]
Resize = Literal["auto", "pillow", "device"]
VisualPrompt = Literal["crops", "crop_expand", "bbox", "reverse_box_mask", "contour"]


class ClassSpec(Section):
    """One class of a task: its id in label maps, its sentences, and its k."""

    label: str
    class_id: Positive
    sentences: tuple[str, ...]
    top_k: Positive


class TaskConfig(Section):
    """What to label.

    ``prompts`` maps each class to its sentences; in a file it may be the path of a SaLIP prompt
    JSON. Classes get the ids 1, 2, ... in that order. ``top_k`` is a number, or a mapping of class
    to number. ``min_area`` and ``max_area`` bound the area of a candidate; both are exclusive, and
    are a fraction of the working image (up to 1) or a number of its pixels (above 1).

    ``distractors`` have the form of ``prompts``: classes that a candidate may show instead. They
    compete if ``retrieve.scoring`` is ``softmax`` and are never labelled. A distractor with the
    name of a class is that class and does not compete with it, so several tasks can share a list.
    ``companions`` maps a class to the distractors that occur only next to it (a fragment of it, a
    structure around it): they compete for the candidate, but count as presence of the class. With
    the bundled CLIP and ``softmax``, a task that names no distractors gets all other classes that
    the CLIP was taught.

    ``signs`` maps a class to those of its companions that only an image of the class shows: a
    ventricle is a sign of a brain, a skull is not. With them the confidence of a label also tells
    whether the class is there at all. A class whose label has a confidence below ``min_confidence``
    is left empty.

    ``tuned_on`` are the ids of the images that a search used to choose the recipe. They are
    labelled, but no evaluation counts them.
    """

    name: str = Field(min_length=1)
    prompts: dict[str, tuple[str, ...]] = Field(min_length=1)
    distractors: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    companions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    signs: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    top_k: Positive | dict[str, Positive] = 1
    min_area: float = Field(default=0.0, ge=0.0)
    max_area: float = Field(default=1.0, gt=0.0)
    min_confidence: Fraction = 0.0
    tuned_on: tuple[str, ...] = ()

    @field_validator("prompts", "distractors")
    @classmethod
    def _sentences_exist(cls, prompts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for label, sentences in prompts.items():
            if not label.strip():
                raise ValueError("a class has an empty name")
            if not sentences or not all(sentence.strip() for sentence in sentences):
                raise ValueError(f"class {label!r} has no sentences, or an empty one")
        if len(prompts) > 65_535:
            raise ValueError(f"{len(prompts)} classes do not fit a 16-bit label map")
        return prompts

    @model_validator(mode="after")
    def _consistent(self) -> TaskConfig:
        if isinstance(self.top_k, dict) and (unknown := set(self.top_k) - set(self.prompts)):
            raise ValueError(
                f"top_k names {sorted(unknown)}, but the classes are {sorted(self.prompts)}"
            )
        for label, names in self.companions.items():
            if label not in self.prompts:
                raise ValueError(
                    f"companions names {label!r}, but the classes are {sorted(self.prompts)}"
                )
            if unknown := set(names) - {spec.label for spec in self.competitors}:
                raise ValueError(
                    f"companions of {label!r} names {sorted(unknown)}, which task.distractors lacks"
                )
        for label, names in self.signs.items():
            if unknown := set(names) - set(self.companions.get(label, ())):
                raise ValueError(
                    f"signs of {label!r} names {sorted(unknown)}, which its companions lack"
                )
        same_unit = (self.min_area <= 1) == (self.max_area <= 1)
        if same_unit and self.min_area >= self.max_area:
            raise ValueError(f"min_area {self.min_area} is not below max_area {self.max_area}")
        return self

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Return the classes in the order of their ids."""
        k = self.top_k
        return tuple(
            ClassSpec(
                label=label,
                class_id=index,
                sentences=sentences,
                top_k=k.get(label, 1) if isinstance(k, dict) else k,
            )
            for index, (label, sentences) in enumerate(self.prompts.items(), start=1)
        )

    @property
    def competitors(self) -> tuple[ClassSpec, ...]:
        """Return the distractors that are not classes of the task, with ids above theirs."""
        others = {k: v for k, v in self.distractors.items() if k not in self.prompts}
        return tuple(
            ClassSpec(label=label, class_id=index, sentences=sentences, top_k=1)
            for index, (label, sentences) in enumerate(others.items(), start=len(self.prompts) + 1)
        )

    def area_limits(self, height: int, width: int) -> tuple[float, float]:
        """Return ``(min, max)`` in pixels of a working image; both bounds are exclusive.

        With ``min_area`` 0 every non-empty mask passes; a ``max_area`` of exactly 1 is no limit.
        """
        return _area_limits(self.min_area, self.max_area, height * width)


def _area_limits(min_area: float, max_area: float, pixels: int) -> tuple[float, float]:
    low = min_area * pixels if min_area <= 1 else min_area
    high = max_area * pixels if max_area <= 1 else max_area
    return low, math.inf if max_area == 1 else high


class Window(Section):
    """An intensity window: ``center - width / 2`` becomes black, ``center + width / 2`` white."""

    center: float
    width: Annotated[float, Field(gt=0.0)]


class ImageConfig(Section):
    """How a file becomes pixels. ``long_side`` is that of the working image.

    ``window`` applies to DICOM and to greys of more than 8 bits, in the units of the file
    (Hounsfield units for CT). ``from_file`` uses the window or look-up table of a DICOM file, else
    its whole range; ``auto`` does the same, but uses ``percentiles`` if the file has none. In other
    formats, ``depth`` scales greys of more than 8 bits by ``percentiles`` (of the volume, if there
    is one) or by the full range of their type. Volumes are sliced along ``axis`` of the patient,
    taken from the affine; ``volume_index`` selects a volume of a 4-D file. With ``skip_blank``, a
    slice of one uniform grey is recorded as empty and not labelled. ``max_bytes`` limits a file and
    an unpacked volume; ``max_frames`` limits the slices, frames or pages that a file declares.

    Some options exist for the published code's conventions. With ``aspect: square`` the working
    image is ``long_side`` x ``long_side``, whatever the shape of the image. ``resample: bilinear``
    resizes to it without antialiasing (OpenCV's ``INTER_LINEAR``). ``channels: bgr`` swaps red and
    blue of the working image, as the published code does for chest X-rays. For volumes,
    ``depth: slice_range`` scales each slice from its own minimum and maximum.
    """

    long_side: Annotated[int, Field(ge=16, le=8192)] = 1024
    max_pixels: Positive = 300_000_000
    max_bytes: Positive = 2_000_000_000
    max_frames: Positive = 100_000
    window: Literal["auto", "from_file"] | Window = "auto"
    depth: Literal["percentile", "full_range", "slice_range"] = "percentile"
    percentiles: tuple[Percent, Percent] = (0.5, 99.5)
    axis: Axis = "axial"
    aspect: Literal["keep", "square"] = "keep"
    resample: Literal["antialiased", "bilinear"] = "antialiased"
    channels: Literal["rgb", "bgr"] = "rgb"
    volume_index: Annotated[int, Field(ge=0)] = 0
    skip_blank: bool = True

    @field_validator("percentiles")
    @classmethod
    def _ascending(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if percentiles[0] >= percentiles[1]:
            raise ValueError("percentiles must be two ascending numbers from 0 to 100")
        return percentiles


class SamConfig(Section):
    """Which SAM. ``checkpoint`` is a path or URI of an official file; unused by ``bundled``."""

    model: Literal["bundled", "vit_b", "vit_l", "vit_h"] = "bundled"
    checkpoint: str | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _checkpoint_given(self) -> SamConfig:
        if self.model != "bundled" and self.checkpoint is None:
            raise ValueError(
                f"sam.checkpoint is missing: {self.model} needs the path or URI of its official "
                "checkpoint file"
            )
        if self.model == "bundled" and self.checkpoint is not None:
            raise ValueError(
                "checkpoint would be ignored, because sam.model is bundled, which has its own "
                "weights: set sam.model to that of the checkpoint (vit_b, vit_l, vit_h)"
            )
        return self


class ClipConfig(Section):
    """Which CLIP: ``bundled``, a model name of open_clip, or ``hf-hub:...``.

    ``pretrained`` is an open_clip tag, or the path or URI of a checkpoint. The bundled CLIP refuses
    classes that it was not taught; ``allow_untaught`` labels them anyway, without a confidence.
    """

    model: str = Field(default="bundled", min_length=1)
    pretrained: str | None = None
    sha256: Sha256 | None = None
    allow_untaught: bool = False

    @model_validator(mode="after")
    def _pretrained_used(self) -> ClipConfig:
        if self.model == "bundled" and self.pretrained is not None:
            raise ValueError(
                "pretrained would be ignored, because clip.model is bundled, which has its own "
                "weights: set clip.model to that of the checkpoint, such as ViT-B-16"
            )
        return self


class ProposeConfig(Section):
    """Settings of SAM's automatic mask generator by its own names, with upstream's defaults.

    ``min_area`` and ``max_area`` replace those of the task, in the same units (null: the task's).
    """

    points_per_side: Positive = 32
    points_per_batch: Positive = 64
    pred_iou_thresh: Fraction = 0.88
    stability_score_thresh: Fraction = 0.95
    stability_score_offset: float = Field(default=1.0, ge=0.0)
    box_nms_thresh: Fraction = 0.7
    crop_n_layers: Annotated[int, Field(ge=0, le=4)] = 0
    crop_nms_thresh: Fraction = 0.7
    crop_overlap_ratio: Fraction = 512 / 1500
    crop_n_points_downscale_factor: Positive = 1
    min_mask_region_area: Annotated[int, Field(ge=0)] = 0
    min_area: Annotated[float, Field(ge=0.0)] | None = None
    max_area: Annotated[float, Field(gt=0.0)] | None = None


class RetrieveConfig(Section):
    """How a candidate is shown to CLIP, and how candidates are ranked.

    ``visual_prompt`` is the picture of a candidate; ``ensemble`` names further ones, whose CLIP
    features are averaged. ``padding: square`` prevents CLIP's centre crop from cutting the ends of
    long crops; ``none`` is the paper's; ``both`` averages the two. ``resize`` to CLIP's input size
    is done by ``pillow`` as in open_clip, or on the ``device`` (nearly equal, faster); ``auto``
    means ``device`` on a GPU that runs ``fast``.

    ``scoring`` ranks by ``cosine`` (the paper's), or by ``softmax``: the probability of the class
    among all classes of the task and its distractors. ``logit_scale`` multiplies the cosines; null
    means CLIP's trained value. ``sam_prior`` is the weight of log(predicted IoU x stability score).
    A candidate that shares more than ``max_overlap`` of the smaller area with a better one of its
    class is skipped, so that two lungs are not one lung twice; 1 is the paper's.

    The presence of a class is the mean, over all candidates of the image, of the probability that
    the candidate shows the class or one of its companions. A class with a presence below
    ``min_presence`` is left empty. ``runners_up`` is the number of candidates per class that are
    recorded with their scores although they were not retrieved.

    The other options change how visual prompts are drawn; lengths are in pixels of a working image
    with a long side of 256, and scale with it. ``expand_px`` widens the box of ``crop_expand``.
    With ``box_end: exclusive`` the crops lack the last row and column of the box, as in the
    published code, and candidates whose box is 1 pixel wide or high are dropped. ``box_line`` and
    ``contour_line`` are OpenCV's line thickness of ``bbox`` and ``contour`` (published: 5 and 3).
    ``contours`` are the ``outer`` ones, or ``all`` with those of holes (published). ``outside`` of
    the box, ``reverse_box_mask`` blends with ``grey`` (128), or with ``sam_mean`` (124, 116, 104;
    published), rounded half to even.
    """

    visual_prompt: VisualPrompt = "crops"
    ensemble: tuple[VisualPrompt, ...] = ()
    padding: Literal["none", "square", "both"] = "none"
    expand_px: Annotated[int, Field(ge=0)] = 10
    box_end: Literal["inclusive", "exclusive"] = "inclusive"
    box_line: Positive = 2
    contour_line: Positive = 2
    contours: Literal["outer", "all"] = "outer"
    outside: Literal["grey", "sam_mean"] = "grey"
    max_overlap: Fraction = 1.0
    scoring: Literal["cosine", "softmax"] = "cosine"
    logit_scale: Annotated[float, Field(gt=0.0)] | None = None
    sam_prior: Annotated[float, Field(ge=0.0)] = 0.0
    min_presence: Fraction = 0.0
    runners_up: Annotated[int, Field(ge=0, le=64)] = 3
    resize: Resize = "auto"
    batch_size: Positive = 64

    @model_validator(mode="after")
    def _consistent(self) -> RetrieveConfig:
        if len(set(self.visual_prompts)) < len(self.visual_prompts):
            raise ValueError(
                f"ensemble {list(self.ensemble)} must name each visual prompt once, and not "
                f"visual_prompt ({self.visual_prompt})"
            )
        if self.min_presence > 0 and self.scoring != "softmax":
            raise ValueError(
                f"min_presence {self.min_presence} needs scoring: softmax, "
                f"found {self.scoring}: a cosine is not a probability"
            )
        return self

    @property
    def visual_prompts(self) -> tuple[VisualPrompt, ...]:
        """Return all visual prompts of a candidate."""
        return (self.visual_prompt, *self.ensemble)


class RefineConfig(Section):
    """How SAM segments the retrieved candidates. ``sam`` is null to use the proposer's weights.

    The paper prompts SAM with the box only. ``centre_point`` adds the innermost point of the
    candidate, and ``negative_points`` those of the other retrieved candidates of all classes.
    ``box_jitter`` is a number of further boxes, whose sides are moved by up to ``jitter_share`` of
    the box; their logits are averaged. ``mask_feedback`` is the number of times that SAM gets its
    answer back as a mask prompt.

    ``fill_holes`` closes holes in the finished masks; components smaller than ``min_part`` of the
    largest are removed. GT-SAM is always prompted with plain boxes.

    ``resolution`` is where SAM's logits become a mask: at the ``original`` size, or at the
    ``working`` size (published), from which the mask is enlarged. ``gt_boxes`` of GT-SAM enclose
    every part of the reference (``parts``), or the two leftmost outer contours of the reference at
    the working size (``first_two_contours``, published).
    """

    sam: SamConfig | None = None
    centre_point: bool = False
    negative_points: bool = False
    box_jitter: Annotated[int, Field(ge=0, le=64)] = 0
    jitter_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.05
    mask_feedback: Annotated[int, Field(ge=0, le=8)] = 0
    fill_holes: bool = False
    min_part: Fraction = 0.0
    resolution: Literal["original", "working"] = "original"
    gt_boxes: Literal["parts", "first_two_contours"] = "parts"
    batch_size: Positive = 64

    @property
    def plain(self) -> bool:
        """Return True if SAM is prompted as in the paper: once per box, with nothing else."""
        return not (
            self.centre_point or self.negative_points or self.box_jitter or self.mask_feedback
        )


#: Options that outputs of earlier versions do not have; a recipe leaves out their defaults.
_LATER_OPTIONS = {
    "task": ("signs", "min_confidence"),
    "image": ("aspect", "resample", "channels"),
    "propose": ("min_area", "max_area"),
    "retrieve": ("box_end", "box_line", "contour_line", "contours", "outside"),
    "refine": ("resolution", "gt_boxes"),
}


class Config(Section):
    """The complete configuration of a job."""

    task: TaskConfig
    image: ImageConfig = ImageConfig()
    sam: SamConfig = SamConfig()
    clip: ClipConfig = ClipConfig()
    propose: ProposeConfig = ProposeConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    refine: RefineConfig = RefineConfig()
    run: RunConfig = RunConfig()
    pools: PoolsConfig = PoolsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _presence_can_vary(self) -> Config:
        if self.retrieve.min_presence > 0:
            others = {spec.label for spec in (*self.task.classes, *self.task.competitors)}
            for spec in self.task.classes:
                if not others - {spec.label, *self.task.companions.get(spec.label, ())}:
                    raise ValueError(
                        f"retrieve.min_presence {self.retrieve.min_presence:g} cannot work: the "
                        f"task has nothing to compare {spec.label!r} with, so its presence is "
                        "always 1. Add task.distractors"
                    )
        return self

    def area_limits(self, height: int, width: int) -> tuple[float, float]:
        """Return the limits of a candidate's area in pixels; see :meth:`TaskConfig.area_limits`.

        ``propose.min_area`` and ``propose.max_area`` take precedence over those of the task.
        """
        low, high = self.propose.min_area, self.propose.max_area
        return _area_limits(
            self.task.min_area if low is None else low,
            self.task.max_area if high is None else high,
            height * width,
        )

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the labels, as JSON-ready data.

        Pools, storage options and error limits may change between a run and its resume; the recipe
        may not. It is written to the output, so signatures are removed from weight addresses: the
        SHA-256 of each file says which one it was.
        """
        data = self._without_signatures()
        del data["pools"], data["storage"]
        if not self.clip.allow_untaught:
            del data["clip"]["allow_untaught"]  # outputs of earlier versions do not have it
        for section, names in _LATER_OPTIONS.items():
            for name in names:
                field = type(getattr(self, section)).model_fields[name]
                if data[section][name] == field.get_default(call_default_factory=True):
                    del data[section][name]
        data["run"] = {key: data["run"][key] for key in ("modes", "rows_per_shard", "precision")}
        return data

    def public(self) -> dict[str, Any]:
        """Return every setting as JSON-ready data, with the values of storage options hidden."""
        data = self._without_signatures()
        data["storage"] = {
            location: dict.fromkeys(options, "***") for location, options in data["storage"].items()
        }
        return data

    def _without_signatures(self) -> dict[str, Any]:
        from salip_ray.sources.locations import public_uri  # sources import the configuration

        data = self.model_dump(mode="json")
        for model, name in (
            (data["sam"], "checkpoint"),
            (data["refine"]["sam"] or {}, "checkpoint"),
            (data["clip"], "pretrained"),
        ):
            if "://" in (model.get(name) or ""):
                model[name] = public_uri(model[name])
        return data
