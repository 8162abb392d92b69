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
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["images.zip", "images.tar", "images.tar.gz"])
def test_the_members_are_the_images(tmp_path, name):
    archive = make(tmp_path / name)
    scheme = "zip" if name.endswith("zip") else "tar"
    listing = list_images(archive)
    uris = sorted(listing.table["uri"].to_pylist())
    assert uris == [f"{scheme}://a.png::{archive}", f"{scheme}://deep/b.png::{archive}"]
    assert sorted(listing.table["size"].to_pylist()) == [5, 6]
    assert listing.skipped.other == 1
    assert fetch_all(uris) == [b"first", b"second"]


def test_a_part_of_an_archive(tmp_path):
    archive = make(tmp_path / "x.zip")
    for pattern in ("zip://deep::", "zip://deep/*.png::"):
        found = list_images(f"{pattern}{archive}").table["uri"].to_pylist()
        assert found == [f"zip://deep/b.png::{archive}"]


def test_members_of_several_archives_and_a_missing_one(tmp_path):
    first, second = make(tmp_path / "x.zip"), make(tmp_path / "y.tar")
    found = fetch_all(
        [f"zip://a.png::{first}", f"tar://deep/b.png::{second}", f"zip://gone.png::{first}"]
    )
    assert found[:2] == [b"first", b"second"]
    assert "does not exist" in str(found[2])


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"x\.zip"):
        list_images(tmp_path / "x.zip")


def test_a_member_has_one_spelling_without_credentials():
    signed = "ZIP://a.png::https://h/x.zip?X-Amz-Signature=s&v=1"
    assert public_uri(signed) == "zip://a.png::https://h/x.zip?v=1"
    assert normalise("zip://a.png::/x/../y.zip") == "zip://a.png::/y.zip"
