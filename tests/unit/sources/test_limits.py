"""No input is read without bound, waited for without end, or taken for another version."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import tarfile
import threading
import zipfile

import pytest

from salip_ray.config import ImageConfig
from salip_ray.errors import InputError
from salip_ray.sources import fetch, stores
from salip_ray.sources.fetch import ListedVersion, fetch_all
from salip_ray.sources.headers import holds_dicom, read_header
from salip_ray.sources.listing import list_images

LIMIT = 1000


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    for module in (fetch, stores):
        monkeypatch.setattr(module, "pause", lambda *_: None)


def fetch_one(address, *, options=None, max_bytes=LIMIT, **version):
    (result,) = fetch_all(
        [address], options, max_bytes=max_bytes, versions=[ListedVersion(**version)]
    )
    return result


def names(listing, root):
    return sorted(uri.removeprefix(f"{root}/") for uri in listing.table["uri"].to_pylist())


# --------------------------------------------------------------------------------------- local


def test_special_files_are_left_out_and_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "own.png")
    (tmp_path / "pipe.png").symlink_to(tmp_path / "fifo")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "circle.png").symlink_to(tmp_path / "other.png")
    (tmp_path / "other.png").symlink_to(tmp_path / "circle.png")
    for location in (tmp_path, f"{tmp_path}/*.png", f"{tmp_path}/**/*.png"):
        listing = list_images(location)
        assert names(listing, tmp_path) == ["a.png"]
        assert listing.skipped.circular == 2
        assert listing.skipped.special >= 3


@pytest.mark.parametrize(("target", "kind"), [("fifo", "a FIFO"), ("/dev/zero", "a device")])
def test_a_fifo_or_device_in_a_manifest_is_an_error_of_its_image(tmp_path, target, kind):
    os.mkfifo(tmp_path / "fifo")
    for name in ("a.png", "b.dcm", "c.nii", "IM1"):
        (tmp_path / name).symlink_to(tmp_path / target)
        address = str(tmp_path / name)
        assert str(fetch_one(address)) == f"{address} is {kind}, not a regular file"
        assert read_header(address, ImageConfig()).count is None
        assert not holds_dicom(address)


def test_a_fifo_as_a_manifest_or_an_archive_is_refused(tmp_path):
    for name in ("m.csv", "m.parquet", "x.zip", "x.tar"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="is a FIFO, not a regular file"):
            list_images(tmp_path / name)


def test_folders_nested_deeper_than_python_recurses_are_listed(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    file = os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.close(file)
    os.close(folder)
    listed = names(list_images(tmp_path), tmp_path)
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # rmtree recurses, too
    assert listed == ["d/" * 1500 + "a.png"]


def test_a_file_of_the_limit_is_read_and_one_above_it_is_not(tmp_path):
    for size in (LIMIT, LIMIT + 1):
        (tmp_path / f"{size}").write_bytes(bytes(size))
    assert fetch_one(str(tmp_path / f"{LIMIT}")) == bytes(LIMIT)
    assert "above image.max_bytes = 1,000" in str(fetch_one(str(tmp_path / f"{LIMIT + 1}")))


def test_a_member_above_the_limit_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(200_000_000))
        archive.writestr("a.png", b"1")
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        (tmp_path / "bomb.png").write_bytes(bytes(5000))
        archive.add(tmp_path / "bomb.png", "bomb.png")
    results = fetch_all(
        [f"zip://{name}::{tmp_path}/x.zip" for name in ("bomb.png", "a.png")]
        + [f"tar://bomb.png::{tmp_path}/x.tgz"],
        max_bytes=LIMIT,
    )
    assert "has 200,000,000 bytes, above image.max_bytes = 1,000" in str(results[0])
    assert results[1] == b"1"
    assert "has 5,000 bytes, above" in str(results[2])


def test_an_archive_replaced_after_listing_is_an_error_of_its_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"1")
    (row,) = list_images(tmp_path / "x.zip").table.to_pylist()
    assert fetch_one(row["uri"], size=row["size"], etag=row["etag"]) == b"1"
    os.utime(tmp_path / "x.zip", ns=(1, 1))
    result = fetch_one(row["uri"], size=row["size"], etag=row["etag"])
    assert f"archive {tmp_path}/x.zip was changed after it was listed" in str(result)


# ----------------------------------------------------------------------------------------- web


@pytest.fixture
def endless():
    """A server whose answers have no length and no end; gives its URL and the bytes it sent."""
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            try:
                while sum(sent) < 100_000_000:
                    self.wfile.write(bytes(10_000))
                    sent.append(10_000)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def test_a_body_without_length_or_end_is_read_to_the_limit(endless):
    url, sent = endless
    assert "has more than 1,000 bytes, above image.max_bytes" in str(fetch_one(f"{url}/a.png"))
    assert not holds_dicom(f"{url}/IM1")
    assert sum(sent) < 50_000_000  # what fits the buffers on the way


def test_a_body_is_not_read_if_its_length_is_above_the_limit(web):
    web.answers["/a.png"] = [(200, bytes(5000))]
    assert "has 5,000 bytes, above image.max_bytes" in str(fetch_one(f"{web.url}/a.png"))
    options = {"anon": True, "endpoint_url": web.url}
    web.answers["/b/a.png"] = web.answers["/a.png"]
    result = fetch_one("s3://b/a.png", options=options)
    assert "has 5,000 bytes, above image.max_bytes" in str(result)


# ------------------------------------------------------------------------------------------ S3


def etag(data):
    return {"ETag": f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'}


def test_bytes_that_do_not_have_the_md5_of_their_etag_are_fetched_again(web):
    options = {"anon": True, "endpoint_url": web.url}
    web.answers["/b/a.dcm"] = [(200, b"dataX", etag(b"data!")), (200, b"data!", etag(b"data!"))]
    assert fetch_one("s3://b/a.dcm", options=options) == b"data!"
    assert len(web.asked) == 2


def test_bytes_that_arrive_damaged_each_time_are_an_error(web):
    options = {"anon": True, "endpoint_url": web.url}
    web.answers["/b/a.dcm"] = [(200, b"data%d" % n, etag(b"data!")) for n in range(20)]
    result = fetch_one("s3://b/a.dcm", options=options)
    assert "could not be fetched: it arrived damaged" in str(result)


def test_an_etag_that_is_no_md5_costs_one_request_more_in_all(web):
    options = {"anon": True, "endpoint_url": web.url}
    for name in ("a", "b"):
        web.answers[f"/b/{name}.dcm"] = [(200, b"data!", etag(b"a hash of another kind"))]
    assert fetch_one("s3://b/a.dcm", options=options) == b"data!"
    assert fetch_one("s3://b/b.dcm", options=options) == b"data!"
    assert [path for _, path in web.asked] == ["/b/a.dcm", "/b/a.dcm", "/b/b.dcm"]


def test_multipart_and_encrypted_objects_are_not_compared(web):
    options = {"anon": True, "endpoint_url": web.url}
    kms = {**etag(b"other"), "x-amz-server-side-encryption": "aws:kms"}
    web.answers["/b/a.dcm"] = [(200, b"data!", {"ETag": f'"{"0" * 32}-2"'})]
    web.answers["/b/k.dcm"] = [(200, b"data!", kms)]
    assert fetch_one("s3://b/a.dcm", options=options) == b"data!"
    assert fetch_one("s3://b/k.dcm", options=options) == b"data!"
    assert len(web.asked) == 2


def test_an_object_of_another_etag_than_listed_is_an_error(web):
    options = {"anon": True, "endpoint_url": web.url}
    web.answers["/b/a.png"] = [(200, b"data!", etag(b"data!"))]
    listed = etag(b"data?")["ETag"].strip('"')
    result = fetch_one("s3://b/a.png", options=options, size=5, etag=listed)
    assert str(result).startswith("s3://b/a.png was changed after it was listed")
    assert len(web.asked) == 1
