"""The blocks of docs/lakes.md run, with the real libraries if they are installed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from salip_ray.output.layout import SUMMARY
from salip_ray.output.summary import Summary
from tests.conftest import ROOT
from tests.unit.datasets.conftest import write_output

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "lakes.md").read_text(), re.DOTALL)
ID = "image_id"


def run(*words: str, **names: object) -> dict:
    """Run the blocks of the page that contain each of the words; return their names."""
    for word in words:
        (block,) = [block for block in BLOCKS if word in block]
        exec(compile(block, "docs/lakes.md", "exec"), names)
    return names


def rows(table) -> list[dict]:
    return table.sort_by(ID).to_pylist()


def with_lists(value):
    """Return a value with empty lists for null ones, as Iceberg reads them."""
    if isinstance(value, dict):
        return {name: with_lists(inner) for name, inner in value.items()}
    return [with_lists(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """An output in the current folder; returns the table of its rows."""
    monkeypatch.chdir(tmp_path)
    write_output(Path())
    return ds.dataset("labels/shards").to_table()


def test_lance_has_the_rows_of_the_shards(shards):
    lance = pytest.importorskip("lance")
    run("pyarrow.dataset", "import lance")
    assert rows(lance.dataset("labels.lance").to_table()) == rows(shards)


def test_delta_has_the_rows_of_the_shards(shards):
    deltalake = pytest.importorskip("deltalake")
    run("pyarrow.dataset", "import deltalake")
    stored = deltalake.DeltaTable("labels.delta").to_pyarrow_table()
    assert rows(stored) == rows(shards)


def test_iceberg_has_the_rows_of_the_shards(shards):
    pytest.importorskip("pyiceberg")
    pytest.importorskip("sqlalchemy")
    catalog = run("pyarrow.dataset", "load_catalog")["catalog"]
    stored = rows(catalog.load_table("xrays.labels").scan().to_arrow())
    lists = [f.name for f in shards.schema if str(f.type).startswith("list")]
    expected = [{k: v or [] if k in lists else v for k, v in row.items()} for row in rows(shards)]
    assert [with_lists(row) for row in stored] == expected


@pytest.mark.filterwarnings("ignore")  # its own
def test_mlflow_has_counts_scores_and_recipe(shards):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    summary = Summary("labels", images=8, shards=2, status={"ok": 6, "error": 2})
    Path("labels", SUMMARY).write_text(json.dumps(summary.to_json()))
    Path("labels/evaluation.json").write_text("{}")
    run("import mlflow")
    (logged,) = mlflow.search_runs(experiment_names=["labels"], output_format="list")
    assert logged.info.run_name == "thorax"
    assert logged.data.metrics["images_ok"] == 6
    artifacts = {file.path for file in mlflow.MlflowClient().list_artifacts(logged.info.run_id)}
    assert artifacts == {"recipe.json", "evaluation.json"}
