"""The sections of a preset that define the cascade: its models and how each stage uses them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from salip_ray.config.base import Fraction, Positive, Section, Sha256

Resize = Literal["auto", "pillow", "device"]
VisualPrompt = Literal["crops", "crop_expand", "bbox", "reverse_box_mask", "contour"]


class SamConfig(Section):
    """Which SAM; ``vit_t`` is MobileSAM, ``sam_med2d`` SAM-Med2D (ViT-B, 256 pixels).

    ``checkpoint`` is a path or URI of an official file, or a file, folder or ``hf-hub:owner/name``
    of Hugging Face with the same model (``facebook/sam-vit-base``, ``wanglab/medsam-vit-base``). It
    is unused by ``bundled``.
    """

    model: Literal["bundled", "vit_b", "vit_l", "vit_h", "vit_t", "sam_med2d"] = "bundled"
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
                "weights: set sam.model to that of the checkpoint (vit_b, vit_l, vit_h, "
                "vit_t, sam_med2d)"
            )
        return self


class ClipConfig(Section):
    """Which CLIP: ``bundled``, a model name of open_clip, or ``hf-hub:...``.

    ``pretrained`` is an open_clip tag, or the path or URI of a checkpoint. The bundled models
    refuse classes that they do not label; ``allow_untaught`` forces them, without a confidence.
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


class WeightsFile(Section):
    """A file or folder of weights: a path, a URI, or ``hf-hub:owner/name`` of Hugging Face."""

    uri: str = Field(min_length=1)
    sha256: Sha256 | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value


class _Stage(Section):
    """A stage that other families of models can run, too.

    ``model`` is the name of a family, or ``package.module:factory``. ``options`` and ``weights``
    (files by name) are for its factory. They are written to the output: put no secret there.
    """

    model: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, WeightsFile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _used(self) -> _Stage:
        for name in ("options", "weights"):
            if getattr(self, name) and self.model == type(self).model_fields["model"].default:
                raise ValueError(
                    f"{name} would be ignored, because model is {self.model}, which has its own "
                    f"settings: set model to the family that the {name} are for"
                )
        return self


class ProposeConfig(_Stage):
    """Which model proposes candidates: by default SAM (``sam``). With ``none`` all are given.

    Most settings are those of SAM's automatic mask generator by its own names, with upstream's
    defaults. ``min_area`` and ``max_area`` hold for any model. They replace those of the task, in
    the same units (null: the task's).
    """

    model: str = Field(default="sam", min_length=1)
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


class RetrieveConfig(_Stage):
    """How a candidate is shown to CLIP, and how candidates are ranked.

    With a ``model`` other than ``clip``, ``max_overlap``, ``sam_prior``, ``runners_up`` and
    ``batch_size`` hold, and ``scoring`` if its scores have a column for each distractor.

    ``visual_prompt`` is the picture of a candidate; ``ensemble`` names further ones, whose CLIP
    features are averaged. ``padding: square`` prevents CLIP's centre crop from cutting the ends of
    long crops; ``none`` is the paper's; ``both`` averages the two. ``resize`` to CLIP's input size
    is done by ``pillow`` as in open_clip, or on the ``device`` (nearly equal, faster); ``auto``
    means ``device`` on a GPU that runs ``fast``.

    ``scoring`` ranks by ``cosine`` (the paper's), or by ``softmax``: the probability of the class
    among all classes of the task and its distractors. ``logit_scale`` multiplies the cosines; null
    means CLIP's trained value. ``sam_prior`` is the weight of log(predicted IoU x stability score).
    A candidate that shares more than ``max_overlap`` of the smaller area with a better one of its
    class is skipped, so that two lungs are not one lung twice; 1 is the paper's. A candidate with a
    score below ``min_score`` (null: no limit) is not retrieved: with ``softmax`` its probability of
    the class, else 100 * cosine, or the score of another model.

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

    model: str = Field(default="clip", min_length=1)
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
    min_score: float | None = None
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
        if self.min_score is not None and self.scoring == "softmax" and not 0 <= self.min_score < 1:
            raise ValueError(
                f"min_score {self.min_score:g} must be at least 0 and below 1: with scoring: "
                "softmax it is a probability"
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


class RefineConfig(_Stage):
    """How SAM segments the retrieved candidates. ``sam`` is null to use the weights of ``sam``.

    With ``model: none``, the candidates' own masks are the result. With other families, masks are
    prompted with boxes only.

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

    model: str = Field(default="sam", min_length=1)
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

    @model_validator(mode="after")
    def _consistent(self) -> RefineConfig:
        if self.model == "sam":
            return self
        if self.sam is not None:
            raise ValueError(f"sam would be ignored, because model is {self.model}: remove it")
        if not self.plain:
            raise ValueError(
                "centre_point, negative_points, box_jitter and mask_feedback need model: sam, "
                f"found {self.model}: remove them"
            )
        return self

    @property
    def plain(self) -> bool:
        """Return True if SAM is prompted as in the paper: once per box, with nothing else."""
        return not (
            self.centre_point or self.negative_points or self.box_jitter or self.mask_feedback
        )
