"""Label Studio: tasks with predictions as brush masks; its JSON export comes back.

DEST/tasks.json   import it; each task has a prediction with scores
DEST/config.xml   the labelling interface
DEST/images/      images that Label Studio cannot open where they are, or all of them
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from salip_ray.datasets.exports.cases import NO_SPLIT, PROVENANCE, counts, describe, provenance
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError
from salip_ray.output.masks import LabelMap
from salip_ray.output.reader import LabelOutput
from salip_ray.review.records import ImageReview
from salip_ray.review.tools import brush_rle
from salip_ray.review.tools.shared import (
    IGNORED,
    Returned,
    ToolImages,
    class_masks,
    classes_of,
    colour_of,
    origin,
)
from salip_ray.review.tools.urls import Urls

_REJECT = "reject"


def export(
    labels: PseudoLabels,
    location: str,
    *,
    copy: bool = False,
    sign_hours: float = 0.0,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write tasks and the labelling interface; return the number of images.

    Args:
        labels: the labels.
        location: an empty or new location, or an export to resume.
        copy: copy all images as PNGs.
        sign_hours: hours for which URLs of remote images are signed; 0 for unsigned URLs.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed. Or their store signs
            no URLs.
    """
    about = describe("label-studio", labels, NO_SPLIT, copy=copy)
    with destination_of(location, about, storage_options) as destination:
        skipped = Unreadable(labels, destination)
        images = ToolImages(labels, destination, copy, skipped)
        urls = Urls(
            labels.reader.images.storage_options, str(destination), storage_options, sign_hours
        )
        made = (_task(labels, entry, images, urls) for entry in labels.entries)
        tasks = [json.dumps(task) for task in made if task is not None]
        written = skipped.finish(len(labels))
        destination.write("tasks.json", "[\n" + ",\n".join(tasks) + "\n]\n")
        destination.write("config.xml", _config(labels))
        destination.write(PROVENANCE, provenance(labels, NO_SPLIT, skipped.reasons))
        destination.complete(**counts(labels))
    return written


def _task(
    labels: PseudoLabels, entry: Entry, images: ToolImages, urls: Urls
) -> dict[str, Any] | None:
    path = images.path(entry)
    if path is None:
        return None
    result = list(_regions(labels, entry))
    prediction: dict[str, Any] = {"model_version": "salip_ray", "result": result}
    if (score := json_figure(entry.confidence)) is not None:
        prediction["score"] = score
    return {
        "data": {
            "image": urls.of(path),
            **origin(labels, entry),
        },
        "predictions": [prediction],
    }


def _regions(labels: PseudoLabels, entry: Entry) -> Iterator[dict[str, Any]]:
    for label, mask, figures in class_masks(labels, entry):
        region: dict[str, Any] = {
            "id": f"{entry.image_id[:12]}-{labels.class_ids.get(label, labels.ignore_index)}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": entry.width,
            "original_height": entry.height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]},
        }
        if figures is not None and (score := json_figure(figures.confidence)) is not None:
            region["score"] = score
        yield region


def _config(labels: PseudoLabels) -> str:
    shown = {**labels.class_ids, IGNORED: labels.ignore_index}
    lines = [
        f"    <Label value={quoteattr(label)} background={quoteattr(colour_of(class_id))}/>"
        for label, class_id in shown.items()
    ]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>',
            '  <BrushLabels name="label" toName="image">',
            *lines,
            "  </BrushLabels>",
            '  <Choices name="decision" toName="image" choice="single">',
            f'    <Choice value="{_REJECT}"/>',
            "  </Choices>",
            "</View>\n",
        ]
    )


def read(file: Path, content: Any, output: LabelOutput) -> list[ImageReview]:
    """Return the decisions in a JSON export of Label Studio.

    A submitted annotation decides on its image: classes that it changed are corrected, the others
    accepted. The choice ``reject`` rejects all classes. Tasks without an annotation are undecided.

    Args:
        file: the export, for messages.
        content: what it holds.
        output: the output that was exported.

    Raises:
        InputError: the file is damaged or of another output. The message names it.
    """
    try:
        classes = classes_of([task["data"] for task in content], output, file)
        returned = Returned(output, classes)
        return [_review(task, returned) for task in content]
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        what = f"{problem} is missing" if isinstance(problem, KeyError) else problem
        raise InputError(f"{file} cannot be imported: {what}") from None


def _review(task: Mapping[str, Any], returned: Returned) -> ImageReview:
    image_id = task["data"]["salip_image_id"]
    annotations = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
    if not annotations:
        return ImageReview(image_id, {})
    latest = max(annotations, key=lambda one: str(one.get("updated_at", "")))
    results = latest["result"]
    if any(_REJECT in one["value"].get("choices", ()) for one in results):
        return returned.rejected(image_id)
    return returned.corrected(image_id, _label_map(image_id, results, returned), accepted=True)


def _label_map(image_id: str, results: list[Mapping[str, Any]], returned: Returned) -> LabelMap:
    ids = returned.values
    drawn = np.zeros_like(returned.label_map(image_id))
    for one in results:
        if one["type"] != "brushlabels":
            continue
        (label,) = one["value"]["brushlabels"]
        if label not in ids:
            raise ValueError(f"image {image_id} has the unknown label {label!r}")
        size = one["original_height"], one["original_width"]
        if size != drawn.shape:
            raise ValueError(
                f"image {image_id} is {size[0]} x {size[1]} (height x width), "
                f"but was exported as {drawn.shape[0]} x {drawn.shape[1]}"
            )
        drawn[brush_rle.decode(one["value"]["rle"], *size)] = ids[label]
    return drawn
