"""Names with any character that a file, a member or a key may have."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
import zipfile
from urllib.parse import parse_qs, quote, unquote

import pytest

from salip_ray.errors import InputError
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.names import split_member, stem, suffix
from salip_ray.sources.listing import list_images
from salip_ray.sources.patterns import FileFilter, matches

ODD_NAMES = (
    "scan?1.png",
    "a[1].png",
    "b*.png",
    "50%.png",
    "c%20d.png",
    "#7.png",
    "two words .png",
    "line\nbreak.png",
    "tab\t.png",
    "e::f.png",
    "~tilde.png",
    "quote'\".png",
    "back\\slash.png",
    "caf\u00e9.png",
    "cafe\u0301.png",
    "\u809d\u81d3.png",
    "a&b=c;d.png",
    "{x}.png",
    "-dash.png",
    "s3:x.png",
)


def results(location):
    table = list_images(location).table
    return dict(zip(table["uri"].to_pylist(), fetch_all(table["uri"].to_pylist()), strict=True))


def write_all(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ODD_NAMES:
        (folder / name).write_bytes(name.encode())


def test_every_name_in_a_folder_is_listed_and_fetched(tmp_path):
    write_all(tmp_path / "in")
    assert results(tmp_path / "in") == {f"{tmp_path}/in/{n}": n.encode() for n in ODD_NAMES}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_that_exists_is_not_read_as_a_pattern(tmp_path, name):
    write_all(tmp_path)
    assert results(tmp_path / name) == {f"{tmp_path}/{name}": name.encode()}


def test_every_name_in_an_archive_is_listed_and_fetched(tmp_path):
    names = [*ODD_NAMES, "/absolute.png", "./dot.png", "../up.png", "x//y.png", "d/./e.png"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.writestr(name, name)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
    for scheme in ("zip", "tar"):
        path = tmp_path / f"x.{scheme}"
        assert results(path) == {f"{scheme}://{name}::{path}": name.encode() for name in names}


@pytest.mark.parametrize("listed", ["parquet", "csv"])
def test_every_name_in_a_manifest_is_fetched(tmp_path, listed):
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    write_all(tmp_path)
    (tmp_path / " spaces.png ").write_bytes(b" spaces.png ")
    names = [*ODD_NAMES, " spaces.png "]
    path = tmp_path / f"list [1].{listed}"
    if listed == "parquet":
        pq.write_table(pa.table({"uri": names}), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["uri"], *([name] for name in names)])
    assert results(path) == {f"{tmp_path}/{name}": name.encode() for name in names}


def test_spaces_around_an_entry_of_a_csv_are_dropped(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "m.csv").write_text("n,uri\n1, a.png\n")
    assert list(results(tmp_path / "m.csv")) == [f"{tmp_path}/a.png"]


def test_existing_path_with_brackets_is_not_a_pattern(tmp_path):
    folder = tmp_path / "my [x]"
    (folder / "in?").mkdir(parents=True)
    (folder / "in?" / "a.png").write_bytes(b"1")
    (folder / "m.csv").write_text("uri\nin?/a.png\n")
    with zipfile.ZipFile(folder / "a[1].zip", "w") as archive:
        archive.writestr("b.png", b"2")
    assert list(results(folder / "m.csv")) == [f"{folder}/in?/a.png"]
    assert list(results(folder / "a[1].zip")) == [f"zip://b.png::{folder}/a[1].zip"]
    assert list(results(folder / "in?")) == [f"{folder}/in?/a.png"]
    assert list(results(f"{folder}/in?/*.png")) == [f"{folder}/in?/a.png"]
    assert list(results(f"{folder}/**/*.png")) == [f"{folder}/in?/a.png"]


def test_a_recursive_pattern_follows_no_links(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(b"1")
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    assert list(results(f"{tmp_path}/**/*.png")) == [f"{tmp_path}/x/a.png"]


@pytest.mark.parametrize(
    ("uri", "ending", "name"),
    [
        ("/in/scan?1.png", ".png", "scan?1"),
        ("s3://b/scan?1.png", ".png", "scan?1"),
        ("s3://b/a.png?versionId=x1.2", ".png", "a"),
        ("az://c/a.dcm?sv=1&sig=abc%3D", ".dcm", "a"),
        ("https://h/a.png?x=/b.tif", ".png", "a"),
        ("https://h/a.png#b.tif", ".png", "a"),
        ("s3://b/x#1.nii.gz", ".nii.gz", "x#1"),
        ("zip://a?b.png::https://h/x.zip?sig=1", ".png", "a?b"),
    ],
)
def test_a_query_belongs_to_the_web_alone(uri, ending, name):
    assert (suffix(uri), stem(uri)) == (ending, name)


@pytest.mark.parametrize(
    ("uri", "member", "archive"),
    [
        ("s3://b/a::b.png", "s3://b/a::b.png", ""),
        ("zip://a::b.png::/x.zip", "zip://a::b.png", "/x.zip"),
        ("zip://a.png::tar://b.zip::s3://k/x.tar", "zip://a.png", "tar://b.zip::s3://k/x.tar"),
        ("zip://a.png::x.zip", "zip://a.png", "x.zip"),
        ("/in/zip::a.png", "/in/zip::a.png", ""),
    ],
)
def test_a_member_ends_where_its_archive_begins(uri, member, archive):
    assert split_member(uri) == (member, archive)


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("masks", "masks/a.png", True),
        ("masks", "x/masks/a.png", True),
        ("masks", "x/masks.png", False),
        ("*_mask.png", "x/a_mask.png", True),
        ("images/*", "images/a.png", True),
        ("images/*", "x/images/a.png", False),
        ("images/*", "images/deep/a.png", True),
        ("images/*.png", "images/deep/a.png", False),
        ("**/masks/*.png", "x/y/masks/a.png", True),
        ("**/masks/*.png", "masks/a.png", True),
        ("study [1]/*", "study [1]/a.png", True),
        ("study [1]/*", "study 1/a.png", True),
        ("a[!b].png", "ac.png", True),
        ("a[!b].png", "ab.png", False),
        ("masks/", "masks/a.png", True),
        ("masks/", "masks", False),
    ],
)
def test_a_pattern_matches_names_folders_or_paths(pattern, path, matched):
    assert matches(path, pattern) is matched


def test_include_exclude_and_limit_take_some_files_and_count_the_others(tmp_path):
    for name in ("images/a.png", "images/b.png", "images/c.png", "masks/a.png", "x/b_mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")

    def names(**selection):
        listing = list_images(tmp_path, selection=FileFilter(**selection))
        uris = sorted(uri.removeprefix(f"{tmp_path}/") for uri in listing.table["uri"].to_pylist())
        return uris, listing.skipped.excluded

    images = ["images/a.png", "images/b.png", "images/c.png"]
    assert names(exclude=("masks", "*_mask.*")) == (images, 2)
    assert names(include=("images/*",)) == (images, 2)
    assert names(include=("images",), exclude=("b.*",), limit=1) == (["images/a.png"], 4)
    with pytest.raises(InputError, match="5 files by --include, --exclude or --limit"):
        names(include=("nothing",))
    for wrong in ({"limit": 0}, {"include": ("",)}):
        with pytest.raises(InputError):
            FileFilter(**wrong)


@pytest.fixture
def any_keys():
    """An S3 server with keys that no file system can hold; gives its storage options."""
    keys = ["/a.png", "x//y.png", "d/./e.png", "../up.png", "what?sig=b.png", "e::f.png", "50%.png"]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path, _, query = self.path.partition("?")
            key = unquote(path).removeprefix("/b/").removeprefix("/b")
            if "list-type=2" in query:
                prefix = parse_qs(query).get("prefix", [""])[0]
                listed = "".join(
                    f"<Contents><Key>{quote(k)}</Key><Size>{len(k)}</Size></Contents>"
                    for k in keys
                    if k.startswith(prefix)
                )
                self.answer(200, f"<R><EncodingType>url</EncodingType>{listed}</R>".encode())
            else:
                self.answer(200 if key in keys else 404, key.encode())

        do_HEAD = do_GET

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield keys, {"anon": True, "endpoint_url": endpoint}
        server.shutdown()


def test_keys_that_no_file_system_can_hold_are_listed_and_fetched(any_keys):
    keys, options = any_keys
    uris = sorted(list_images("s3://b", options).table["uri"].to_pylist())
    assert uris == sorted(f"s3://b/{key}" for key in keys)
    assert fetch_all(uris, options) == [uri.removeprefix("s3://b/").encode() for uri in uris]
