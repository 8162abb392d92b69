"""Score an output against reference masks, and write the scores to files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.cascade.geometry import class_references
from salip_ray.errors import ConfigError, InputError, OutputError
from salip_ray.evaluation import Evaluation, Score, as_json, nnunet_summary, score_rows
from salip_ray.evaluation.coco_references import CocoReferences
from salip_ray.output.layout import EVALUATION_NNUNET
from salip_ray.output.masks import Rle, region_rles
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Mask
from salip_ray.sources.privacy import is_pseudonym, scrub
from salip_ray.sources.references import References

_OF_IMAGE = ("image_id", "uri", "height", "width", "volume", "slice", "spacing")
_COLUMNS = (*_OF_IMAGE, "status", "error", "masks")

#: Returns the mask cells (``method, label, rle``) of a row by a method that is not in the output.
CellsOf = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


def evaluate_output(
    labels: LabelOutput,
    references: References | CocoReferences,
    *,
    surfaces: bool = True,
    others: Mapping[str, CellsOf] | None = None,
    instance_ids: bool = False,
) -> Evaluation:
    """Score every committed row of an output against the masks of a reference location.

    A slice or frame is scored against its own mask: a slice of a mask volume, cut as its image was,
    or a mask file per slice. Images that share a stem have a mask only if an index lists them.

    Objects are those of a COCO file, or the components of masks, without those below 2 % of the
    largest.

    Args:
        labels: the output.
        references: the masks, or the objects of a COCO file.
        surfaces: whether to compute HD95 and NSD, which take most of the time.
        others: further methods to score on the same images, by name.
        instance_ids: each value of a mask above 0 is an object; the task has one class.

    Raises:
        ConfigError: ``instance_ids`` with several classes, or with a COCO file.
        InputError: a reference mask cannot be read, or is not on the grid of its image. If the run
            hid the name of the image, the message hides that of its mask.
    """
    classes, config = labels.classes, labels.image_config
    names = [spec.label for spec in classes]
    is_coco = isinstance(references, CocoReferences)
    if instance_ids and (len(names) > 1 or is_coco):
        what = "a COCO file tells objects apart itself" if is_coco else f"{len(names)} classes"
        raise ConfigError(
            f"--instance-ids is for masks of one class whose values are objects, found {what}: "
            "leave it out, or give a COCO file"
        )
    tuned_on, calibrated_on = labels.tuned_on, labels.calibrated_on
    manifest = labels.manifest(["uri", "volume"])
    slices = Counter(manifest["volume"].drop_null().to_pylist())
    references = references.among(manifest["uri"].to_pylist())

    objects: dict[str, Sequence[Rle]] = {}  # the objects of the last row
    joined: set[str] = set()  # ids of images whose mask has several values, for one class

    def masks_of(row: Mapping[str, Any]) -> Mapping[str, Mask] | None:
        image = labels.image_ref(row)
        if isinstance(references, CocoReferences):
            listed = references.objects(image)
            if listed is None:
                return None
            objects.update(listed.by_label(names))
            return {label: listed.mask(objects[label]) for label in names}
        try:
            mask = references.find(image)
            if mask is None:
                return None
            count = slices[row["volume"]]
            ids = references.load(mask, config, count=count, spacing=row["spacing"])
        except InputError as error:
            if not is_pseudonym(row["uri"]):
                raise
            named = references.named(image)  # a mask has the name of its image
            hidden = (image.uri, named.uri if named else None)
            message = scrub(str(error), hidden, row["uri"])
            raise InputError(f"the reference of {row['uri']}: {message}") from None
        if instance_ids:
            objects[names[0]] = region_rles(ids)
        elif len(names) == 1 and (values := ids[ids > 0]).size and np.ptp(values) > 0:
            joined.add(row["image_id"])
        return class_references(ids, classes)

    def slice_mm(row: Mapping[str, Any]) -> float | None:
        if isinstance(references, CocoReferences):
            return None
        mask = references.find(labels.image_ref(row))
        return None if mask is None else references.slice_distance(mask)

    more = others or {}

    def rows() -> Iterator[dict[str, Any]]:
        for row in labels.rows(columns=_COLUMNS):
            scored = row["status"] != "error" and row["image_id"] not in tuned_on | calibrated_on
            wanted = scored and references.find(labels.image_ref(row))
            extra = [cell for of in more.values() for cell in of(row)] if wanted else []
            yield {**row, "masks": [*(row["masks"] or ()), *extra]}

    evaluation = score_rows(
        rows() if more else labels.rows(columns=_COLUMNS),
        masks_of,
        labels=names,
        methods=[*labels.methods, *more],
        surfaces=surfaces,
        tuned_on=tuned_on,
        calibrated_on=calibrated_on,
        why_without=lambda row: references.ambiguity(labels.image_ref(row)),
        slices=slices,
        slice_mm=slice_mm,
        objects_of=(lambda _row: objects) if is_coco or instance_ids else None,
    )
    missing = labels.n_images() - evaluation.n_images
    return replace(evaluation, not_committed=missing, joined=len(joined))


def write_results(
    evaluation: Evaluation,
    file: Path,
    labels: LabelOutput,
    references: References | CocoReferences,
) -> tuple[Path, Path]:
    """Write an evaluation to ``file``, and nnU-Net's summary of the cascade next to it.

    Returns:
        Both paths.

    Raises:
        OutputError: a file cannot be written.
    """

    def reference_file(score: Score) -> str | None:
        if is_pseudonym(score.uri):
            return None  # a mask has the name of its image
        mask = references.find(labels.image_ref(asdict(score)))
        return None if mask is None else mask.uri

    summary = nnunet_summary(
        evaluation,
        {spec.label: spec.class_id for spec in labels.classes},
        reference_file=reference_file,
    )
    summary_file = file.parent / EVALUATION_NNUNET
    for path, text in ((file, as_json(evaluation)), (summary_file, summary)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    return file, summary_file
