"""How nouns are packed into the columns of a row."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch

from salip_ray.output.cells import pack_masks, read_mask
from salip_ray.pipeline.rows import columns, tables
from salip_ray.pipeline.rows.tables import in_tables
from salip_ray.schema import MASK_TYPE, ClassMask, ClipScores, Points, ProposedMask, SamScores

PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
EMBEDDING = np.arange(4 * 2 * 3, dtype=np.float32).reshape(1, 4, 2, 3)


def one_row(values):
    (table,) = in_tables(pa.table({"image_id": ["a"]}), [tables.as_arrays(values)], ())
    return table


@pytest.mark.parametrize("picture", [PICTURE, PICTURE[:, ::-1], PICTURE[::2]])
def test_pixels_come_back_whatever_their_layout(picture):
    row = one_row(columns.pack_working(picture))
    assert row.schema.field("_working").type == columns.TYPES["_working"]
    unpacked = columns.unpack_working({name: row[name][0] for name in row.column_names})
    np.testing.assert_array_equal(unpacked, picture)


def test_an_embedding_comes_back():
    row = one_row(columns.pack_embedding(EMBEDDING))
    assert row.schema.field("_embedding").type == columns.TYPES["_embedding"]
    unpacked = columns.unpack_embedding({name: row[name][0] for name in row.column_names})
    np.testing.assert_array_equal(unpacked, EMBEDDING)


def test_named_tensors_of_any_type_round_trip():
    embedding = {
        "odd": torch.arange(3, dtype=torch.int8),
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T,
        "wide": torch.arange(4, dtype=torch.float64).reshape(1, 2, 2),
        "none": torch.zeros(0, 5),
    }
    row = one_row(columns.pack_embedding(embedding))
    unpacked = columns.unpack_embedding({name: row[name][0] for name in row.column_names})
    assert list(unpacked) == list(embedding)
    for name, tensor in embedding.items():
        assert unpacked[name].dtype == tensor.dtype
        torch.testing.assert_close(unpacked[name], tensor)
        unpacked[name] += 1  # writable


def test_no_embedding_comes_back_as_none():
    row = one_row(columns.pack_embedding(None))
    assert columns.unpack_embedding({name: row[name][0] for name in row.column_names}) is None


@pytest.mark.parametrize(
    ("pack", "made"),
    [(columns.pack_working, PICTURE), (columns.pack_embedding, EMBEDDING)],
)
def test_a_deleted_row_frees_its_memory(pack, made):
    array = made.copy()
    alive = weakref.ref(array)
    row = one_row(pack(array))
    del array
    assert row.num_rows == 1
    del row
    gc.collect()
    assert alive() is None


def test_a_figure_that_does_not_apply_is_nan_in_the_row_and_none_outside_it():
    mask = np.eye(3, dtype=np.bool_)
    full = ClassMask(
        "cascade",
        "lungs",
        1,
        mask,
        SamScores(0.5, 0.75),
        candidate_ids=(3,),
        prompt_boxes=((0.0, 0.0, 2.0, 2.0),),
        clip=ClipScores(20.0, 1.5, 0.25, 0.125),
        proposed=ProposedMask(~mask, 0.5),
        confidence=0.875,
    )
    bare = ClassMask("unprompted_largest", "lungs", 1, mask)
    lone = ClassMask("cascade", "lungs", 1, mask, SamScores(0.5, 0.75), clip=ClipScores(20.0))
    column = pa.array([pack_masks([full, bare, lone])], pa.list_(MASK_TYPE))
    cells = column[0].as_py()
    figures = ("clip_score", "clip_margin", "clip_probability", "presence", "predicted_iou")
    figures += ("stability_score", "agreement", "confidence")
    assert not any(math.isnan(cells[0][name]) for name in figures)
    assert all(math.isnan(cells[1][name]) for name in figures)
    assert [name for name in figures if math.isnan(cells[2][name])] == [
        *("clip_margin", "clip_probability", "presence", "agreement", "confidence")
    ]
    for made, cell in zip((full, bare, lone), cells, strict=True):
        read = read_mask(cell)
        assert (read.sam, read.clip, read.confidence) == (made.sam, made.clip, made.confidence)
        assert (read.candidate_ids, read.prompt_boxes) == (made.candidate_ids, made.prompt_boxes)
        assert (read.proposed is None) == (made.proposed is None)
    np.testing.assert_array_equal(read_mask(cells[0]).proposed.mask, ~mask)


def test_boxes_and_points_come_back():
    given = [
        ("lungs", (0.5, 1.0, 7.25, 9.0)),
        ("heart", Points(((3.0, 4.5), (5.0, 6.0)), ((1.0, 2.0),))),
        ("heart", Points(((3.0, 4.5),))),
    ]
    for prompts in (given, []):
        cells = {"_prompts": pa.scalar(columns.pack_prompts(prompts), columns.TYPES["_prompts"])}
        assert columns.unpack_prompts(cells) == prompts
    mask = np.zeros((5, 7), np.bool_)
    mask[1:3, 2:6] = True
    packed = columns.pack_prompts([("2", mask)])
    cells = {"_prompts": pa.scalar(packed, columns.TYPES["_prompts"])}
    ((label, unpacked),) = columns.unpack_prompts(cells)
    assert label == "2"
    np.testing.assert_array_equal(unpacked, mask)
    assert columns.pack_prompts(None) is None
