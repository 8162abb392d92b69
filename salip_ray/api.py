"""Functions of the public API that read an output; the others are in :mod:`salip_ray.pipeline`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salip_ray.evaluation import Evaluation
    from salip_ray.output.status import Status
    from salip_ray.output.verify import Verification

Location = str | os.PathLike[str]


def verify(
    output: Location,
    *,
    partial: bool = False,
    manifest: Location | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Check every file of an output: counts, ids, checksums, and masks against label maps.

    Args:
        output: what :func:`salip_ray.label` wrote, local or a URI.
        partial: the job has not finished: check only the committed shards.
        manifest: the manifest, if the job was started with one outside of the output.
        storage_options: fsspec options of the output.

    Returns:
        The counts and the ``problems`` found, empty if there are none.

    Raises:
        OutputError: the output holds no job, or cannot be read.

    Examples:
        >>> from salip_ray import verify
        >>> checked = verify("labels")
        >>> checked.images, checked.problems
        (3, ())
    """
    from salip_ray.output.verify import verify as verify_output

    return verify_output(
        os.fspath(output), storage_options, partial=partial, manifest=_optional(manifest)
    )


def status(
    output: Location,
    *,
    manifest: Location | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Status:
    """Return the progress of the job that writes an output.

    Args:
        output: what :func:`salip_ray.label` writes, local or a URI.
        manifest: the manifest, if the job was started with one outside of the output.
        storage_options: fsspec options of the output.

    Raises:
        NoJobError: the output holds no job, or not yet.
        OutputError: the output cannot be read.

    Examples:
        >>> from salip_ray import status
        >>> current = status("labels")
        >>> current.state, current.done, current.failed
        ('complete', 3, 0)
    """
    from salip_ray.output.status import read_status

    return read_status(os.fspath(output), storage_options, manifest=_optional(manifest))


def evaluate(
    output: Location,
    references: Location,
    *,
    surfaces: bool = True,
    instance_ids: bool = False,
    manifest: Location | None = None,
    storage_options: Mapping[str, Any] | None = None,
    reference_options: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score the labels of an output against reference masks.

    Args:
        output: what :func:`salip_ray.label` wrote, local or a URI.
        references: a folder of masks with the stems of their images, an ``index.csv`` with the
            columns ``image`` and ``mask``, or a COCO file of instances.
        surfaces: compute HD95 and NSD, which take most of the time.
        instance_ids: each value of a mask above 0 is an object; the task has one class.
        manifest: the manifest, if the job was started with one outside of the output.
        storage_options: fsspec options of the output.
        reference_options: fsspec options of the references.

    Raises:
        OutputError: the output holds no job, or cannot be read.
        InputError: a reference mask cannot be read, or has another size than its image.

    Examples:
        >>> from salip_ray import evaluate
        >>> evaluation = evaluate("labels", "masks", surfaces=False)
        >>> average = evaluation.averages()["lungs"]["cascade"]
        >>> average.n, 0 <= average.dice <= 1
        (3, True)
    """
    from salip_ray.evaluation.coco_references import open_references
    from salip_ray.evaluation.outputs import evaluate_output
    from salip_ray.output.reader import LabelOutput

    labels = LabelOutput.open(os.fspath(output), dict(storage_options or {}), _optional(manifest))
    names = [spec.label for spec in labels.classes]
    masks = open_references(os.fspath(references), names, dict(reference_options or {}))
    return evaluate_output(labels, masks, surfaces=surfaces, instance_ids=instance_ids)


def _optional(location: Location | None) -> str | None:
    return None if location is None else os.fspath(location)
