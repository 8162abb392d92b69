"""What is found where, and what is left out aloud."""

from __future__ import annotations

import os
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.errors import InputError
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.listing import LISTING_SCHEMA, first_image, list_images


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.png",
        "a.JPG",
        "sub/c.tiff",
        "sub/deep/d.webp",
        "notes.txt",
        "sub/README",
        ".hidden.png",
        ".git/e.png",
        "__MACOSX/f.png",
        "scan.dcm",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "in"


def uris(listing):
    return sorted(listing.table["uri"].to_pylist())


def names(listing, root):
    return [uri.removeprefix(f"{root}/") for uri in uris(listing)]


def test_a_folder_is_listed_whole(folder):
    listing = list_images(folder)
    assert listing.table.schema == LISTING_SCHEMA
    expected = ["a.JPG", "b.png", "scan.dcm", "sub/c.tiff", "sub/deep/d.webp"]
    assert names(listing, folder) == expected
    assert set(listing.table["size"].to_pylist()) == {5}
    assert None not in listing.table["etag"].to_pylist()
    assert listing.table["address"].null_count == 5
    assert str(listing.skipped) == "2 files without an image suffix, 3 hidden files"


def test_a_hidden_parent_hides_nothing(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").write_bytes(b"1")
    assert len(uris(list_images(tmp_path / ".cache"))) == 1


def test_a_file_without_a_suffix_is_an_image_where_it_is_dicom(tmp_path):
    marked = bytes(128) + b"DICM" + bytes(8)
    for name in ("IM000001", "CT.1.2.840.113619.2.55.3", "deep/IMG.17", "DICOMDIR", "data.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(marked)
    (tmp_path / "LICENSE").write_bytes(b"x" * 200)
    (tmp_path / "EMPTY").write_bytes(b"")
    listing = list_images(tmp_path)
    expected = ["CT.1.2.840.113619.2.55.3", "IM000001", "deep/IMG.17"]
    assert names(listing, tmp_path) == expected
    assert listing.skipped.other == 4
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "IM000001", "a/IM1")
        archive.write(tmp_path / "LICENSE", "a/LICENSE")
    results = uris(list_images(tmp_path / "all.zip"))
    assert results == [f"zip://a/IM1::{tmp_path}/all.zip"]


def test_a_changed_file_has_another_etag(folder):
    before = list_images(folder / "b.png").table["etag"][0].as_py()
    os.utime(folder / "b.png", ns=(1, 1))
    assert list_images(folder / "b.png").table["etag"][0].as_py() != before


def test_one_file_and_globs(folder):
    assert names(list_images(folder / "b.png"), folder) == ["b.png"]
    assert names(list_images(f"{folder}/*.png"), folder) == ["b.png"]
    assert names(list_images(f"{folder}/**/*.[tw]*"), folder) == ["sub/c.tiff", "sub/deep/d.webp"]


def test_a_folder_with_brackets_in_its_name_is_no_glob(tmp_path):
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "x.png").write_bytes(b"1")
    assert len(uris(list_images(tmp_path / "a[1]"))) == 1


def test_a_link_to_a_folder_is_left_out_aloud(folder):
    (folder / "again").symlink_to(folder)
    (folder / "link.png").symlink_to(folder / "b.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    listing = list_images(folder)
    assert {"link.png", "dangling.png"} < set(names(listing, folder))
    assert listing.skipped.linked == 1
    assert str(listing.skipped).endswith("3 hidden files, 1 link to a folder")


def test_a_dangling_link_does_not_end_a_glob(folder):
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    assert names(list_images(f"{folder}/*.png"), folder) == ["b.png", "dangling.png"]


def test_the_host_of_a_store_is_in_every_address(hosted):
    listing = list_images(f"{hosted}/in/")
    assert uris(listing) == [f"{hosted}/in/a.png"]
    assert fetch_all(uris(listing)) == [b"1"]


def test_a_hidden_parent_of_a_glob_or_an_archive_hides_nothing(tmp_path):
    root = tmp_path / ".cache"
    (root / ".x").mkdir(parents=True)
    for name in ("a.png", ".b.png", ".x/c.png"):
        (root / name).write_bytes(b"1")
    assert names(list_images(f"{root}/*.png"), root) == ["a.png"]
    assert names(list_images(f"{tmp_path}/.c*/*.png"), root) == ["a.png"]
    listing = list_images(f"{root}/")
    assert (names(listing, root), listing.skipped.hidden) == (["a.png"], 2)
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name in ("a.png", ".b.png", ".x/c.png"):
            archive.write(root / name, name)
    listing = list_images(root / "all.zip")
    assert uris(listing) == [f"zip://a.png::{root}/all.zip"]
    assert listing.skipped.hidden == 2


@pytest.mark.parametrize("location", ["keyless://b/in", "keyless://b/*.png", "keyless://b/m.csv"])
def test_client_error_of_any_type_is_one_line(keyless, location):
    with pytest.raises(InputError, match=r"input keyless://b/.* cannot be listed: Unable to"):
        list_images(location)


def test_file_too_short_for_dicom_is_not_read(sick):
    fs = fsspec.filesystem("sick")
    fs.pipe_file("/in/SHORT", b"DICM")
    fs.pipe_file("/in/IM1", bytes(128) + b"DICM")
    assert uris(list_images("sick:///in")) == ["sick:///in/IM1"]
    assert sick.asked == ["IM1"]


def test_nothing_there(tmp_path, folder):
    with pytest.raises(InputError, match="nowhere does not exist"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image found"):
        list_images(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no image found .*1 file without an image suffix.*\.png"):
        list_images(folder / "notes.txt")


def test_a_name_that_is_not_utf8_is_counted(folder):
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"1")
    listing = list_images(folder)
    assert len(uris(listing)) == 5
    assert listing.skipped.unnamed == 1


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("in/a.png", "in/x/b.png", "in/x.txt", "in/.h.png", "inside/c.png"):
        fs.pipe_file(f"/{name}", b"123")
    yield fs
    fs.store.clear()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("memory://in", ["memory://in/a.png", "memory://in/x/b.png"]),
        ("memory:///in/", ["memory:///in/a.png", "memory:///in/x/b.png"]),
        ("memory://in/", ["memory://in/a.png", "memory://in/x/b.png"]),
        ("memory://in/a.png", ["memory://in/a.png"]),
        ("memory://in/*/b.png", ["memory://in/x/b.png"]),
        ("memory://insi", ["memory://inside/c.png"]),
    ],
)
def test_any_fsspec_scheme(memory, location, expected):
    assert uris(list_images(location)) == expected


def test_first_image_reads_one_page_of_listing(monkeypatch):
    class Pages:
        protocol = "s3"

        def invalidate_cache(self):
            pass

        def call_s3(self, method, *, Bucket, Prefix=None, ContinuationToken="no", Key=None):
            if method == "head_object":
                raise FileNotFoundError(Key)
            assert (Bucket, Prefix, ContinuationToken) == ("b", "in/", "no")
            results = [("in/notes.txt", 5), ("in/empty.png", 0), ("in/a.png", 5), ("in/b.png", 5)]
            contents = [{"Key": key, "Size": size} for key, size in results]
            return {"Contents": contents, "IsTruncated": True, "NextContinuationToken": "more"}

    opened = Pages(), "b/in"
    monkeypatch.setattr("salip_ray.sources.scan.filesystem", lambda *_: opened)
    assert first_image("s3://b/in") == "s3://b/in/a.png"


def test_a_remote_location_with_nothing(memory):
    with pytest.raises(InputError, match=r"no image found in memory://nowhere"):
        list_images("memory://nowhere")


# ---------------------------------------------------------------------------------- manifests


def test_a_csv_manifest(tmp_path):
    text = (
        'id,uri\n1,x/a.png\n2,/abs/b.png\n3,s3://bucket/c\n4,"https://h/d.png?Signature=s&v=1,2"\n'
    )
    (tmp_path / "m.csv").write_text(text)
    table = list_images(tmp_path / "m.csv").table
    assert table["uri"].to_pylist() == [
        f"{tmp_path}/x/a.png",
        "/abs/b.png",
        "s3://bucket/c",
        "https://h/d.png?v=1,2",
    ]
    # The signature fetches, and goes no further.
    assert table["address"].to_pylist()[3] == "https://h/d.png?Signature=s&v=1,2"
    assert table["address"].null_count == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_parquet_manifest(tmp_path, kind):
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"n": [1, 2], "uri": pa.array(["a.png", "b.png"], kind)}), path)
    assert uris(list_images(path)) == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]


def test_numbers_in_a_csv_stay_names(tmp_path):
    (tmp_path / "m.csv").write_text("uri\n001\n002\n")
    assert uris(list_images(tmp_path / "m.csv")) == [f"{tmp_path}/001", f"{tmp_path}/002"]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_malformed_manifests(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(InputError, match="does not exist"):
        list_images(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        list_images(path)
    table = pa.table({"url": ["a"], "n": [1]})
    if name.endswith("csv"):
        path.write_text("url,n\na,1\n")
    else:
        pq.write_table(table, path)
    with pytest.raises(InputError, match="no column 'uri'; its columns are url, n"):
        list_images(path)


def test_a_row_without_uri_is_named(tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"uri": ["a.png", None]}), path)
    with pytest.raises(InputError, match="row 2 of the manifest"):
        list_images(path)


def test_a_line_that_cannot_be_parsed_shows_no_signature(tmp_path):
    (tmp_path / "m.csv").write_text("n,uri\n1,https://h/d.png?Signature=hush,2\n")
    with pytest.raises(InputError, match=r"m\.csv cannot be read: .*https://h/d\.png") as caught:
        list_images(tmp_path / "m.csv")
    assert "hush" not in str(caught.value)
