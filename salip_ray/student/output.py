"""The output of a student's training: its record, its images and its weights.

::

    student.json         the record: options, labels, number of images; scores at the end
    images.parquet       image_id, uri, part (train or val), confidence
    history.json         loss and agreement with the teacher, epoch by epoch
    student.safetensors  the best weights; written last, so they complete the training
    scores/NAME/         evaluation.json and summary_nnunet.json of each test
    train/               Ray Train's checkpoints
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import OutputError
from salip_ray.output.claim import Claim, Record, as_json, claimed
from salip_ray.output.layout import STUDENT, STUDENT_IMAGES, STUDENT_WEIGHTS
from salip_ray.output.store import Store
from salip_ray.student.options import StudentOptions

if TYPE_CHECKING:
    from salip_ray.student.network import Student

_SCHEMA_VERSION = 1


@contextlib.contextmanager
def claimed_training(
    store: Store, parts: Mapping[str, PseudoLabels], options: StudentOptions
) -> Iterator[Claim]:
    """Hold the lease of an output that this training claims or resumes.

    Args:
        store: the output.
        parts: the images to train on (``train``) and those to choose the epoch by (``val``).
        options: of the training.

    Raises:
        OutputError: the location holds files of something else.
        ResumeError: the output is of a training with other options or images.
        LeaseError: another process writes the output.
    """
    rows = [
        {"image_id": e.image_id, "uri": e.uri, "part": part, "confidence": float(e.confidence)}
        for part, labels in parts.items()
        for e in labels.entries
    ]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    job = {
        "options": asdict(options),
        "labels": parts["train"].output.uri,
        "images": {"sha256": digest, **{part: len(labels) for part, labels in parts.items()}},
    }
    version = {"schema_version": _SCHEMA_VERSION}
    with claimed(store, Record("training", STUDENT, job, key="job", before=version)) as claim:
        if store.read(STUDENT_IMAGES) is None:
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
            store.write(STUDENT_IMAGES, buffer.getvalue())
        yield claim


def trained_images(store: Store) -> frozenset[str]:
    """Return the ids of all images that a training used, to learn from or to choose an epoch by.

    Raises:
        OutputError: the store is not the output of a training.
    """
    data = store.read(STUDENT_IMAGES)
    if data is None:
        raise OutputError(f"{store} holds no {STUDENT_IMAGES}: it is not the output of a training")
    return frozenset(pq.read_table(io.BytesIO(data))["image_id"].to_pylist())


def load_student(store: Store) -> Student:
    """Return the trained student of an output.

    Raises:
        OutputError: the training has not ended.
    """
    from salip_ray.student.network import Student

    data = store.read(STUDENT_WEIGHTS)
    if data is None:
        raise OutputError(
            f"{store} holds no {STUDENT_WEIGHTS}, so its training has not ended: run the original "
            "command again to resume"
        )
    return Student.from_bytes(data, store.path_of(STUDENT_WEIGHTS))


def record_scores(store: Store, scores: Mapping[str, Any]) -> None:
    """Add the scores of the tests to the record of a training."""
    data = store.read(STUDENT)
    assert data is not None, "a training writes its record first"
    store.write(STUDENT, as_json({**json.loads(data), "scores": dict(scores)}))
