"""Heads of files: what a store does not hand out is not guessed, what a file lacks is data."""

from __future__ import annotations

import zipfile

import aiohttp
import fsspec
import nibabel
import numpy as np
import pytest

from salip_ray.config import ImageConfig
from salip_ray.errors import InputError
from salip_ray.sources.headers import Header, holds_dicom, read_header, read_nifti_header
from tests.dicom_series import write_slice

VOLUME = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)).to_bytes()
DICOM = bytes(128) + b"DICM" + bytes(8)
DROPPED = aiohttp.ServerDisconnectedError  # no OSError


def header(address):
    return read_header(address, ImageConfig())


@pytest.fixture
def fs(sick):
    fs = fsspec.filesystem("sick")
    fs.pipe_file("/v.nii", VOLUME)
    fs.pipe_file("/IM1", DICOM)
    return fs


@pytest.mark.parametrize("error", [ConnectionError("503"), DROPPED(), TimeoutError(), OSError("?")])
def test_transient_header_errors_are_retried(fs, sick, error):
    sick.failures = {"v.nii": [error] * 3, "IM1": [error] * 3}
    assert header("sick:///v.nii").count == 6
    assert holds_dicom("sick:///IM1")


def test_a_store_that_keeps_failing_is_an_error_that_names_the_file(fs, sick):
    sick.failures = {"v.nii": [DROPPED()] * 99, "IM1": [DROPPED()] * 99}
    with pytest.raises(InputError, match=r"sick:///v\.nii cannot be read: Server disconnected"):
        header("sick:///v.nii")
    with pytest.raises(InputError, match=r"sick:///IM1 cannot be read: Server disconnected"):
        holds_dicom("sick:///IM1")
    with pytest.raises(InputError, match=r"sick:///v\.nii cannot be read: Server disconnected"):
        read_nifti_header("sick:///v.nii")


def test_a_failure_that_a_parser_turns_into_its_own_counts(fs, sick, tmp_path):
    """pydicom takes a read that ends early for the end of the file."""
    path = write_slice(tmp_path / "1.dcm", np.zeros((4, 5), np.int16), 3.0)
    fs.pipe_file("/1.dcm", path.read_bytes())
    geometry = header("sick:///1.dcm").geometry
    assert geometry is not None
    sick.failures = {"1.dcm": [EOFError("connection lost")]}
    assert header("sick:///1.dcm").geometry == geometry


def test_refused_file_has_empty_header_only_if_its_suffix_names_a_format(fs, sick):
    sick.failures = {"v.nii": [PermissionError("Access Denied")], "IM1": [PermissionError("no")]}
    assert header("sick:///v.nii") == Header()
    assert sick.asked == ["v.nii"]
    with pytest.raises(InputError, match=r"IM1 cannot be read: no; make it readable"):
        holds_dicom("sick:///IM1")


def test_missing_or_malformed_file_has_empty_header(fs, sick, tmp_path):
    fs.pipe_file("/broken.nii", b"nothing")
    fs.pipe_file("/short.tif", b"II*\0")
    for address in (
        "sick:///broken.nii",
        "sick:///short.tif",
        "sick:///gone.nii",
        str(tmp_path),
        f"{tmp_path}/a\0b.nii",
        f"{tmp_path}/{'x' * 300}.nii",
        f"zip://a.nii::{tmp_path}/gone.zip",
        "nowhere://a.nii",
    ):
        assert header(address) == Header()
        assert not holds_dicom(address)


def test_a_damaged_member_of_an_archive_is_data(tmp_path, sick):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v.nii", VOLUME)
    data = bytearray(path.read_bytes())
    data[data.index(b"v.nii") + 60] ^= 1  # inside of the member: its checksum is wrong
    path.write_bytes(data)
    assert header(f"zip://v.nii::{path}") == Header()


def test_a_web_server_that_is_busy_is_not_a_missing_file(web, sick):
    web.answers = {"/v.nii": [(503, b"")], "/IM1": [(503, b""), (200, DICOM)]}
    with pytest.raises(InputError, match=r"/v\.nii cannot be read: HTTP 503") as caught:
        header(f"{web.url}/v.nii?Signature=hush")
    assert "hush" not in str(caught.value)
    assert header(f"{web.url}/gone.nii") == Header()
    assert holds_dicom(f"{web.url}/IM1")
    assert not holds_dicom(f"{web.url}/GONE")
    web.answers["/EMPTY"] = [(416, b"")]
    assert not holds_dicom(f"{web.url}/EMPTY")
