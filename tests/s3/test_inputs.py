"""Inputs on a real S3 server: names of keys, and objects that change after they were listed."""

from __future__ import annotations

import uuid

import pytest

from salip_ray.sources.fetch import ListedVersion, fetch_all
from salip_ray.sources.headers import holds_dicom
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import filesystem

NAMES = ("scan?1.png", "a[1].png", "b*.png", "50%.png", "c%20d.png", "#7.png", "two words.png")
NAMES += ("e::f.png", "caf\u00e9.png", "cafe\u0301.png", "a&b=c;d+e.png", "q'\".png", "~t.png")


@pytest.fixture
def bucket(s3):
    """A function that puts an object into a new bucket, and the bucket's name."""
    name = f"b{uuid.uuid4().hex[:12]}"
    fs, _ = filesystem(f"s3://{name}", s3.options)
    fs.call_s3("create_bucket", Bucket=name)

    def put(key, body):
        fs.call_s3("put_object", Bucket=name, Key=key, Body=body)

    return put, name


def contents(location, options):
    rows = list_images(location, options).table.to_pylist()
    versions = [ListedVersion(row["size"], row["etag"]) for row in rows]
    uris = [row["uri"] for row in rows]
    return dict(zip(uris, fetch_all(uris, options, versions=versions), strict=True))


def test_every_key_is_listed_and_fetched(s3, bucket):
    put, name = bucket
    for key in NAMES:
        put(f"study[1]/{key}", key.encode())
    expected = {f"s3://{name}/study[1]/{key}": key.encode() for key in NAMES}
    for location in (f"s3://{name}", f"s3://{name}/study[1]/", f"s3://{name}/study[1]/*"):
        assert contents(location, s3.options) == expected
    for uri, data in expected.items():
        assert contents(uri, s3.options) == {uri: data}


def test_an_object_replaced_by_one_of_its_size_is_an_error(s3, bucket):
    put, name = bucket
    put("a.png", b"first")
    (row,) = list_images(f"s3://{name}", s3.options).table.to_pylist()
    versions = [ListedVersion(row["size"], row["etag"])]
    assert fetch_all([row["uri"]], s3.options, versions=versions) == [b"first"]
    put("a.png", b"other")
    (result,) = fetch_all([row["uri"]], s3.options, versions=versions)
    assert str(result).startswith(f"s3://{name}/a.png was changed after it was listed")


def test_the_limit_holds_and_empty_objects_are_read(s3, bucket):
    put, name = bucket
    put("a.png", bytes(2000))
    put("empty.png", b"")
    put("IM1", bytes(128) + b"DICM" + bytes(100))
    uris = [f"s3://{name}/{key}" for key in ("a.png", "empty.png")]
    large, empty = fetch_all(uris, s3.options, max_bytes=1000)
    assert "has 2,000 bytes, above image.max_bytes = 1,000" in str(large)
    assert empty == b""
    assert holds_dicom(f"s3://{name}/IM1", s3.options)
    assert not holds_dicom(f"s3://{name}/empty.png", s3.options)
