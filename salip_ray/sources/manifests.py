"""Read a manifest that names the images: CSV or Parquet with a column ``uri``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from salip_ray.errors import InputError
from salip_ray.sources.local_files import open_regular
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri
from salip_ray.sources.stores import describe_error

MANIFEST_SUFFIXES = frozenset({".csv", ".parquet"})
_COLUMN = "uri"


def read_addresses(
    location: str, storage_options: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yield the normalised addresses that a manifest names, in its order.

    Raises:
        InputError: the file is missing or malformed, has no column ``uri``, or a row leaves it
            empty.
    """
    shown = public_uri(location)
    column = _read_column(location, shown, storage_options)
    folder = normalise(location).rpartition("/")[0]
    row = 0
    for chunk in column.chunks:
        for text in chunk.to_pylist():
            row += 1
            if text is None or not text.strip():
                raise InputError(f"row {row} of the manifest {shown} has no {_COLUMN}: fill it in")
            if "\0" in text:
                raise InputError(f"row {row} of the manifest {shown} has a NUL in its {_COLUMN}")
            yield _address(text, folder)


def _read_column(
    location: str, shown: str, storage_options: Mapping[str, Any] | None
) -> pa.ChunkedArray:
    fs, path = filesystem(location, storage_options)
    try:
        with open_regular(path) if not is_remote(location) else fs.open(path, "rb") as file:
            if location.lower().endswith(".parquet"):
                parquet = pq.ParquetFile(file)
                _require(parquet.schema_arrow.names, shown)
                return parquet.read(columns=[_COLUMN]).column(_COLUMN).cast(pa.string())
            table = pa.csv.read_csv(
                file,
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(column_types={_COLUMN: pa.string()}),
            )
            _require(table.column_names, shown)
            return table.column(_COLUMN)
    except FileNotFoundError:
        raise InputError(f"manifest {shown} does not exist: check the path") from None
    except pa.ArrowException as error:
        # It quotes the line it fell over, signature and all.
        raise InputError(f"manifest {shown} cannot be read: {describe_error(error)}") from None


def _require(names: list[str], shown: str) -> None:
    if _COLUMN not in names:
        raise InputError(
            f"manifest {shown} has no column {_COLUMN!r}; its columns are {', '.join(names)}"
        )


def _address(text: str, folder: str) -> str:
    """Return the address of an entry; spaces around it count only if a local file is so called."""
    address = _resolve(text.strip(), folder)
    if text != text.strip() and not is_remote(address):
        exact = _resolve(text, folder)
        return exact if os.path.lexists(exact) else address
    return address


def _resolve(text: str, folder: str) -> str:
    """Return a URI; a relative one, without a scheme and a leading slash, is below the folder."""
    if is_remote(text) or text.startswith(("/", "~/", "file://")):
        return normalise(text)
    return normalise(join(folder, text))
