"""FiftyOne: a dataset on disk, with a mask, a confidence and tags for each label.

    DEST/metadata.json, DEST/samples.json   type fiftyone.types.FiftyOneDataset
    DEST/images/                            images that FiftyOne cannot open where they are, or all

The dataset comes back in the same format, exported without media.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.datasets.exports.cases import NO_SPLIT, PROVENANCE, counts, describe, provenance
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.queue import is_decided
from salip_ray.errors import InputError
from salip_ray.output.reader import LabelOutput
from salip_ray.review.records import ImageReview
from salip_ray.review.tools.shared import (
    Returned,
    ToolImages,
    box_of,
    class_masks,
    classes_of,
    origin,
)
from salip_ray.schema import Mask, Size

_FIELD = "pseudo_labels"
#: FiftyOne migrates datasets of earlier versions, so this one stays readable.
_VERSION = "1.0.0"
_SAMPLES, _METADATA = "samples.json", "metadata.json"
_ACCEPT, _REJECT = "accept", "reject"
#: FiftyOne cuts coordinates to whole pixels: a box starts a little inside of its first one.
_INSIDE = 0.01
_HEADER_BYTES = 1024  # of a NumPy file, at most


def export(
    labels: PseudoLabels,
    location: str,
    *,
    copy: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write a dataset; return the number of images.

    Args:
        labels: the labels.
        location: an empty or new location, or an export to resume.
        copy: copy all images as PNGs.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    about = describe("fiftyone", labels, NO_SPLIT, copy=copy)
    with destination_of(location, about, storage_options) as destination:
        skipped = Unreadable(labels, destination)
        images = ToolImages(labels, destination, copy, skipped)
        made = (_sample(labels, entry, images) for entry in labels.entries)
        samples = [json.dumps(sample) for sample in made if sample is not None]
        written = skipped.finish(len(labels))
        destination.write(_SAMPLES, '{"samples": [\n' + ",\n".join(samples) + "\n]}\n")
        destination.write(_METADATA, json.dumps(_metadata(labels), indent=1))
        destination.write(PROVENANCE, provenance(labels, NO_SPLIT, skipped.reasons))
        destination.complete(**counts(labels))
    return written


def _sample(labels: PseudoLabels, entry: Entry, images: ToolImages) -> dict[str, Any] | None:
    path = images.path(entry)
    if path is None:
        return None
    return {
        "_id": {"$oid": entry.image_id[:24]},
        # Relative to the dataset, so that the folder can be moved.
        "filepath": path.removeprefix(f"{images.destination}/"),
        "tags": ["reviewed"] if is_decided(entry, labels) else [],
        "_media_type": "image",
        "_rand": int(entry.image_id[:8], 16) / (1 << 32),
        "salip_image_id": entry.image_id,
        "confidence": json_figure(entry.confidence),
        _FIELD: {"_cls": "Detections", "detections": list(_detections(labels, entry))},
    }


def _detections(labels: PseudoLabels, entry: Entry) -> Iterator[dict[str, Any]]:
    for label, mask, figures in class_masks(labels, entry):
        left, top, right, bottom = box_of(mask)
        buffer = io.BytesIO()
        np.save(buffer, mask[top : bottom + 1, left : right + 1])
        packed = base64.b64encode(zlib.compress(buffer.getvalue())).decode("ascii")
        class_id = labels.class_ids.get(label, labels.ignore_index)
        yield {
            "_id": {"$oid": f"{entry.image_id[:20]}{class_id:04x}"},
            "_cls": "Detection",
            "attributes": {},
            "tags": [],
            "label": label,
            "bounding_box": [
                (left + _INSIDE) / entry.width,
                (top + _INSIDE) / entry.height,
                (right + 1 - left) / entry.width,
                (bottom + 1 - top) / entry.height,
            ],
            "mask": {"$binary": {"base64": packed, "subType": "00"}},
            "confidence": None if figures is None else json_figure(figures.confidence),
        }


def _metadata(labels: PseudoLabels) -> dict[str, Any]:
    about = {k: v for k, v in origin(labels, labels.entries[0]).items() if k != "salip_image_id"}
    return {
        "name": "pseudo-labels",
        "version": _VERSION,
        "media_type": "image",
        "info": about,
        "sample_fields": [
            _field("id", "ObjectIdField", db_field="_id"),
            _field("filepath", "StringField"),
            _field("tags", "ListField", subfield="StringField"),
            _field("metadata", "EmbeddedDocumentField", document="metadata.ImageMetadata"),
            _field("salip_image_id", "StringField"),
            _field("confidence", "FloatField"),
            _field(_FIELD, "EmbeddedDocumentField", document="labels.Detections"),
        ],
    }


def _field(
    name: str, kind: str, *, subfield: str = "", document: str = "", db_field: str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "db_field": db_field or name,
        "ftype": f"fiftyone.core.fields.{kind}",
        "subfield": f"fiftyone.core.fields.{subfield}" if subfield else None,
        "embedded_doc_type": f"fiftyone.core.{document}" if document else None,
        "fields": [],
    }


def is_fiftyone(folder: Path) -> bool:
    """Return True if a folder may be a dataset that FiftyOne exported."""
    return (folder / _METADATA).is_file() and (folder / _SAMPLES).is_file()


def read(folder: Path, output: LabelOutput) -> list[ImageReview]:
    """Return the decisions in a dataset that FiftyOne exported.

    Classes whose pixels changed are corrected. The tags ``accept`` and ``reject`` of a sample
    decide on all classes, those of a label on its class. An image without them and without a change
    is undecided.

    Args:
        folder: on this machine.
        output: the output that was exported.

    Raises:
        InputError: a file is damaged, or of another output. The message names it.
    """
    file = folder / _SAMPLES
    try:
        about = json.loads((folder / _METADATA).read_bytes())["info"]
        samples = json.loads(file.read_bytes())["samples"]
        items = [{**about, "salip_image_id": sample.get("salip_image_id")} for sample in samples]
        returned = Returned(output, classes_of(items, output, folder))
        return [_review(sample, returned) for sample in samples]
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as problem:
        what = f"{problem} is missing" if isinstance(problem, KeyError) else problem
        raise InputError(f"{file} cannot be imported: {what}") from None


def _review(sample: Mapping[str, Any], returned: Returned) -> ImageReview:
    image_id, tags = sample["salip_image_id"], sample["tags"]
    if _REJECT in tags:
        return returned.rejected(image_id)
    drawn = np.zeros_like(returned.label_map(image_id))
    tagged: dict[str, set[int]] = {_ACCEPT: set(), _REJECT: set()}
    for one in (sample.get(_FIELD) or {}).get("detections", ()):
        if one["label"] not in returned.values:
            raise ValueError(f"image {image_id} has the unknown label {one['label']!r}")
        value = returned.values[one["label"]]
        drawn[_mask(one, drawn.shape)] = value
        for tag in tagged:
            if tag in one.get("tags", ()):
                tagged[tag].add(value)
    accepted = _ACCEPT in tags or tagged[_ACCEPT]
    return returned.corrected(image_id, drawn, accepted=accepted, rejected=tagged[_REJECT])


def _mask(detection: Mapping[str, Any], size: Size) -> Mask:
    label = detection["label"]
    if not detection.get("mask"):
        raise ValueError(
            f"a label of {label} has no mask in the dataset: a box has no pixels, and masks in "
            "files stay out of the export"
        )
    height, width = size
    x, y, w, h = detection["bounding_box"]
    left, top = round(x * width), round(y * height)
    right, bottom = round((x + w) * width), round((y + h) * height)
    mask = np.zeros(size, np.bool_)
    inside = mask[top:bottom, left:right]
    crop = _unpacked(detection["mask"]["$binary"]["base64"], inside.size)
    if min(left, top) < 0 or inside.shape != crop.shape:
        raise ValueError(f"the mask of {label} does not fit its box or image")
    inside[:] = crop
    return mask


def _unpacked(text: str, pixels: int) -> Mask:
    """Return a mask that FiftyOne stores; no more is unpacked than ``pixels`` can need."""
    try:
        inflate = zlib.decompressobj()
        most = _HEADER_BYTES + 8 * pixels
        raw = inflate.decompress(base64.b64decode(text, validate=True), most)
        return np.load(io.BytesIO(raw), allow_pickle=False) > 0  # type: ignore[no-any-return]
    except (binascii.Error, zlib.error, EOFError):
        raise ValueError("a mask is damaged") from None
