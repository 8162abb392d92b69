"""The columns that rows carry between stages, and how Python objects are packed into them.

Internal columns begin with an underscore, so that rows can have columns of the user as well; the
commit drops them. Each stage adds columns, and drops the heavy ones that no later stage needs:

    column          added by      dropped by      holds
    _working        decode        RETRIEVE (*)    RGB bytes of the working image
    _working_size   decode        REFINE          its [height, width]
    _references     decode        REFINE          reference masks by class, as RLEs
    _prompts        decode        REFINE          what is given on the original image, by class
    _candidates     PROPOSE       REFINE          candidates, their masks bit-packed
    _n_proposed     PROPOSE       REFINE          number of candidates before the area filter
    _embedding      PROPOSE (*)   REFINE          the bytes of its tensors
    _tensors        PROPOSE (*)   REFINE          their names, types and shapes
    _selections     RETRIEVE (+)  REFINE          the candidates retrieved for each class
    _png            REFINE        commit          the label map
    _alternatives   REFINE (o)    commit          further masks that a slice could have
    _seconds        decode        commit          time spent in each stage
    _fallbacks      decode        commit          stages that ran out of memory, and their batches

(*) REFINE if it cannot use the proposer's embedding and encodes the image itself. (+) PROPOSE if it
labels its candidates. (o) For the slices of volumes, if ``volumes.consistent`` is on. An actor that
runs several stages adds no column that only its own stages need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from salip_ray.output.masks import decode_rle, encode_rle
from salip_ray.schema import (
    CANDIDATE_TYPE,
    COMMIT_COLUMNS,
    LABEL_SCHEMA,
    MASK_TYPE,
    RLE_TYPE,
    SELECTION_TYPE,
    Candidate,
    ClipScores,
    Given,
    Image,
    Mask,
    Points,
    RunnerUp,
    Selection,
)
from salip_ray.wording import one_line

if TYPE_CHECKING:
    from salip_ray.cascade.interfaces import Embedding

REFERENCE_TYPE = pa.struct([pa.field("label", pa.string()), pa.field("rle", RLE_TYPE)])
PROMPT_TYPE = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("box", pa.list_(pa.float64(), 4)),  # null for points and masks
        pa.field("inside", pa.list_(pa.list_(pa.float64(), 2))),
        pa.field("outside", pa.list_(pa.list_(pa.float64(), 2))),
        pa.field("rle", RLE_TYPE),  # of a mask
    ]
)
TENSOR_TYPE = pa.struct(
    [
        pa.field("name", pa.string()),  # null for an embedding of one tensor
        pa.field("dtype", pa.string()),
        pa.field("shape", pa.list_(pa.int64())),
    ]
)

TYPES: dict[str, pa.DataType] = {
    **{field.name: field.type for field in LABEL_SCHEMA},
    **COMMIT_COLUMNS,
    "_working": pa.large_binary(),
    "_working_size": pa.list_(pa.int32(), 2),
    "_references": pa.list_(REFERENCE_TYPE),
    "_prompts": pa.list_(PROMPT_TYPE),
    "_candidates": pa.large_list(CANDIDATE_TYPE),
    "_n_proposed": pa.int32(),
    "_embedding": pa.large_binary(),
    "_tensors": pa.list_(TENSOR_TYPE),
    "_selections": pa.list_(SELECTION_TYPE),
    "_alternatives": pa.list_(MASK_TYPE),
}

DECODED = (
    "height",
    "width",
    "status",
    "error",
    "_working",
    "_working_size",
    "_references",
    "_prompts",
    "_seconds",
    "_fallbacks",
    "spacing",
)
INTERNAL = tuple(name for name in TYPES if name.startswith("_"))
OF_MANIFEST = ("image_id", "uri", "volume", "slice")  # label columns that the manifest has
_OUT_OF_MEMORY = "the memory of the worker ran out; image.max_pixels refuses large images"
LABELS = tuple(name for name in LABEL_SCHEMA.names if name not in OF_MANIFEST)


def error(stage: str, problem: BaseException) -> dict[str, str]:
    """Return an ``error`` cell: stage, type of the exception, one line of its message."""
    message = one_line(problem) if str(problem).strip() else ""
    if isinstance(problem, MemoryError):  # NumPy's names a size, but no remedy
        message = f"{message}: {_OUT_OF_MEMORY}" if message else _OUT_OF_MEMORY
    message = message or "no message"
    return {"stage": stage, "type": type(problem).__name__, "message": message[:1000]}


def named(cells: Mapping[str, pa.Scalar]) -> dict[str, Any]:
    """Return shard, image_id and uri for a log line, if the row has these columns."""
    names = {"shard": "_shard", "image_id": "image_id", "uri": "uri"}
    return {name: cells[column].as_py() for name, column in names.items() if column in cells}


def _bytes_of(array: npt.NDArray[Any]) -> pa.Array:
    """Return the bytes of an array as one binary cell, without a copy.

    Not ``pa.array([memoryview])``: pyarrow never frees a view from a list, so that a worker would
    leak the pixels and the embedding of every image.
    """
    data = pa.py_buffer(np.ascontiguousarray(array))
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def pack_working(image: Image) -> dict[str, Any]:
    """Return ``_working`` and ``_working_size`` of an RGB image [h, w, 3]."""
    return {
        "_working": _bytes_of(image),
        "_working_size": list(image.shape[:2]),
    }


def unpack_working(cells: Mapping[str, pa.Scalar]) -> Image:
    """Return the RGB image [h, w, 3] of a row, read-only: its bytes stay in the object store."""
    height, width = cells["_working_size"].as_py()
    return np.frombuffer(cells["_working"].as_buffer(), np.uint8).reshape(height, width, 3)


def pack_embedding(embedding: Embedding | npt.NDArray[Any] | None) -> dict[str, Any]:
    """Return ``_embedding`` and ``_tensors`` of a tensor or named tensors, on any device."""
    if embedding is None:
        return {"_embedding": None, "_tensors": None}
    tensors: Mapping[Any, Any] = embedding if isinstance(embedding, Mapping) else {None: embedding}
    parts = [_tensor_bytes(tensor) for tensor in tensors.values()]
    about = [
        {
            "name": name,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
        }
        for name, tensor in tensors.items()
    ]
    return {
        "_embedding": _bytes_of(parts[0] if len(parts) == 1 else np.concatenate(parts)),
        "_tensors": about,
    }


def _tensor_bytes(tensor: Any) -> npt.NDArray[np.uint8]:
    """Return the bytes of a tensor or array; NumPy does not have all of torch's types."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return np.asarray(flat.view(torch.uint8).numpy())


def unpack_embedding(cells: Mapping[str, pa.Scalar]) -> Embedding | None:
    """Return a copy of the embedding of a row, on the CPU."""
    import torch

    about = cells["_tensors"].as_py()
    if about is None:
        return None
    stored = torch.from_numpy(np.frombuffer(cells["_embedding"].as_buffer(), np.uint8).copy())
    tensors, start = {}, 0
    for item in about:
        dtype = getattr(torch, item["dtype"])
        size = math.prod(item["shape"]) * dtype.itemsize
        part = stored[start : start + size]
        if start % dtype.itemsize:  # torch views only aligned bytes as another type
            part = part.clone()
        tensors[item["name"]] = part.view(dtype).reshape(item["shape"])
        start += size
    return tensors[None] if list(tensors) == [None] else tensors


def pack_candidates(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the ``_candidates`` cell."""
    return [
        {
            "id": item.id,
            "mask": np.packbits(item.mask).tobytes(),
            "area": item.area,
            "box": item.box,
            "predicted_iou": item.predicted_iou,
            "stability_score": item.stability_score,
            "point": item.point,
            "crop_box": item.crop_box,
        }
        for item in candidates
    ]


def unpack_candidates(cells: Mapping[str, pa.Scalar]) -> tuple[Candidate, ...]:
    """Return the candidates of a row; their masks have its working size."""
    height, width = cells["_working_size"].as_py()
    return tuple(
        Candidate(
            id=item["id"],
            mask=np.unpackbits(np.frombuffer(item["mask"], np.uint8), count=height * width)
            .reshape(height, width)
            .view(np.bool_),
            area=item["area"],
            box=tuple(item["box"]),
            predicted_iou=item["predicted_iou"],
            stability_score=item["stability_score"],
            point=tuple(item["point"]),
            crop_box=tuple(item["crop_box"]),
        )
        for item in cells["_candidates"].as_py()
    )


def pack_selections(selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """Return the ``_selections`` cell."""
    cells = []
    for item in selections:
        cell = asdict(item)
        cells.append({**cell, **cell.pop("clip")})
    return cells


def unpack_selections(cells: Mapping[str, pa.Scalar]) -> tuple[Selection, ...]:
    """Return the selections of a row; none if the job has no RETRIEVE."""
    if "_selections" not in cells:
        return ()
    return tuple(
        Selection(
            **{name: item[name] for name in ("label", "class_id", "candidate_id", "rank")},
            clip=ClipScores(**{field.name: item[field.name] for field in fields(ClipScores)}),
            runners_up=tuple(RunnerUp(**runner) for runner in item["runners_up"]),
        )
        for item in cells["_selections"].as_py()
    )


def pack_references(references: Mapping[str, Mask] | None) -> list[dict[str, Any]] | None:
    """Return the ``_references`` cell, or None if the image has no reference."""
    if references is None:
        return None
    return [{"label": label, "rle": encode_rle(mask)} for label, mask in references.items()]


def unpack_references(cells: Mapping[str, pa.Scalar]) -> dict[str, Mask]:
    """Return the reference masks [H, W] of a row by class label."""
    packed = cells["_references"].as_py() if "_references" in cells else None
    return {item["label"]: decode_rle(item["rle"]) for item in packed or ()}


def pack_prompts(
    prompts: Sequence[tuple[str, Given]] | None,
) -> list[dict[str, Any]] | None:
    """Return the ``_prompts`` cell: class, and what is given; None if the job was given nothing."""
    if prompts is None:
        return None
    return [{"label": label, **_pack_given(given)} for label, given in prompts]


def _pack_given(given: Given) -> dict[str, Any]:
    if isinstance(given, Points):
        return asdict(given)
    return {"rle": encode_rle(given)} if isinstance(given, np.ndarray) else {"box": list(given)}


def unpack_prompts(cells: Mapping[str, pa.Scalar]) -> list[tuple[str, Given]]:
    """Return class, and box (xyxy), points or mask, of each prompt of a row's original image."""
    packed = cells["_prompts"].as_py() if "_prompts" in cells else None
    return [(item["label"], _unpack_given(item)) for item in packed or ()]


def _unpack_given(item: Mapping[str, Any]) -> Given:
    if item["rle"] is not None:
        return decode_rle(item["rle"])
    if item["box"] is not None:
        x0, y0, x1, y1 = item["box"]
        return x0, y0, x1, y1
    return Points(*(tuple(map(tuple, item[name] or ())) for name in ("inside", "outside")))
