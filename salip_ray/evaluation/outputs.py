"""From an output and a reference location to an evaluation: the files around the pure scoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from salip_ray.cascade.geometry import class_references
from salip_ray.errors import OutputError
from salip_ray.evaluation import Evaluation, Score, as_json, nnunet_summary, score_rows
from salip_ray.evaluation.nnunet import FILE as SUMMARY_FILE
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Mask
from salip_ray.sources.privacy import is_pseudonym
from salip_ray.sources.references import References

_OF_IMAGE = ("image_id", "uri", "height", "width", "volume", "slice", "spacing")
_COLUMNS = (*_OF_IMAGE, "status", "error", "masks")

#: From a row to mask cells of a method that is not the output's own: ``method, label, rle``.
CellsOf = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


def evaluate_output(
    labels: LabelOutput,
    references: References,
    *,
    surfaces: bool = True,
    others: Mapping[str, CellsOf] | None = None,
) -> Evaluation:
    """Score every committed row of an output against the masks of a reference location.

    A slice or frame is scored against its own: of a mask volume that is cut as its image was, or a
    mask of one slice. Images that share a stem have a mask only where an index lists them whole.

    Args:
        labels: the output.
        references: the masks.
        surfaces: whether to compute HD95 and NSD, too: most of the time.
        others: further methods to score on the same images, by name.

    Raises:
        InputError: a reference mask cannot be read, or is not on the grid of its image.
    """
    classes, config = labels.classes, labels.image_config
    tuned_on = labels.tuned_on
    manifest = labels.manifest(["uri", "volume"])
    slices = Counter(manifest["volume"].drop_null().to_pylist())
    references = references.among(manifest["uri"].to_pylist())

    def masks_of(row: Mapping[str, Any]) -> Mapping[str, Mask] | None:
        mask = references.find(labels.image_ref(row))
        if mask is None:
            return None
        count = slices[row["volume"]]
        ids = references.load(mask, config, count=count, spacing=row["spacing"])
        return class_references(ids, classes)

    more = others or {}

    def rows() -> Iterator[dict[str, Any]]:
        for row in labels.rows(columns=_COLUMNS):
            scored = row["status"] != "error" and row["image_id"] not in tuned_on
            wanted = scored and references.find(labels.image_ref(row))
            extra = [cell for of in more.values() for cell in of(row)] if wanted else []
            yield {**row, "masks": [*(row["masks"] or ()), *extra]}

    evaluation = score_rows(
        rows() if more else labels.rows(columns=_COLUMNS),
        masks_of,
        labels=[spec.label for spec in classes],
        methods=[*labels.methods, *more],
        surfaces=surfaces,
        tuned_on=tuned_on,
    )
    return replace(evaluation, not_committed=labels.n_images() - evaluation.n_images)


def write_results(
    evaluation: Evaluation, file: Path, labels: LabelOutput, references: References
) -> tuple[Path, Path]:
    """Write an evaluation to ``file``, and its nnU-Net summary of the cascade beside it.

    Returns both paths.

    Raises:
        OutputError: a file cannot be written.
    """

    def reference_file(score: Score) -> str | None:
        if is_pseudonym(score.uri):
            return None  # a mask is named as its image is
        found = references.find(labels.image_ref(asdict(score)))
        return None if found is None else found.uri

    summary = nnunet_summary(
        evaluation,
        {spec.label: spec.class_id for spec in labels.classes},
        reference_file=reference_file,
    )
    beside = file.parent / SUMMARY_FILE
    for path, text in ((file, as_json(evaluation)), (beside, summary)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    return file, beside
