"""Rows travel in Arrow tables: cells of single rows become tables of some MiB.

A table costs about a millisecond to build, send and cut, for any number of rows. So light rows
travel by the hundred, and heavy rows leave as soon as they are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from salip_ray.pipeline.rows.columns import TYPES

Arrays = Mapping[str, pa.Array]  # of one cell each, by column
_TABLE_BYTES = 32 * 1024**2  # of new cells; Ray Data cuts its blocks at this size
_HEAVY_BYTES = 1024**2  # cells of a column are not copied together above this size


def as_arrays(values: Mapping[str, Any]) -> Arrays:
    """Return cells as arrays of one cell; a value may be such an array already."""
    return {
        name: value if isinstance(value, pa.Array) else pa.array([value], TYPES[name])
        for name, value in values.items()
    }


def in_tables(
    unchanged: pa.Table, rows: Iterable[Arrays], adds: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield rows with their new cells, some MiB at a time.

    Args:
        unchanged: the rows before the stage, without the columns that it drops.
        rows: for each row, arrays of one cell that are added or replace a cell.
        adds: the columns that the stage adds; a table without rows gets them, too.
    """
    start, bytes_, done = 0, 0, list[Arrays]()
    for row in rows:
        done.append(row)
        bytes_ += sum(cell.nbytes for cell in row.values())
        if bytes_ >= _TABLE_BYTES:
            yield _table(unchanged.slice(start, len(done)), done)
            start, bytes_, done = start + len(done), 0, []
    if done:
        yield _table(unchanged.slice(start, len(done)), done)
    if unchanged.num_rows == 0:
        yield empty_columns(unchanged, adds)


def _table(unchanged: pa.Table, rows: Sequence[Arrays]) -> pa.Table:
    made = dict(zip(unchanged.column_names, unchanged.columns, strict=True))
    for name in dict.fromkeys(name for row in rows for name in row):
        old = made.get(name, pa.nulls(len(rows), TYPES[name]))
        cells = [row[name] if name in row else _cell(old, i) for i, row in enumerate(rows)]
        heavy = sum(cell.nbytes for cell in cells) >= _HEAVY_BYTES
        made[name] = pa.chunked_array(cells) if heavy else pa.concat_arrays(cells)
    return pa.table(made)


def _cell(column: pa.Array | pa.ChunkedArray, index: int) -> pa.Array:
    cell = column.slice(index, 1)
    return cell.combine_chunks() if isinstance(cell, pa.ChunkedArray) else cell


def empty_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Append the missing columns of ``names``, filled with nulls."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, TYPES[name]))
    return table
