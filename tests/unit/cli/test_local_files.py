"""A folder in place of a file, and a file in place of a folder, are one clear line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from tests.unit.output.outputs import write_output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("weights fetch --preset bundled FILE", "folder FILE is a file or in one: give a folder"),
        ("weights fetch --preset bundled FILE/sub", "folder FILE/sub is a file or in one: give a"),
        ("demo --output FILE", "--output FILE is a file or in one: give a folder"),
        ("demo --output FILE/sub", "--output FILE/sub is a file or in one: give a folder"),
        (
            "plan in --config lungs --images 9 --output DIR",
            "--output DIR is a folder: give the name of a file",
        ),
        (
            "plan in --config lungs --images 9 --profile DIR",
            "--profile DIR is a folder: give the name of a file",
        ),
        (
            "plan in --config lungs --images 9 --profile DIR --output FILE",
            "--profile DIR is a folder: give the name of",
        ),
        ("report out --html DIR", "--html DIR cannot be written: Is a directory"),
        ("errors out --csv FILE/x.csv", "--csv FILE/x.csv cannot be written: File exists"),
        ("errors out --csv DIR", "--csv DIR cannot be written: Is a directory"),
        ("export png out FILE", "FILE is a file or in one, not a folder"),
        ("status FILE", "FILE is a file or in one, not a folder"),
    ],
)
def test_wrong_kind_of_path_is_one_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_output(tmp_path / "out")
    (tmp_path / "FILE").write_text("of the user")
    (tmp_path / "DIR").mkdir()
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit), done.exception
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert (tmp_path / "FILE").read_text() == "of the user"
