"""A scripted person in each labelling tool: what it does with five of thirty images.

Each function corrects an export as a person does, in the form in which the tool saves, and returns
what ``import-review`` takes.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image as Pil

from salip_ray.review.tools import brush_rle
from tests.unit.review.mixed import SHAPE

#: What the person does with an image, by its index in the order of the export.
REJECTED, CHANGED, ADDED, ERASED, ACCEPTED = 3, 7, 12, 22, 25
_CORRECTED = {CHANGED, ADDED, ERASED}
_NAMES = {1: "lung", 2: "heart", 255: "pixels to ignore"}


def corrected(before, number):
    """Return the label map [H, W] that a person leaves of an image."""
    after = before.copy()
    if number == CHANGED:
        after[20:24, 5:20] = 1
        after[16, 12] = 0  # a hole of one pixel
    elif number == ADDED:
        assert 2 not in before
        after[30:34, 30:44] = 2
    elif number == ERASED:
        after[after == 2] = 0
        after[0, 0] = 255
    return after


def masks_in(label_map):
    """Yield the name and the mask of each value in a label map."""
    for value in np.unique(label_map[label_map > 0]).tolist():
        yield _NAMES[value], label_map == value


def _box(mask):
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(i))[[0, -1]].tolist() for i in (1, 0))
    return left, top, right, bottom


def in_label_studio(folder: Path, before) -> Path:
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        result = task["predictions"][0]["result"]
        if number not in {REJECTED, *_CORRECTED, ACCEPTED}:
            task["annotations"] = []
            continue
        if number == REJECTED:
            choice = {"type": "choices", "from_name": "decision", "to_name": "image"}
            result = [*result, {**choice, "value": {"choices": ["reject"]}}]
        elif number != ACCEPTED:
            after = corrected(before[task["data"]["salip_image_id"]], number)
            result = [
                {
                    "type": "brushlabels",
                    "original_width": SHAPE[1],
                    "original_height": SHAPE[0],
                    "value": {
                        "format": "rle",
                        "rle": brush_rle.encode(mask),
                        "brushlabels": [name],
                    },
                }
                for name, mask in masks_in(after)
            ]
        old = {"result": [], "updated_at": "2026-01-01"}
        task["annotations"] = [old, {"result": result, "updated_at": "2026-01-02"}]
    export = folder.with_name("project-1.json")
    export.write_text(json.dumps(tasks))
    return export


def _in_documents(folder: Path, before, shapes_of) -> Path:
    for file in folder.glob("*-*.json"):
        document = json.loads(file.read_text())
        number = list(before).index(document["salip_image_id"])
        document["flags"]["reject"] = number == REJECTED
        document["flags"]["accept"] = number in {*_CORRECTED, ACCEPTED}
        if number in _CORRECTED:
            after = corrected(before[document["salip_image_id"]], number)
            document["shapes"] = [
                {**shape, "label": name}
                for name, mask in masks_in(after)
                for shape in shapes_of(mask)
            ]
        file.write_text(json.dumps(document))
    return folder


def in_labelme(folder: Path, before) -> Path:
    def shapes_of(mask):
        left, top, right, bottom = _box(mask)
        buffer = io.BytesIO()
        Pil.fromarray(mask[top : bottom + 1, left : right + 1]).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        points = [[float(left), float(top)], [float(right), float(bottom)]]
        return [{"points": points, "shape_type": "mask", "mask": data}]

    return _in_documents(folder, before, shapes_of)


def in_xanylabeling(folder: Path, before) -> Path:
    """Draw a polygon around each row of pixels, which needs no polygon with a hole."""

    def shapes_of(mask):
        for y, row in enumerate(mask):
            ends = np.flatnonzero(np.diff(row, prepend=False, append=False)).reshape(-1, 2)
            for start, stop in ends.tolist():
                points = [[start, y + 0.2], [stop - 1.0, y + 0.2], [stop - 0.8, y - 0.3]]
                yield {"points": points, "shape_type": "polygon"}

    return _in_documents(folder, before, shapes_of)


def in_cvat(folder: Path, before) -> Path:
    file = folder / "annotations.xml"
    root = ElementTree.parse(file).getroot()
    for number, (image, label_map) in enumerate(
        zip(root.iter("image"), before.values(), strict=True)
    ):
        if number in {REJECTED, ACCEPTED, *_CORRECTED}:
            tag = "reject" if number == REJECTED else "accept"
            ElementTree.SubElement(image, "tag", label=tag, source="manual")
        if number in _CORRECTED:
            for mask in image.findall("mask"):
                image.remove(mask)
            for name, drawn in masks_in(corrected(label_map, number)):
                runs = [(key, len(list(group))) for key, group in groupby(drawn.ravel())]
                lengths = [0] * int(runs[0][0]) + [length for _, length in runs]
                box = {"left": "0", "top": "0", "width": str(SHAPE[1]), "height": str(SHAPE[0])}
                rle = ", ".join(map(str, lengths))
                ElementTree.SubElement(image, "mask", label=name, rle=rle, **box)
    ElementTree.ElementTree(root).write(file)
    return file


def in_fiftyone(folder: Path, before) -> Path:
    """Tag samples and labels, and replace labels by masks of other types and larger boxes."""
    file = folder / "samples.json"
    content = json.loads(file.read_text())
    for number, sample in enumerate(content["samples"]):
        if number == REJECTED:
            sample["tags"].append("reject")
        elif number == ACCEPTED:
            for one in sample["pseudo_labels"]["detections"]:
                one["tags"].append("accept")
        elif number in _CORRECTED:
            sample["tags"].append("accept")
            after = corrected(before[sample["salip_image_id"]], number)
            sample["pseudo_labels"]["detections"] = [
                {
                    "label": name,
                    "tags": [],
                    "bounding_box": [0.0, 0.0, 1.0, 1.0],
                    "mask": {"$binary": {"base64": packed_array(mask.astype(np.uint8) * 255)}},
                }
                for name, mask in masks_in(after)
            ]
    file.write_text(json.dumps(content))
    return folder


def packed_array(values) -> str:
    """Return an array as FiftyOne stores it."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


#: The person of each command of ``salip-ray export``.
PEOPLE = {
    "label-studio": in_label_studio,
    "cvat": in_cvat,
    "fiftyone": in_fiftyone,
    "labelme": in_labelme,
    "xanylabeling": in_xanylabeling,
}
