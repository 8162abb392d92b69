"""How nouns are packed into the columns of a row."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pyarrow as pa
import pytest

from salip_ray.pipeline import arrow
from salip_ray.pipeline.arrow import in_tables

PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
EMBEDDING = np.arange(4 * 2 * 3, dtype=np.float32).reshape(1, 4, 2, 3)


def one_row(values):
    (table,) = in_tables(pa.table({"image_id": ["a"]}), [arrow.as_arrays(values)], ())
    return table


@pytest.mark.parametrize("picture", [PICTURE, PICTURE[:, ::-1], PICTURE[::2]])
def test_pixels_come_back_whatever_their_layout(picture):
    row = one_row(arrow.pack_working(picture))
    assert row.schema.field("_working").type == arrow.TYPES["_working"]
    found = arrow.unpack_working({name: row[name][0] for name in row.column_names})
    np.testing.assert_array_equal(found, picture)


def test_an_embedding_comes_back():
    row = one_row(arrow.pack_embedding(EMBEDDING))
    assert row.schema.field("_embedding").type == arrow.TYPES["_embedding"]
    found = arrow.unpack_embedding({name: row[name][0] for name in row.column_names})
    np.testing.assert_array_equal(found, EMBEDDING)


@pytest.mark.parametrize(
    ("pack", "made"),
    [(arrow.pack_working, PICTURE), (arrow.pack_embedding, EMBEDDING)],
)
def test_nothing_of_a_row_that_is_gone_is_kept(pack, made):
    array = made.copy()
    alive = weakref.ref(array)
    row = one_row(pack(array))
    del array
    assert row.num_rows == 1
    del row
    gc.collect()
    assert alive() is None
