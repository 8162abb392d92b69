"""From an output and a reference location to an evaluation: the files around the pure scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from salip_ray.cascade.reference import class_references
from salip_ray.errors import OutputError
from salip_ray.evaluation import Evaluation, as_json, nnunet_summary, score_rows
from salip_ray.evaluation.nnunet import FILE as SUMMARY_FILE
from salip_ray.labels.reading import Labels
from salip_ray.rows import Mask
from salip_ray.sources.references import References

_COLUMNS = ("image_id", "uri", "height", "width", "status", "error", "masks")


def evaluate_output(labels: Labels, references: References, *, surfaces: bool = True) -> Evaluation:
    """Score every committed row of an output against the masks of a reference location.

    ``surfaces`` says whether to compute HD95 and NSD, too: most of the time.

    Raises:
        InputError: a reference mask cannot be read, or has another size than its image.
    """
    classes = labels.classes

    def masks_of(uri: str) -> Mapping[str, Mask] | None:
        mask_uri = references.find(labels.source_uri(uri))
        return None if mask_uri is None else class_references(references.load(mask_uri), classes)

    evaluation = score_rows(
        labels.rows(columns=_COLUMNS),
        masks_of,
        labels=[spec.label for spec in classes],
        methods=labels.methods,
        surfaces=surfaces,
    )
    return replace(evaluation, not_committed=labels.n_images() - evaluation.n_images)


def write_results(
    evaluation: Evaluation, file: Path, labels: Labels, references: References
) -> tuple[Path, Path]:
    """Write an evaluation to ``file``, and its nnU-Net summary of the cascade beside it.

    Returns both paths.

    Raises:
        OutputError: a file cannot be written.
    """
    summary = nnunet_summary(
        evaluation,
        {spec.label: spec.class_id for spec in labels.classes},
        reference_file=references.find,
    )
    beside = file.parent / SUMMARY_FILE
    for path, text in ((file, as_json(evaluation)), (beside, summary)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    return file, beside
