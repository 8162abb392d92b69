"""Rows that get done one by one, handed on as tables of a few.

A table costs about a millisecond to put together, to send and to cut again, however little is in
it. So light rows travel by the hundred, and heavy ones still go on as they get done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from salip_ray.pipeline.columns import TYPES, Arrays

_ENOUGH_BYTES = 32 * 1024**2  # of new cells; Ray Data cuts its blocks there, not before
_HEAVY_BYTES = 1024**2  # of a column's cells: not worth a copy, they stay where they are


def in_tables(kept: pa.Table, rows: Iterable[Arrays], adds: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of ``kept`` with their new cells, some MiB at a time.

    Args:
        kept: the rows as they were, without what is dropped.
        rows: for each of them in turn, arrays of one cell that are added or replace a column.
        adds: the columns that rows get; an empty ``kept`` is yielded with these, to show them.
    """
    start, bytes_, done = 0, 0, list[Arrays]()
    for row in rows:
        done.append(row)
        bytes_ += sum(cell.nbytes for cell in row.values())
        if bytes_ >= _ENOUGH_BYTES:
            yield _table(kept.slice(start, len(done)), done)
            start, bytes_, done = start + len(done), 0, []
    if done:
        yield _table(kept.slice(start, len(done)), done)
    if kept.num_rows == 0:
        yield empty_columns(kept, adds)


def _table(kept: pa.Table, rows: Sequence[Arrays]) -> pa.Table:
    made = dict(zip(kept.column_names, kept.columns, strict=True))
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
    """Append columns of nothing, where no row has passed to show what they look like."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, TYPES[name]))
    return table
