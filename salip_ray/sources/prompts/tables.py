"""Read boxes and points from tables: CSV and Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from salip_ray.errors import InputError
from salip_ray.sources.prompts.files import GivenBox, Read, as_text, last_pixel, slice_index
from salip_ray.sources.prompts.points import PromptRow, read_points

_CORNERS, _SIDES = ("x0", "y0", "x1", "y1"), ("x", "y", "width", "height")
_POINT = ("x", "y")
_OPTIONAL = ("label", "slice", "object", "positive")
_TEXTS = {"image", "label", "object", "positive"}
_MISSING = {"", "nan", "na", "<na>"}  # as pandas and R write a cell without a value


def read_table(data: bytes, kind: str, shown: str) -> Read:
    """Yield the boxes or points of a CSV or Parquet file.

    Its columns are ``image``; ``x0, y0, x1, y1`` (inclusive), ``x, y, width, height`` or, for
    points, ``x, y``; ``label`` and ``slice`` if needed. Points may have ``object``, which groups
    them, and ``positive``, 0 for points that are not on the object. Commas, semicolons or tabs
    separate the columns. A row whose numbers are empty is an image without a prompt.

    Raises:
        InputError: a column is missing or doubled, or a row has no image or half a prompt.
    """
    try:
        table = pq.read_table(io.BytesIO(data)) if kind == ".parquet" else _read_csv(data, shown)
    except pa.ArrowException as error:
        raise InputError(f"{shown} cannot be read: {error}") from None
    names = [name.strip().casefold() for name in table.column_names]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{shown} have the column {min(doubled)!r} twice: leave one out")
    table = table.rename_columns(names)
    columns = next((c for c in (_CORNERS, _SIDES, _POINT) if set(c) <= set(names)), None)
    # Half of a box is not a point.
    half = columns == _POINT and {"width", "height"} & set(names)
    if "image" not in names or columns is None or half:
        raise InputError(
            f"{shown} need the columns image, and x0, y0, x1, y1 or x, y, width, height, "
            f"or x, y of points; their columns are {', '.join(names)}"
        )
    rows = _rows(table, columns, shown)
    if columns == _POINT:
        yield from read_points(rows)
        return
    for row in rows:
        a, b, c, d = row.numbers
        if columns == _SIDES:
            c, d = last_pixel(a, a + c), last_pixel(b, b + d)
        yield row.image, row.slice, GivenBox(row.label, (a, b, c, d))


def _rows(table: pa.Table, columns: Sequence[str], shown: str) -> Iterator[PromptRow]:
    """Yield the rows with numbers."""
    kind = "point" if columns == _POINT else "box"
    wanted = [n for n in ("image", *columns, *_OPTIONAL) if n in table.column_names]
    number = 0
    for batch in table.select(wanted).to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            number += 1
            at = f"row {number} of {shown}"
            values = [None if row[name] == "" else row[name] for name in columns]
            if not (image := _cell(row["image"])):
                raise InputError(f"{at} has no image: fill it in")
            if all(value is None or value != value for value in values):
                continue
            try:
                numbers = tuple(float(str(value)) for value in values)
            except (TypeError, ValueError):
                raise InputError(f"{at} has no {kind}: {values}") from None
            yield PromptRow(
                at,
                image,
                slice_index(row.get("slice"), at),
                _cell(row.get("label")) or None,
                numbers,
                _object(row.get("object")),
                _is_positive(row.get("positive"), at),
            )


def _object(value: object) -> str:
    """Return what groups the points of an object; "" if the cell has no value."""
    text = _cell(value)
    return "" if text.casefold() in _MISSING else text


def _is_positive(value: object, at: str) -> bool:
    text = _cell(value).casefold()
    if text in _MISSING | {"1", "1.0", "true"}:
        return True
    if text in {"0", "0.0", "false"}:
        return False
    raise InputError(f"{at} has the value {value!r} in the column positive: give 1 or 0")


def _cell(value: object) -> str:
    """Return a cell of names as text, which a Parquet file may have as numbers or bytes."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value).strip()


def is_mask_index(data: bytes, shown: str) -> bool:
    """Return True if a CSV file lists masks of images, as for references."""
    text = as_text(data, shown)
    names = {name.strip() for name in text.partition("\n")[0].split(",")}
    return {"image", "mask"} <= names and not {"x0", "x"} & names


def _read_csv(data: bytes, shown: str) -> pa.Table:
    text = as_text(data, shown)
    head = next(iter(text.splitlines()), "")
    delimiter = next((sign for sign in ",;\t" if sign in head), ",")
    names = [name for name in head.split(delimiter) if name.strip(' "').casefold() in _TEXTS]
    return pa.csv.read_csv(
        io.BytesIO(text.encode()),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(
            column_types={name.strip('"'): pa.string() for name in names},
            decimal_point="," if delimiter == ";" else ".",
        ),
    )
