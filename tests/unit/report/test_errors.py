"""Error rows are grouped by reason, and written as CSV."""

from __future__ import annotations

import csv

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.report.errors import RowError, group_errors


def error_row(name, message, kind="ImageError", stage="decode"):
    return {
        "image_id": f"id-{name}",
        "uri": f"/in/{name}",
        "status": "error",
        "error": {"stage": stage, "type": kind, "message": message},
    }


@pytest.fixture
def output(write_output):
    rows = [
        error_row("a.png", "/in/a.png is cut short after 100 of 2,000 bytes"),
        {"image_id": "ok", "uri": "/in/ok.png", "height": 4, "width": 4, "status": "empty"},
        error_row("b.png", "/in/b.png is cut short after 7 of 30 bytes"),
        error_row("c.png", "CUDA out of memory", "OutOfMemoryError", "propose"),
    ]
    return write_output(rows[:2], rows[2:])


def run(*arguments):
    return CliRunner().invoke(app, ["errors", *map(str, arguments)])


def test_messages_that_differ_in_paths_and_numbers_are_one_reason(output):
    done = run(output)
    assert done.exit_code == 0
    assert "3 error rows for 2 reasons:" in done.output
    first, second = done.output.split("\n\n")[1:]
    assert first.startswith("2 images: decode: ImageError")
    assert "/in/a.png is cut short after 100 of 2,000 bytes" in first
    assert "- /in/b.png" in first
    assert second.startswith("1 image: propose: OutOfMemoryError")


def test_csv_has_a_line_per_error(output, tmp_path):
    done = run(output, "--csv", tmp_path / "new" / "errors.csv")
    assert "3 error rows in" in done.output
    with (tmp_path / "new" / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["uri"] for row in rows] == ["/in/a.png", "/in/b.png", "/in/c.png"]
    assert rows[2]["type"] == "OutOfMemoryError"


def test_csv_that_cannot_be_written_is_one_line(output, tmp_path):
    (tmp_path / "file").write_text("x")
    done = run(output, "--csv", tmp_path / "file" / "errors.csv")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_an_output_without_errors_has_none(write_output):
    empty = {"image_id": "ok", "uri": "/in/ok.png", "height": 4, "width": 4, "status": "empty"}
    assert run(write_output([empty])).output == "no error rows\n"


def test_only_a_few_examples_are_shown():
    errors = [RowError(f"{n}", f"/in/{n}", None, "decode", "X", f"{n} is bad") for n in range(9)]
    (group,) = group_errors(errors)
    assert (group.count, group.uris) == (9, ["/in/0", "/in/1", "/in/2"])
