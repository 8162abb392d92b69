"""Decisions are stored next to the labels."""

from __future__ import annotations

import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision, Reviews
from salip_ray.errors import OutputError
from salip_ray.output.cells import pack_instance
from salip_ray.output.commit import parquet_bytes
from salip_ray.output.masks import decode_rle, encode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import LABEL_SCHEMA, Instance
from tests.unit.datasets.conftest import save_decisions

ACCEPTED = {f"{number:032x}": Decision("accepted") for number in range(500)}


def test_interrupted_write_loses_no_decision(output):
    save_decisions(output, ACCEPTED)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes of a file, as of a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot write .*reviews"):
            save_decisions(output, {"f" * 32: Decision("rejected")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Reviews.of(LabelOutput.open(str(output))).decisions.keys() == ACCEPTED.keys()


def test_no_instance_survives_a_correction(output):
    """An accepted label keeps its instances; those of a drawn one are its components."""
    with_instances(output)
    labels = PseudoLabels(str(output))
    first, second = labels.entries[1:3]
    drawn = np.zeros((first.height, first.width), np.uint8)
    drawn[0:4, 0:4] = drawn[10:12, 10:15] = drawn[20:22, 30:32] = 1
    save_decisions(
        output,
        {
            first.image_id: Decision("corrected", values=(0, 1)),
            second.image_id: Decision("accepted"),
        },
        {first.image_id: encode_png(drawn)},
    )
    labels = PseudoLabels(str(output))
    (cell,) = labels.masks(first)
    assert [item["area"] for item in cell["instances"]] == [16, 10, 4]
    accepted = {cell["label"]: len(cell["instances"]) for cell in labels.masks(second)}
    assert accepted == {"lung": 2, "heart": 0}
    drawn[drawn > 0], drawn[5:9, 5:9] = 0, 2
    save_decisions(
        output,
        {first.image_id: Decision("corrected", values=(0, 2))},
        {first.image_id: encode_png(drawn)},
    )
    (cell,) = PseudoLabels(str(output)).masks(first)
    assert (cell["label"], cell["instances"]) == ("heart", [])


def with_instances(output):
    """Cut each lung of an output into two instances."""
    for file in (output / "shards").iterdir():
        rows = pq.read_table(file).to_pylist()
        for cell in (cell for row in rows for cell in row["masks"] or ()):
            if cell["label"] == "lung":
                top, bottom = np.zeros((2, *cell["rle"]["size"]), bool)
                top[:12] = bottom[12:] = decode_rle(cell["rle"]).any()
                parts = [decode_rle(cell["rle"]) & half for half in (top, bottom)]
                cell["instances"] = [pack_instance(Instance(part)) for part in parts]
            else:
                cell["instances"] = []
        file.write_bytes(parquet_bytes(pa.Table.from_pylist(rows, LABEL_SCHEMA)))
