"""The output of a student's training: whose it is, what it holds, and what came of it.

::

    student.json         what made it: options, labels, images of each part; scores at the end
    images.parquet       image_id, uri, part (train or val), confidence
    history.json         loss and agreement with the teacher, epoch by epoch
    student.safetensors  the best weights; written last: the training's commit
    scores/NAME/         evaluation.json and summary_nnunet.json of each test
    train/               Ray Train's checkpoints
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import OutputError, ResumeError
from salip_ray.output.job_record import differences
from salip_ray.output.store import Store
from salip_ray.student.options import StudentOptions

if TYPE_CHECKING:
    from salip_ray.student.network import Student

ABOUT, WEIGHTS, HISTORY, IMAGES = (
    "student.json",
    "student.safetensors",
    "history.json",
    "images.parquet",
)
_SCHEMA_VERSION = 1


def begin(store: Store, parts: Mapping[str, PseudoLabels], options: StudentOptions) -> None:
    """Claim an empty output, or check that a begun one is of this very training.

    Args:
        store: the output.
        parts: the images to train on (``train``) and to choose the epoch by (``val``).
        options: of the training.

    Raises:
        OutputError: the output is not ours, or (ResumeError) of another training.
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
    data = store.read(ABOUT)
    if data is None:
        if set(store.names()) - {IMAGES}:  # written first, and all there is after a kill in between
            raise OutputError(f"output {store} is not empty, and holds no {ABOUT}")
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
        store.write(IMAGES, buffer.getvalue())
        store.write(ABOUT, as_json({"schema_version": _SCHEMA_VERSION, "job": job}))
        return
    try:
        begun = json.loads(data)["job"]
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{store}/{ABOUT} is not of a training") from None
    changed = list(differences(begun, json.loads(json.dumps(job))))
    if changed:
        raise ResumeError(
            f"output {store} was begun by another training. Changed: {'; '.join(changed[:5])}. "
            "Give the same options to go on, or another output"
        )


def trained_images(store: Store) -> frozenset[str]:
    """The ids of all images that a training used, to learn from or to choose an epoch by."""
    data = store.read(IMAGES)
    if data is None:
        raise OutputError(f"{store} holds no {IMAGES}, so it is not the output of a training")
    return frozenset(pq.read_table(io.BytesIO(data))["image_id"].to_pylist())


def load_student(store: Store) -> Student:
    """The trained student of an output.

    Raises:
        OutputError: there is none yet.
    """
    from salip_ray.student.network import Student

    data = store.read(WEIGHTS)
    if data is None:
        raise OutputError(f"{store} holds no {WEIGHTS}: the training has not ended")
    return Student.from_bytes(data, f"{store}/{WEIGHTS}")


def record_scores(store: Store, scores: Mapping[str, Any]) -> None:
    """Keep what came of the tests in ``student.json``."""
    data = store.read(ABOUT)
    assert data is not None, "a training begins its output"
    store.write(ABOUT, as_json({**json.loads(data), "scores": dict(scores)}))


def as_json(data: Any) -> bytes:
    """JSON text, as bytes."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
