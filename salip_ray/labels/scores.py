"""From an output and a reference location to an evaluation: the files around the pure scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from salip_ray.cascade.reference import class_references
from salip_ray.evaluation import Evaluation, score_rows
from salip_ray.labels.reading import Labels
from salip_ray.rows import Mask
from salip_ray.sources.references import References

_COLUMNS = ("image_id", "uri", "height", "width", "status", "error", "masks")


def evaluate_output(labels: Labels, references: References) -> Evaluation:
    """Score every committed row of an output against the masks of a reference location.

    Raises:
        InputError: a reference mask cannot be read, or has another size than its image.
    """
    classes = labels.classes

    def masks_of(uri: str) -> Mapping[str, Mask] | None:
        mask_uri = references.find(uri)
        return None if mask_uri is None else class_references(references.load(mask_uri), classes)

    evaluation = score_rows(
        labels.rows(columns=_COLUMNS),
        masks_of,
        labels=[spec.label for spec in classes],
        methods=labels.methods,
    )
    return replace(evaluation, not_committed=labels.n_images() - evaluation.n_images)


def open_and_evaluate(
    output: str,
    reference: str,
    *,
    output_options: Mapping[str, Any] | None = None,
    reference_options: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Open both locations and score the one against the other.

    Args:
        output: the output of ``salip-ray label``.
        reference: a folder of masks named by their image's stem, or an ``index.csv``.
        output_options: fsspec ``storage_options`` of the output.
        reference_options: those of the reference.

    Raises:
        OutputError: the output is not one of ours.
        InputError: the reference is missing, unreadable, or has another size than its image.
    """
    return evaluate_output(
        Labels.open(output, output_options), References.open(reference, reference_options)
    )
