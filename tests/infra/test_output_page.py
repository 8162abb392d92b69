"""docs/output.md names every file and column of an output, with its type and what it means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pyarrow as pa
import pytest

from salip_ray.output import layout
from salip_ray.schema import LABEL_SCHEMA, MANIFEST_SCHEMA
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "output.md").read_text()


def columns(field: pa.Field, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and type of a column and of the fields in it."""
    name, kind = f"{prefix}{field.name}", field.type
    inner = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_struct(inner):
        yield name, "list of structs" if inner is not kind else "struct"
        for child in inner:
            yield from columns(child, f"{name}.")
    else:
        text = type_text(inner)
        text = text if inner is kind else f"list of {text}"
        yield name, text if field.nullable else f"{text}, never null"


def type_text(kind: pa.DataType) -> str:
    """Return the name of a type as the page has it."""
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} x {kind.value_type}"
    return str(kind)


@pytest.mark.parametrize(
    ("title", "schema"),
    [("shards/part-*.parquet", LABEL_SCHEMA), ("manifest.parquet", MANIFEST_SCHEMA)],
)
def test_every_column_has_its_type_and_a_meaning(title, schema):
    part = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \| (.+) \|$", part, re.MULTILINE)
    assert [row[:2] for row in rows] == [c for field in schema for c in columns(field)]


def test_every_file_is_named():
    text = inspect.cleandoc(layout.__doc__ or "").partition("::\n\n")[2].replace("``", "`")
    for line in text.splitlines():
        assert line.strip() in PAGE
