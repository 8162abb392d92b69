"""Stored forms of masks: COCO run-length encodings (RLE), label maps and their PNGs.

An RLE is a dict ``{"size": [height, width], "counts": str}`` in COCO's compressed form, written and
read by pycocotools. Parquet rows hold it, and tools for COCO JSON expect it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from salip_ray.errors import OutputError
from salip_ray.schema import ClassMask, Mask
from salip_ray.sources.coco_masks import unpack_counts

Rle: TypeAlias = Mapping[str, Any]
LabelMap: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]  #: class ids, shape [H, W]

#: The methods whose masks make a label map.
PAINTED = ("cascade", "disagreement")
#: Every encoder setting is given, so that the bytes of a PNG follow from its pixels alone.
_PNG_SETTINGS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    6,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
)


def label_dtype(n_classes: int) -> np.dtype[Any]:
    """Return the type of the label maps of a task: uint8, or uint16 above 254 classes."""
    return np.dtype(np.uint8 if n_classes < np.iinfo(np.uint8).max else np.uint16)


def ignore_value(n_classes: int) -> int:
    """Return the value of pixels that a loss must ignore: 255, or 65535 in 16-bit label maps."""
    return int(np.iinfo(label_dtype(n_classes)).max)


def encode_rle(mask: Mask) -> dict[str, Any]:
    """Encode a mask of shape [H, W] (bool, or 0/1 numbers) as a compressed COCO RLE.

    Raises:
        ValueError: it has another number of dimensions.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask has the shape [H, W], not {list(mask.shape)}")
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Rle) -> Mask:
    """Return the mask of an RLE: bool, shape [H, W].

    Raises:
        OutputError: it is damaged. pycocotools would leave pixels of a short one unset.
    """
    if not is_sound(rle):
        raise OutputError("a mask is damaged: salip-ray verify names its shard")
    return np.ascontiguousarray(coco.decode(dict(rle))).astype(np.bool_)


def is_sound(rle: Rle) -> bool:
    """Return True if the counts of an RLE are of all pixels of its size."""
    try:
        height, width = rle["size"]
        return bool(sum(unpack_counts(rle["counts"])) == height * width)
    except (ValueError, TypeError, AttributeError):
        return False


def union_of(rles: Iterable[Rle]) -> dict[str, Any]:
    """Return the RLE of the union of masks of one size."""
    rle = coco.merge([dict(rle) for rle in rles])
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def bbox_xywh(rle: Rle) -> tuple[float, float, float, float]:
    """Return COCO's box of an RLE: x, y, width, height in pixels; all 0 for an empty mask."""
    x, y, width, height = coco.toBbox(dict(rle)).tolist()
    return x, y, width, height


def area(rle: Rle) -> int:
    """Return the number of pixels set in an RLE."""
    return int(coco.area(dict(rle)))


def component_rles(mask: Mask) -> list[dict[str, Any]]:
    """Return the RLEs of the 8-connected components of a mask [H, W]."""
    _count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return region_rles(numbers)


def region_rles(numbers: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """Return the RLE of each value above 0 in a map of regions [H, W], in the order of the values.

    Dense masks of thousands of regions would not fit in memory.
    """
    flat = numbers.ravel(order="F")  # an RLE runs down the columns
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    drawn = flat[starts] > 0
    starts, lengths = starts[drawn], lengths[drawn]
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    if not order.size:
        return []
    ends = np.flatnonzero(np.diff(values[order])) + 1
    return [_packed_runs(starts[own], lengths[own], numbers.shape) for own in np.split(order, ends)]


def _packed_runs(
    starts: npt.NDArray[Any], lengths: npt.NDArray[Any], shape: Sequence[int]
) -> dict[str, Any]:
    """Return the RLE of runs of pixels in column-major order."""
    height, width = shape
    ends = starts + lengths
    gaps = starts - np.concatenate([[0], ends[:-1]])
    counts = np.stack([gaps, lengths], axis=1).ravel().tolist()
    if last := height * width - int(ends[-1]):
        counts.append(last)
    rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def label_map(
    masks: Sequence[ClassMask], height: int, width: int, *, n_classes: int = 0
) -> LabelMap:
    """Merge the cascade's masks of one image into a label map; 0 is the background.

    Pixels of the method ``disagreement`` get :func:`ignore_value`. Masks of other methods are left
    out. A pixel of several classes goes to the class with the highest ``clip_score``, then to the
    lowest ``class_id``. Scores are compared as float32, the type in which rows store them, so that
    a label map can be made again from a row.

    Args:
        masks: masks of shape [height, width].
        height: rows of the label map.
        width: columns of the label map.
        n_classes: number of classes of the task. Above 254 the map is uint16, else uint8, whichever
            classes are in this image.

    Raises:
        ValueError: a mask has another shape.
    """
    mine = [mask for mask in masks if mask.method in PAINTED]
    largest = max([n_classes, *(mask.class_id for mask in mine)])
    labels = np.zeros((height, width), label_dtype(largest))
    for item in sorted(mine, key=_painting_order):
        if item.mask.shape != (height, width):
            raise ValueError(
                f"mask of class {item.label!r} has the shape {list(item.mask.shape)}, "
                f"but the image is {height} x {width}"
            )
        disputed = item.method == "disagreement"
        labels[item.mask] = ignore_value(largest) if disputed else item.class_id
    return labels


def _painting_order(item: ClassMask) -> tuple[np.float32, int, bool]:
    """Return the sort key of a mask; later masks overwrite earlier ones."""
    score = np.float32(np.nan if item.clip is None else item.clip.score)
    score = np.float32(-np.inf) if np.isnan(score) else score
    return score, -item.class_id, item.method == "disagreement"


def encode_png(labels: LabelMap) -> bytes:
    """Encode a label map as a grey PNG: 8-bit for uint8, 16-bit for uint16.

    The same label map gives the same bytes.

    Raises:
        ValueError: the map is not of shape [H, W], or is neither uint8 nor uint16.
    """
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a label map is uint8 or uint16 of shape [H, W], "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    done, data = cv2.imencode(".png", labels, _PNG_SETTINGS)
    assert done, "OpenCV encodes any non-empty grey image"
    return data.tobytes()


def decode_png(data: bytes) -> LabelMap:
    """Decode the label map in a PNG from :func:`encode_png`.

    Raises:
        ValueError: the bytes are not a grey PNG.
    """
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if labels is None or labels.ndim != 2:
        raise ValueError(f"{len(data)} bytes are not a grey PNG label map")
    return labels  # type: ignore[return-value]
