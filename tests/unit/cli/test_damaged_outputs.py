"""Commands that read an output answer damaged files in one line, or do without them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
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
