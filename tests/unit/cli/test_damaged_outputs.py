"""Commands that read an output answer damaged files in one line, or do without them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.errors import OutputError
from salip_ray.output.summary import read_statistics, stored_summary
from tests.unit.output.outputs import write_output

COMMANDS = (["status"], ["errors"], ["verify"], ["report"], ["export", "png"])
FILES = (
    *("run.json", "manifest.parquet", "summary.json", "seal.json"),
    *("stats/part-00000.json", "shards/part-00000.parquet", "masks/part-00000.tar"),
)


@pytest.mark.parametrize("content", [b"", b"\x00\xffgarbage", b"[1]"])
@pytest.mark.parametrize("name", FILES)
def test_no_command_ends_in_a_traceback(tmp_path, name, content):
    output = write_output(tmp_path / "out")
    output.write(name, content)
    for command in COMMANDS:
        arguments = [*command, str(output.location)]
        if command[0] == "export":
            arguments.append(str(tmp_path / "export"))
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, SystemExit | None), (command, done.exception)
        if done.exit_code:
            assert len(done.stderr.strip().splitlines()) <= 1, (command, done.stderr)


def test_a_report_on_damaged_statistics_names_the_file(tmp_path):
    output = write_output(tmp_path / "out")
    output.write("stats/part-00000.json", b"{}")
    done = CliRunner().invoke(app, ["report", str(output.location)])
    assert done.exit_code == 2
    assert "stats/part-00000.json is damaged: restore it" in done.stderr


#: Of any type but the right one.
WRONG = ("x", True, [1], {"z": {}}, float("nan"))


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("field", ["wall_seconds", "images_per_second", "images_in_run", "skipped"])
def test_report_on_a_summary_with_a_wrong_type_says_so(tmp_path, field, value):
    output = write_output(tmp_path / "out")
    stored = json.loads(output.read("summary.json"))
    output.write("summary.json", json.dumps({**stored, field: value}).encode())
    assert stored_summary(output) is None
    done = CliRunner().invoke(app, ["report", str(output.location)])
    assert done.exit_code == 0, done.output
    assert "summary.json is damaged" in output.read("report.html").decode()


@pytest.mark.parametrize("value", [*WRONG, None], ids=repr)
@pytest.mark.parametrize("field", ["rows", "status", "outcomes", "errors", "seconds"])
def test_statistics_with_a_wrong_type_are_damaged(field, value):
    if (field, value) == ("outcomes", {"z": {}}):
        return  # a class without an image
    right = {
        "rows": 1,
        "files": {},
        **{key: {} for key in ("status", "outcomes", "errors", "seconds")},
    }
    assert read_statistics("here", json.dumps(right).encode()) == right
    with pytest.raises(OutputError, match="here is damaged"):
        read_statistics("here", json.dumps({**right, field: value}).encode())


def test_statistics_with_wrong_counts_of_a_class_are_damaged():
    right = {"rows": 1, "files": {}, **{key: {} for key in ("status", "errors", "seconds")}}
    for counts in (1, {"labelled": "x"}):
        with pytest.raises(OutputError, match="is damaged"):
            read_statistics("here", json.dumps({**right, "outcomes": {"lungs": counts}}).encode())
