"""URIs, what is hashed and written of them, and filesystems."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from salip_ray.errors import InputError, MissingDependencyError
from salip_ray.sources.locations import (
    address_of,
    filesystem,
    image_id,
    join,
    normalise,
    public_uri,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/data/a.png", "/data/a.png"),
        ("/data/x/../a.png", "/data/a.png"),
        ("file:///data/a.png", "/data/a.png"),
        ("s3://bucket/key//a.png", "s3://bucket/key//a.png"),
        ("S3A://bucket/a.png", "s3://bucket/a.png"),
        ("GS://bucket/a.png", "gs://bucket/a.png"),
    ],
)
def test_location_has_one_spelling(given, expected):
    assert normalise(given) == expected


def test_a_relative_path_is_below_the_working_folder():
    assert normalise("a.png") == str(Path.cwd() / "a.png")


@pytest.mark.parametrize(
    ("signed", "public"),
    [
        (
            "https://b.s3.amazonaws.com/a.png?X-Amz-Signature=s&X-Amz-Credential=c&versionId=7",
            "https://b.s3.amazonaws.com/a.png?versionId=7",
        ),
        ("https://h/a.png?AWSAccessKeyId=A&Signature=b%3D&Expires=1", "https://h/a.png"),
        ("https://h/a.png?sv=1&se=2&sp=r&sig=abc&id=3", "https://h/a.png?id=3"),
        ("https://h/a.png?X-Goog-Signature=1&X-Goog-Date=2", "https://h/a.png"),
        ("https://user:secret@h/a.png", "https://h/a.png"),
        ("https://token@h/a.png", "https://h/a.png"),
        ("sftp://user:secret@h/a.png", "sftp://user@h/a.png"),
        ("abfs://container@account.dfs/a.png", "abfs://container@account.dfs/a.png"),
        ("s3://bucket/what?sig=is.png", "s3://bucket/what?sig=is.png"),
    ],
)
def test_a_public_uri_gives_no_access(signed, public):
    assert public_uri(signed) == public


def test_an_image_is_named_by_its_uri_alone():
    assert image_id("/a.png") == hashlib.sha256(b"/a.png").hexdigest()[:32]
    signed = [f"https://h/a.png?Signature={n}" for n in range(2)]
    assert len({image_id(public_uri(uri)) for uri in signed}) == 1


@pytest.mark.parametrize(
    ("location", "path", "name", "address"),
    [
        ("s3://bucket/in/", "bucket/in", "bucket/in/a.png", "s3://bucket/in/a.png"),
        ("s3://bucket", "bucket", "bucket/a.png", "s3://bucket/a.png"),
        ("s3://b/*.png", "b/*.png", "b/a.png", "s3://b/a.png"),
        ("memory://in", "/in", "/in/a.png", "memory://in/a.png"),
        ("sftp://me@host/in/", "/in", "/in/a.png", "sftp://me@host/in/a.png"),
        ("sftp://host", "", "/in/a.png", "sftp://host/in/a.png"),
        ("abfs://c@account/in", "c/in", "c/in/a.png", "abfs://c@account/in/a.png"),
        ("abfs://c@account", "c", "c/a.png", "abfs://c@account/a.png"),
        ("http://h/in/", "http://h/in/", "http://h/in/a.png", "http://h/in/a.png"),
        ("odd://x/in", "/elsewhere", "/in/a.png", "odd:///in/a.png"),
    ],
)
def test_address_restores_what_client_omits_from_name(location, path, name, address):
    assert address_of(name, location, path) == address


def test_join_stays_in_its_scheme():
    assert join("s3://bucket/a/", "b", "c.png") == "s3://bucket/a/b/c.png"
    assert join("/", "a") == "/a"


def test_an_unknown_scheme_is_named():
    with pytest.raises(InputError, match="nowhere"):
        filesystem("nowhere://bucket/a.png")


def test_missing_filesystem_package_message_has_install_command(monkeypatch):
    def missing(*_, **__):
        raise ImportError("gcsfs")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'salip-ray\[gcs\]'"):
        filesystem("gs://bucket/a.png")
