"""The nouns of salip_ray, and the Arrow schemas of the manifest, of a commit and of a shard.

One row is one image from listing to commit. Each stage adds columns and updates the status and the
seconds; the last stage that needs a heavy column (pixels, embedding) drops it:

    manifest -> decode -> PROPOSE -> RETRIEVE -> REFINE -> commit

The columns between stages are in :mod:`salip_ray.pipeline.rows.columns`.

Coordinates: ``(x, y)``, x to the right, y down, in pixels. A *working* image is the input resized
so that its long side is ``image.long_side``; candidates live there. Masks of the output are of the
original size. Boxes named ``box`` are xyxy and inclusive of the last pixel (SAM's convention);
``bbox`` is COCO's xywh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Of outputs; 3 added ``masks.instances``. A job of an older version is resumed in that version.
SCHEMA_VERSION = 3
READABLE_VERSIONS = (2, 3)

Image: TypeAlias = npt.NDArray[np.uint8]  #: RGB, shape [H, W, 3]
Mask: TypeAlias = npt.NDArray[np.bool_]  #: shape [H, W]
Box: TypeAlias = tuple[float, float, float, float]  #: x0, y0, x1, y1, inclusive
Point: TypeAlias = tuple[float, float]  #: x, y
Size: TypeAlias = tuple[int, int]  #: height, width

# --------------------------------------------------------------------------------------- nouns


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where pixels are: in a file, at ``index`` if it holds several pictures (else None)."""

    uri: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """Points (x, y) that a person or another tool set on one object.

    Attributes:
        inside: on the object; at least one.
        outside: on what is next to it.
    """

    inside: tuple[Point, ...]
    outside: tuple[Point, ...] = ()

    @property
    def box(self) -> Box:
        """The box around the points on the object."""
        xs, ys = zip(*self.inside, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


#: What exists of an object before a job: a box or points to prompt with, or a candidate's mask.
Given: TypeAlias = Box | Points | Mask


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask proposed by SAM, or given (:mod:`salip_ray.cascade.given`), on the working image.

    ``id`` is the candidate's place in the generator's own order and its identity ever after: crops,
    scores and selections refer to it, never to a position in a list that a filter may shorten.
    Below 0 it counts the candidates that were given next to the proposed ones, the first being -1.
    They have no scores (NaN). ``original`` is the mask on the original pixels, if it was given as
    the label itself. ``points`` prompt SAM instead of the box, if a job was given points.
    """

    id: int
    mask: Mask
    area: int
    box: Box
    predicted_iou: float
    stability_score: float
    point: Point
    crop_box: Box
    points: Points | None = None
    original: Mask | None = None


@dataclass(frozen=True, slots=True)
class ClipScores:
    """CLIP's scores of a retrieved candidate for a class.

    Attributes:
        score: 100 * cosine.
        margin: ``score`` minus that of the best candidate not retrieved for the class; None if
            every candidate was retrieved.
        probability: of the class among all classes and distractors; None unless
            ``retrieve.scoring`` is ``softmax``.
        presence: how present the class is in the whole image, 0 to 1 (see ``retrieve``); None
            unless ``retrieve.scoring`` is ``softmax``.
        evidence: the probability that the candidate shows the class or one of its ``task.signs``;
            None like ``presence``, or if the task names no signs of the class. Not stored.
    """

    score: float
    margin: float | None = None
    probability: float | None = None
    presence: float | None = None
    evidence: float | None = None


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """A candidate that was not retrieved for a class.

    ``score`` is CLIP's (100 * cosine); ``probability`` and ``evidence`` are those of
    :class:`ClipScores`.
    """

    candidate_id: int
    score: float
    probability: float | None = None
    evidence: float | None = None

    def clip(self, presence: float | None) -> ClipScores:
        """Return all scores of the candidate; ``presence`` is that of the class in the image."""
        return ClipScores(self.score, None, self.probability, presence, self.evidence)


@dataclass(frozen=True, slots=True)
class SamScores:
    """SAM's scores of the masks of a class, as means over those masks.

    ``stability`` is NaN (0 / 0) if a mask is empty at both of its thresholds.
    """

    predicted_iou: float
    stability: float


@dataclass(frozen=True, slots=True)
class ProposedMask:
    """The union of candidates' own masks, before refinement, and its Dice with the refined mask."""

    mask: Mask
    agreement: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A candidate retrieved for a class: its rank (0 is best) and CLIP's scores.

    ``runners_up`` are the best candidates that were not retrieved for the class, best first; only
    the selection of rank 0 has them.
    """

    label: str
    class_id: int
    candidate_id: int
    rank: int
    clip: ClipScores
    runners_up: tuple[RunnerUp, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One object of a class, on the image's original pixels.

    Attributes:
        mask: bool [H, W], not empty; instances of a class may overlap.
        candidate_id: the candidate that it was made from, if any.
        sam: SAM's scores of the mask; None if no model scored it.
        confidence: like that of :class:`ClassMask`, of this mask alone.
    """

    mask: Mask
    candidate_id: int | None = None
    sam: SamScores | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ClassMask:
    """The label of one class by one method, on the image's original pixels.

    Attributes:
        method: ``cascade``, ``unprompted_confident``, ``unprompted_largest`` or ``gt_sam``. In a
            consensus, ``cascade`` is what the runs agree on, and ``disagreement`` holds the pixels
            on which they do not.
        label: name of the class.
        class_id: its id in label maps.
        mask: bool [H, W].
        sam: means over the united masks; None for a mask drawn by hand.
        candidate_ids: candidates that the mask was made from.
        prompt_boxes: boxes that SAM was prompted with, xyxy on the working image.
        clip: scores of the best selection; None if the method uses no text.
        proposed: for the cascade the candidates that it retrieved, for GT-SAM those that come
            closest to the reference (the best that a retrieval could have picked), else None.
        confidence: the Dice that the cascade expects of its label, 0 to 1, 0 if the organ is absent
            (:mod:`salip_ray.cascade.confidence`); in a consensus the agreement of the runs
            (:mod:`salip_ray.consensus.votes`); None for other methods.
        instances: the objects whose union is the mask, the best first; none if the mask is one
            object.
    """

    method: str
    label: str
    class_id: int
    mask: Mask
    sam: SamScores | None = None
    candidate_ids: tuple[int, ...] = ()
    prompt_boxes: tuple[Box, ...] = ()
    clip: ClipScores | None = None
    proposed: ProposedMask | None = None
    confidence: float | None = None
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one class on one image: ``labelled``, or ``empty`` with the reason."""

    label: str
    outcome: str
    reason: str = ""


STATUSES = ("ok", "empty", "error")

# ------------------------------------------------------------------------------------- schemas

_BOX = pa.list_(pa.float32(), 4)

# A line of the manifest: where an image is, and in which shard its row will be. ``index`` is its
# place in a file of several pictures, null in others; ``volume`` names what it is a slice, frame or
# page of, ``slice`` its place there.
MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("index", pa.int32()),
        pa.field("volume", pa.string()),
        pa.field("slice", pa.int32()),
    ]
)

ERROR_TYPE = pa.struct(
    [
        pa.field("stage", pa.string()),
        pa.field("type", pa.string()),
        pa.field("message", pa.string()),
    ]
)
OUTCOME_TYPE = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("outcome", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
RLE_TYPE = pa.struct([pa.field("size", pa.list_(pa.int32(), 2)), pa.field("counts", pa.string())])
CANDIDATE_TYPE = pa.struct(
    [
        pa.field("id", pa.int32()),
        pa.field("mask", pa.large_binary()),  # np.packbits of [h, w], row-major
        pa.field("area", pa.int32()),
        pa.field("box", _BOX),
        pa.field("predicted_iou", pa.float32()),
        pa.field("stability_score", pa.float32()),
        pa.field("point", pa.list_(pa.float32(), 2)),
        pa.field("crop_box", _BOX),
    ]
)
_RUNNER_UP_TYPE = pa.struct(
    [
        pa.field("candidate_id", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("probability", pa.float32()),
        pa.field("evidence", pa.float32()),
    ]
)
SELECTION_TYPE = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("candidate_id", pa.int32()),
        pa.field("rank", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("probability", pa.float32()),
        pa.field("presence", pa.float32()),
        pa.field("evidence", pa.float32()),
        pa.field("runners_up", pa.list_(_RUNNER_UP_TYPE)),
    ]
)
RANKED_TYPE = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("candidate_id", pa.int32()),
        pa.field("retrieved", pa.bool_()),
        pa.field("clip_score", pa.float32()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("stability_score", pa.float32()),
        pa.field("box", _BOX),  # on the working image
    ]
)
INSTANCE_TYPE = pa.struct(
    [
        pa.field("candidate_id", pa.int32()),
        pa.field("rle", RLE_TYPE),
        pa.field("bbox", pa.list_(pa.float32(), 4)),  # COCO xywh
        pa.field("area", pa.int64()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("stability_score", pa.float32()),
        pa.field("confidence", pa.float32()),
    ]
)
MASK_TYPE = pa.struct(
    [
        pa.field("method", pa.string()),
        pa.field("label", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("rle", RLE_TYPE),
        pa.field("bbox", pa.list_(pa.float32(), 4)),  # COCO xywh
        pa.field("area", pa.int64()),
        pa.field("clip_score", pa.float32()),
        pa.field("clip_margin", pa.float32()),
        pa.field("clip_probability", pa.float32()),
        pa.field("presence", pa.float32()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("stability_score", pa.float32()),
        pa.field("candidate_ids", pa.list_(pa.int32())),
        pa.field("prompt_boxes", pa.list_(_BOX)),
        pa.field("proposed", RLE_TYPE),  # the candidates' own masks, united
        pa.field("agreement", pa.float32()),
        pa.field("confidence", pa.float32()),
        # Masks whose union is ``rle``. Empty: ``rle`` is one object. Null: an older version.
        pa.field("instances", pa.list_(INSTANCE_TYPE)),
    ]
)

LABEL_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("outcomes", pa.list_(OUTCOME_TYPE)),
        pa.field("error", ERROR_TYPE),
        pa.field("masks", pa.list_(MASK_TYPE)),
        pa.field("n_candidates", pa.int32()),
        pa.field("ranking", pa.list_(RANKED_TYPE)),  # retrieved candidates, and the runners-up
        pa.field("volume", pa.string()),
        pa.field("slice", pa.int32()),
        pa.field("spacing", pa.list_(pa.float64(), 2)),  # mm: row to row, column to column
    ]
)
"""A row of ``shards/part-*.parquet``: everything that an output stores about an image."""


def label_schema(version: int) -> pa.Schema:
    """Return :data:`LABEL_SCHEMA` as the outputs of one of :data:`READABLE_VERSIONS` have it."""
    if version >= SCHEMA_VERSION:
        return LABEL_SCHEMA
    older = pa.struct([field for field in MASK_TYPE if field.name != "instances"])
    position = LABEL_SCHEMA.get_field_index("masks")
    return LABEL_SCHEMA.set(position, pa.field("masks", pa.list_(older)))


#: The stages whose time is measured, in order.
TIMED_STAGES = ("fetch", "propose", "retrieve", "refine")
SECONDS_TYPE = pa.struct([pa.field(stage, pa.float32()) for stage in TIMED_STAGES])
FALLBACK_TYPE = pa.struct([pa.field("stage", pa.string()), pa.field("batch", pa.int32())])

#: Columns that a refined row carries to its commit next to those of :data:`LABEL_SCHEMA`.
COMMIT_COLUMNS: dict[str, pa.DataType] = {
    "_shard": pa.int32(),
    "_seq": pa.int32(),  # index in the shard
    "_png": pa.large_binary(),  # the label map, null in an error row
    "_seconds": SECONDS_TYPE,  # time spent in each stage
    "_fallbacks": pa.list_(FALLBACK_TYPE),  # stages that ran out of memory, and the batch that fit
}
