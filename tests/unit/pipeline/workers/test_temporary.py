"""The notes in the shared temporary folder: nobody else's are read, no live ones are removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from salip_ray.errors import ResourceError
from salip_ray.pipeline.workers.temporary import (
    open_note,
    private_folder,
    remove_folder,
    remove_stale_folders,
)


@pytest.fixture(autouse=True)
def shared(tmp_path, monkeypatch):
    """The shared temporary folder of a machine."""
    folder = tmp_path / "tmp"
    folder.mkdir(mode=0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def name_of_folder():
    return f"salip-ray-{os.getuid()}"


def test_the_folder_is_private_whatever_the_umask(shared):
    before = os.umask(0)
    try:
        folder = private_folder()
    finally:
        os.umask(before)
    assert folder == shared / name_of_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # as earlier versions made it
    assert private_folder().stat().st_mode & 0o777 == 0o700


def test_planted_link_is_refused_and_its_target_stays(shared, tmp_path):
    (tmp_path / "precious" / "old").mkdir(parents=True)
    os.utime(tmp_path / "precious" / "old", (1, 1))
    (shared / name_of_folder()).symlink_to(tmp_path / "precious")
    with pytest.raises(ResourceError, match="is not private to this user, and may have been"):
        private_folder()
    assert (tmp_path / "precious" / "old").exists()


def test_a_folder_that_others_may_write_to_or_a_file_is_refused(shared):
    (shared / name_of_folder()).mkdir()
    (shared / name_of_folder()).chmod(0o777)
    with pytest.raises(ResourceError):
        private_folder()
    (shared / name_of_folder()).rmdir()
    (shared / name_of_folder()).write_text("")
    with pytest.raises(ResourceError):
        private_folder()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_owner_is_refused(shared):
    (shared / name_of_folder()).mkdir(mode=0o700)
    os.chown(shared / name_of_folder(), 12345, 12345)
    with pytest.raises(ResourceError):
        private_folder()


def test_planted_notes_are_not_opened(shared, tmp_path):
    (tmp_path / "secret").write_text("x")
    (shared / "1-link").symlink_to(tmp_path / "secret")
    os.mkfifo(shared / "2-fifo")
    assert open_note(shared / "1-link") is None
    assert open_note(shared / "2-fifo") is None


HOLDING = """
import fcntl, sys, time
note = open(sys.argv[1], "w")
fcntl.flock(note, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_old_notes_are_removed_unless_a_live_worker_holds_them():
    parent = private_folder()
    for run in ("live", "dead", "own", "new"):
        (parent / run).mkdir()
        (parent / run / "1-1").write_text("image")
        if run != "new":
            os.utime(parent / run, (1, 1))
    command = [sys.executable, "-c", HOLDING, str(parent / "live" / "1-1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"held\n"
        os.utime(parent / "live", (1, 1))
        remove_stale_folders(parent, parent / "own")
        assert sorted(path.name for path in parent.iterdir()) == ["live", "new", "own"]
        remove_folder(parent / "live")
        assert (parent / "live").exists()
    remove_folder(parent / "live")
    assert not (parent / "live").exists()


def test_a_link_among_the_notes_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (private_folder() / "old").symlink_to(tmp_path / "precious")
    os.utime(private_folder() / "old", (1, 1), follow_symlinks=False)
    remove_stale_folders(private_folder(), private_folder() / "own")
    assert (tmp_path / "precious").exists()
