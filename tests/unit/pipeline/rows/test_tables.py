"""Rows that are handed on as tables of a few."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from salip_ray.pipeline.rows import columns, tables

ROWS = pa.table(
    {
        "image_id": ["a", "b", "c", "d", "e"],
        "status": ["ok", "ok", "error", "ok", "ok"],
    }
)


def embedding(mib):
    return columns.pack_embedding(np.zeros((1, mib, 512, 512), np.float32))


def test_light_rows_travel_together():
    rows = [tables.as_arrays({"n_candidates": n}) for n in range(5)]
    (table,) = tables.in_tables(ROWS, rows, ("n_candidates",))
    assert table.to_pylist() == [
        {**row, "n_candidates": n} for n, row in enumerate(ROWS.to_pylist())
    ]
    assert table["n_candidates"].type == columns.TYPES["n_candidates"]
    assert table["n_candidates"].num_chunks == 1


def test_heavy_rows_go_on_as_they_get_done():
    done = []

    def rows():
        for name, mib in zip("abcde", (10, 20, 5, 33, 1), strict=True):
            done.append(name)
            yield tables.as_arrays(embedding(mib))

    ids = []
    for table in tables.in_tables(ROWS, rows(), ()):
        ids.append(table["image_id"].to_pylist())
        assert done[-1] == ids[-1][-1]  # nothing is worked ahead
    assert ids == [["a", "b", "c"], ["d"], ["e"]]


def test_heavy_cells_are_not_copied():
    cell = tables.as_arrays(embedding(2))
    (table,) = tables.in_tables(ROWS.slice(0, 2), [cell, cell], ())
    before = cell["_embedding"].buffers()[2].address
    assert [c.buffers()[2].address for c in table["_embedding"].chunks] == [before, before]


def test_unchanged_cells_and_the_order_of_columns_stay():
    error = {"stage": "propose", "type": "ValueError", "message": "no"}
    rows = [{}, {"status": "error", "error": error}, {}, {"error": None}, {}]
    (table,) = tables.in_tables(ROWS, map(tables.as_arrays, rows), ())
    assert table.column_names == ["image_id", "status", "error"]
    assert table["status"].to_pylist() == ["ok", "error", "error", "ok", "ok"]
    assert table["error"].to_pylist() == [None, error, None, None, None]


def test_rows_of_a_table_in_chunks_keep_their_cells():
    chunked = pa.concat_tables([ROWS.slice(0, 2), ROWS.slice(2)])
    rows = [{}, {}, {"status": "ok"}, {}, {"status": "empty"}]
    (table,) = tables.in_tables(chunked, map(tables.as_arrays, rows), ())
    assert table["status"].to_pylist() == ["ok", "ok", "ok", "ok", "empty"]


@pytest.mark.parametrize("names", [("n_candidates",), columns.DECODED])
def test_no_row_still_shows_its_columns(names):
    (table,) = tables.in_tables(ROWS.slice(0, 0), [], names)
    assert table.num_rows == 0
    assert set(table.column_names) == {"image_id", "status", *names}
    assert all(table.schema.field(name).type == columns.TYPES[name] for name in names)
