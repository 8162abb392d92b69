"""CVAT: images and ``annotations.xml`` ("CVAT for images 1.1") with masks; its export comes back.

    DEST/images/           create a task of these images
    DEST/labels.json       paste it into the raw labels of the task
    DEST/annotations.xml   upload it as annotations of the format "CVAT 1.1"

CVAT keeps no fields of others, so an image is found again by the digits of its id in its name.
"""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.datasets.exports.cases import NO_SPLIT, PROVENANCE, counts, describe, provenance
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError
from salip_ray.output.masks import LabelMap
from salip_ray.output.reader import LabelOutput
from salip_ray.review.records import ImageReview
from salip_ray.review.tools.shared import (
    IGNORED,
    Returned,
    ToolImages,
    box_of,
    class_masks,
    colour_of,
)
from salip_ray.schema import Mask

_ANNOTATIONS = "annotations.xml"
_ACCEPT, _REJECT = "accept", "reject"
_NAME = re.compile(r"-([0-9a-f]{16})\.\w+$")


def export(
    labels: PseudoLabels,
    location: str,
    *,
    copy: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write images, labels and annotations; return the number of images.

    Args:
        labels: the labels.
        location: an empty or new location, or an export to resume.
        copy: write all images as PNGs instead of linking them.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    about = describe("cvat", labels, NO_SPLIT, copy=copy)
    with destination_of(location, about, storage_options) as to:
        skipped = Unreadable(labels, to)
        images = ToolImages(labels, to, copy, skipped)
        root = ET.Element("annotations")
        ET.SubElement(root, "version").text = "1.1"
        root.append(_meta(labels))
        for number, entry in enumerate(labels.entries):
            file = images.name(entry)
            if file is not None:
                root.append(_image(labels, number, file.removeprefix("images/"), entry))
        written = skipped.finish(len(labels))
        ET.indent(root)
        to.write(_ANNOTATIONS, ET.tostring(root, encoding="utf-8", xml_declaration=True))
        to.write("labels.json", json.dumps(_label_specs(labels), indent=1))
        to.write(PROVENANCE, provenance(labels, NO_SPLIT, skipped.reasons))
        to.complete(**counts(labels))
    return written


def _label_specs(labels: PseudoLabels) -> list[dict[str, Any]]:
    masks = {**labels.class_ids, IGNORED: labels.ignore_index}
    return [
        {
            "name": label,
            "color": colour_of(class_id),
            "type": "mask",
            "attributes": [],
        }
        for label, class_id in masks.items()
    ] + [{"name": name, "type": "tag", "attributes": []} for name in (_ACCEPT, _REJECT)]


def _meta(labels: PseudoLabels) -> ET.Element:
    meta = ET.Element("meta")
    listed = ET.SubElement(ET.SubElement(meta, "task"), "labels")
    for spec in _label_specs(labels):
        label = ET.SubElement(listed, "label")
        for key in ("name", "type"):
            ET.SubElement(label, key).text = spec[key]
        ET.SubElement(label, "attributes")
    return meta


def _image(labels: PseudoLabels, number: int, name: str, entry: Entry) -> ET.Element:
    size = {"width": str(entry.width), "height": str(entry.height)}
    image = ET.Element("image", {"id": str(number), "name": name, **size})
    for label, mask, _ in class_masks(labels, entry):
        left, top, right, bottom = box_of(mask)
        crop = mask[top : bottom + 1, left : right + 1]
        ET.SubElement(
            image,
            "mask",
            label=label,
            source="auto",
            occluded="0",
            rle=", ".join(map(str, _runs(crop))),
            left=str(left),
            top=str(top),
            width=str(crop.shape[1]),
            height=str(crop.shape[0]),
            z_order="0",
        )
    return image


def _runs(mask: Mask) -> list[int]:
    """Return the lengths of runs by rows, of 0 and 1 in turn; the first is of 0."""
    flat = np.concatenate(([False], mask.ravel()))
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths: list[int] = np.diff(starts, append=flat.size).tolist()
    return [lengths[0] - 1, *lengths[1:]]


def read(file: Path, output: LabelOutput) -> list[ImageReview]:
    """Return the decisions in annotations that CVAT exported, as XML or as the ZIP that holds it.

    Classes whose pixels changed are corrected. The tag ``accept`` accepts the others, ``reject``
    rejects all. An image without a tag and without a change is undecided.

    Args:
        file: on this machine.
        output: the output that was exported.

    Raises:
        InputError: the file is damaged, or of another output. The message names it.
    """
    try:
        root = ET.fromstring(_xml(file))  # noqa: S314  (see the import)
        names = {name.text for name in root.iterfind("meta//labels/label/name")}
        classes = {s.label: s.class_id for s in output.classes if s.label in names}
        if not classes:
            raise ValueError(f"its labels have none of the classes of {output.uri}")
        ids = {row["image_id"][:16]: row["image_id"] for row in output.rows(columns=("image_id",))}
        returned = Returned(output, classes)
        return [_review(image, ids, returned) for image in root.iterfind("image")]
    except (ET.ParseError, KeyError, TypeError, ValueError) as problem:
        what = f"{problem} is missing" if isinstance(problem, KeyError) else problem
        raise InputError(f"{file} cannot be imported: {what}") from None


def is_cvat(file: Path) -> bool:
    """Return True if a file may be an export of CVAT."""
    return file.suffix.lower() == ".xml" or zipfile.is_zipfile(file)


def _xml(file: Path) -> bytes:
    data = file.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if _ANNOTATIONS not in archive.namelist():
            raise ValueError(f"it holds no {_ANNOTATIONS}: export as CVAT for images 1.1")
        return archive.read(_ANNOTATIONS)


def _review(image: ET.Element, ids: dict[str, str], returned: Returned) -> ImageReview:
    match = _NAME.search(image.attrib["name"])
    if match is None or match[1] not in ids:
        raise ValueError(f"the output has no image {image.attrib['name']}")
    image_id = ids[match[1]]
    tags = {tag.attrib["label"] for tag in image.iterfind("tag")}
    if _REJECT in tags:
        return returned.rejected(image_id)
    drawn = _label_map(image, image_id, returned)
    return returned.corrected(image_id, drawn, accepted=_ACCEPT in tags)


def _label_map(image: ET.Element, image_id: str, returned: Returned) -> LabelMap:
    ids = returned.values
    drawn = np.zeros_like(returned.label_map(image_id))
    for shape in _shapes(image):
        label = shape.attrib["label"]
        if label not in ids:
            raise ValueError(f"image {image.attrib['name']} has the unknown label {label!r}")
        left, top, width, height = (
            int(float(shape.attrib[name])) for name in ("left", "top", "width", "height")
        )
        lengths = np.array([int(text) for text in shape.attrib["rle"].split(",")])
        inside = drawn[top : top + height, left : left + width]
        fits = min(left, top) >= 0 and inside.shape == (height, width)
        if not fits or (lengths < 0).any() or lengths.sum() != height * width:
            raise ValueError(f"a mask of {label} does not fit image {image.attrib['name']}")
        values = np.arange(len(lengths)) % 2 == 1
        inside[np.repeat(values, lengths).reshape(height, width)] = ids[label]
    return drawn


def _shapes(image: ET.Element) -> Iterator[ET.Element]:
    """Yield the masks of an image in the order in which they cover each other."""
    for shape in sorted(image, key=lambda one: int(one.attrib.get("z_order", 0))):
        if shape.tag == "mask":
            yield shape
        elif shape.tag != "tag":
            raise ValueError(
                f"image {image.attrib['name']} has a {shape.tag}: only masks have every pixel, so "
                "draw it as a mask"
            )
