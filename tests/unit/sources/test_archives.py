"""Images inside zip and tar archives."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from salip_ray.errors import InputError
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import normalise, public_uri

MEMBERS = {"a.png": b"first", "deep/b.png": b"second", "deep/notes.txt": b"no image"}


def make(path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in MEMBERS.items():
                archive.writestr(name, data)
        return path
    kinds = {".gz": "gz", ".tgz": "gz", ".xz": "xz", ".txz": "xz", ".bz2": "bz2", ".tbz2": "bz2"}
    with tarfile.open(path, f"w:{kinds.get(path.suffix, '')}") as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "images.zip",
        "images.tar",
        "images.tar.gz",
        "images.tgz",
        "v1.2.tar.xz",
        "x.txz",
        "x.tar.bz2",
        "x.tbz2",
        "X.TGZ",
    ],
)
def test_the_members_are_the_images(tmp_path, name):
    archive = make(tmp_path / name)
    scheme = "zip" if name.endswith(".zip") else "tar"
    listing = list_images(archive)
    uris = sorted(listing.table["uri"].to_pylist())
    assert uris == [f"{scheme}://a.png::{archive}", f"{scheme}://deep/b.png::{archive}"]
    assert sorted(listing.table["size"].to_pylist()) == [5, 6]
    assert listing.skipped.other == 1
    assert fetch_all(uris) == [b"first", b"second"]


def test_a_part_of_an_archive(tmp_path):
    archive = make(tmp_path / "x.zip")
    for pattern in ("zip://deep::", "zip://deep/*.png::"):
        results = list_images(f"{pattern}{archive}").table["uri"].to_pylist()
        assert results == [f"zip://deep/b.png::{archive}"]


def test_members_of_several_archives_and_a_missing_one(tmp_path):
    first, second = make(tmp_path / "x.zip"), make(tmp_path / "y.tar")
    results = fetch_all(
        [f"zip://a.png::{first}", f"tar://deep/b.png::{second}", f"zip://gone.png::{first}"]
    )
    assert results[:2] == [b"first", b"second"]
    assert "does not exist" in str(results[2])


def test_invalid_archive_is_named(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"x\.zip"):
        list_images(tmp_path / "x.zip")


def test_a_member_has_one_spelling_without_credentials():
    signed = "ZIP://a.png::https://h/x.zip?X-Amz-Signature=s&v=1"
    assert public_uri(signed) == "zip://a.png::https://h/x.zip?v=1"
    assert normalise("zip://a.png::/x/../y.zip") == "zip://a.png::/y.zip"


def test_the_bytes_tell_how_a_tar_is_compressed(tmp_path):
    archive = make(tmp_path / "x.tar.gz").rename(tmp_path / "x.tar")
    assert fetch_all([f"tar://a.png::{archive}"]) == [b"first"]


def test_members_with_a_dot_in_front_are_not_hidden(tmp_path):
    for name in MEMBERS:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(MEMBERS[name])
    (tmp_path / "in" / ".hidden.png").write_bytes(b"1")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    listing = list_images(tmp_path / "x.tar")
    uris = sorted(listing.table["uri"].to_pylist())
    assert uris == [f"tar://./{name}::{tmp_path}/x.tar" for name in ("a.png", "deep/b.png")]
    assert (listing.skipped.hidden, listing.skipped.other) == (1, 1)
    assert fetch_all(uris) == [b"first", b"second"]


def test_links_in_a_tar_are_their_targets_and_never_leave_it(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("d/a.png")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"first"))
        for name, target, kind in (
            ("d/soft.png", "a.png", tarfile.SYMTYPE),
            ("hard.png", "d/a.png", tarfile.LNKTYPE),
            ("up.png", "../secret.png", tarfile.SYMTYPE),
            ("out.png", f"{tmp_path}/secret.png", tarfile.SYMTYPE),
            ("circle.png", "circle.png", tarfile.SYMTYPE),
            ("fifo.png", "", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    uris = sorted(list_images(tmp_path / "x.tar").table["uri"].to_pylist())
    assert uris == [f"tar://{n}::{tmp_path}/x.tar" for n in ("d/a.png", "d/soft.png", "hard.png")]
    assert fetch_all(uris) == [b"first"] * 3


def test_an_archive_that_was_replaced_is_read_anew(tmp_path):
    archive = make(tmp_path / "x.zip")
    assert fetch_all([f"zip://a.png::{archive}"]) == [b"first"]
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as other:
        other.writestr("a.png", b"changed")
    (tmp_path / "y.zip").replace(archive)
    assert fetch_all([f"zip://a.png::{archive}"]) == [b"changed"]


def test_an_archive_in_an_archive(tmp_path):
    make(tmp_path / "in.zip")
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        archive.add(tmp_path / "in.zip", "in.zip")
    location = f"zip://::tar://in.zip::{tmp_path}/x.tgz"
    uris = sorted(list_images(location).table["uri"].to_pylist())
    assert uris[0] == f"zip://a.png::tar://in.zip::{tmp_path}/x.tgz"
    assert fetch_all(uris) == [b"first", b"second"]


def test_archives_below_a_folder_are_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    make(tmp_path / "x.tgz")
    (tmp_path / "y.7z").write_bytes(b"1")
    listing = list_images(tmp_path)
    assert listing.skipped.counts() == {"archives": 2}
    with pytest.raises(InputError, match=r"y\.7z is of a kind that is not read: unpack it"):
        list_images(tmp_path / "y.7z")


@pytest.mark.parametrize("name", ["x.zip", "x.tgz"])
def test_a_damaged_archive_is_one_clear_line(tmp_path, name):
    whole = make(tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as caught:
        list_images(tmp_path / name)
    assert "is not a" in str(caught.value)
    assert "\n" not in str(caught.value)
