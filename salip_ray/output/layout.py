"""Names of the files of an output: the only module that defines them.

An export has the names of its format, which its own module defines.

The output of ``label``::

    run.json                    the record of the job: recipe, weights, versions
    manifest.parquet            the frozen list of images and their shards
    shards/part-00000.parquet   one row per image; written last, so it commits the shard
    masks/part-00000.tar        IMAGE_ID.mask.png (class ids, 0 background) and IMAGE_ID.json
    stats/part-00000.json       seconds per stage, host, checksums of the other two
    summary.json                counts of the whole job
    seal.json                   checksums of the files above, those of shards by their statistics
    lease.json                  the driver that writes the output now
    calibration.json            confidences fitted on a few labelled images
    reviews/                    decisions of people, and the label maps that they corrected
    evaluation.json             scores against reference masks
    report.html                 written by ``report``
    review.html                 written by ``review``
"""

from __future__ import annotations

import re
from collections.abc import Iterable

RUN = "run.json"
MANIFEST = "manifest.parquet"
LEASE = "lease.json"
SUMMARY = "summary.json"
SEAL = "seal.json"
REPORT = "report.html"
REVIEW_PAGE = "review.html"

SHARDS, MASKS, STATS = "shards", "masks", "stats"
#: Folder of a shard's files -> suffix of their names.
SUFFIXES = {SHARDS: "parquet", MASKS: "tar", STATS: "json"}

#: Written by ``calibrate``.
CALIBRATION = "calibration.json"
DECISIONS = "reviews/decisions.json"
REVIEW_MASKS = "reviews/masks"

EVALUATION = "evaluation.json"
EVALUATION_NNUNET = "summary_nnunet.json"

#: The record of an export, next to its files.
EXPORT = "export.json"

# The output of a search (``tune``).
TUNING = "tuning.json"
TUNED_TASK = "tuned.yaml"
TRIALS_TABLE = "trials.csv"
TUNING_PLOT = "tuning.svg"
TUNING_CACHE = "kept"  # language: ok (searches that were started before use this name)
TRIALS = "trials"
TUNING_RUN = "tune"  # Ray Tune's own folders are tune-0, tune-1, ...

# The output of a student's training.
STUDENT = "student.json"
STUDENT_IMAGES = "images.parquet"
STUDENT_HISTORY = "history.json"
STUDENT_WEIGHTS = "student.safetensors"
STUDENT_SCORES = "scores"
STUDENT_CHECKPOINTS = "train"

# The output of ``reproduce``: its lists and the files that jobs read are in ``data/``.
REPRODUCTION = "reproduction.json"
REPRODUCTION_TABLE = "table.md"
REPRODUCTION_FIGURES = "figures.csv"
REPRODUCTION_PROFILE = "profile.json"
REPRODUCTION_SEARCH = "search"
REPRODUCTION_FAITHFUL, REPRODUCTION_OURS = "faithful", "ours"
REPRODUCTION_TUNING = "ours-search"

_SHARD = re.compile(r"part-(\d{5,})\.(\w+)")
_LABEL_MAP = ".mask.png"
_DESCRIPTION = ".json"


def shard_file(folder: str, shard: int) -> str:
    """Return the name of a shard's file: ``shards/part-00000.parquet`` for folder ``shards``."""
    return f"{folder}/part-{shard:05d}.{SUFFIXES[folder]}"


def shard_number(name: str, folder: str = SHARDS) -> int | None:
    """Return the number of the shard whose file has this name, or None if it is another file.

    Args:
        name: a name without its folder: ``part-00000.parquet``.
        folder: the folder that holds it.
    """
    match = _SHARD.fullmatch(name)
    return int(match.group(1)) if match and match.group(2) == SUFFIXES[folder] else None


def shard_numbers(names: Iterable[str], folder: str = SHARDS) -> frozenset[int]:
    """Return the numbers of the shards that have a file among the names of a folder."""
    numbers = (shard_number(name, folder) for name in names)
    return frozenset(number for number in numbers if number is not None)


def label_map_member(image_id: str) -> str:
    """Return the name of an image's label map in the tar file of its shard."""
    return f"{image_id}{_LABEL_MAP}"


def description_member(image_id: str) -> str:
    """Return the name of the JSON file next to the label map of an image."""
    return f"{image_id}{_DESCRIPTION}"


def is_label_map(member: str) -> bool:
    """Return True if a member of a shard's tar file is a label map."""
    return member.endswith(_LABEL_MAP)


def image_of_member(member: str) -> str:
    """Return the image id in the name of a member of a shard's tar file."""
    return member.partition(".")[0]
