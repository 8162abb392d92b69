"""DICOM as a viewer shows it: pydicom's own files, and files made for each step."""

from __future__ import annotations

import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from benchmarks.dicom_table import FILES, files_with_pixels, frame_count, pydicoms_own
from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.sources.decode import decode, open_stack
from salip_ray.sources.formats import dicom_stored

PATHS = list(files_with_pixels())
CONFIG = ImageConfig()
#: What cannot be decoded, and why: each is an error row that says so.
REFUSED = {
    "JPEG-lossy.dcm": "12-bit",
    "JPGExtended.dcm": "12-bit",
    "JPEG2000-embedded-sequence-delimiter.dcm": "JPEG 2000 data has",
    "MR_truncated.dcm": "truncated: the pixels have 8,130 bytes, 8,192 are needed",
    "badVR.dcm": "NumberOfFrames",
    "meta_missing_tsyntax.dcm": "lacks Rows",
    "nested_priv_SQ.dcm": "lacks Rows",
}


def make(pixels, *, monochrome="MONOCHROME2", **tags) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        ds.NumberOfFrames = pixels.shape[0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, monochrome
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def grey(data, **config):
    return decode(data, "a.dcm", ImageConfig(**config))[..., 0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(FILES).as_posix())
def test_pydicoms_own_files(path):
    data = path.read_bytes()
    if path.name in REFUSED:
        with pytest.raises(ImageError, match=REFUSED[path.name]):
            open_stack(data, path.name, CONFIG).picture(0)
        return
    stack = open_stack(data, path.name, CONFIG)
    ds = pydicom.dcmread(path)
    assert stack.count == frame_count(ds)
    decoded = stack.picture(stack.count - 1)
    assert decoded.shape == (ds.Rows, ds.Columns, 3)
    assert (decoded.dtype, decoded.flags.c_contiguous, decoded.flags.writeable) == (
        np.uint8,
        True,
        True,
    )
    wanted = pydicoms_own(ds, stack.count - 1)
    shown = decoded if wanted.ndim == 3 else decoded[..., 0]
    assert np.abs(shown.astype(float) - wanted).max() <= 1


def test_how_many_of_them_decode():
    assert len(PATHS) >= 74
    assert len([path for path in PATHS if path.name not in REFUSED]) >= 65


RAMP = np.arange(-1024, 1024, dtype=np.int16).reshape(32, 64)


def test_rescale_then_window():
    data = make(RAMP, RescaleSlope=2, RescaleIntercept=100, WindowCenter=40, WindowWidth=400)
    decoded = grey(data).astype(int).ravel()
    hounsfield = RAMP.ravel() * 2 + 100
    assert (decoded[hounsfield <= -160] == 0).all()
    assert (decoded[hounsfield >= 240] == 255).all()
    assert abs(decoded[hounsfield == 40][0] - 128) <= 1


def test_a_window_of_the_config_wins():
    data = make(RAMP, WindowCenter=40, WindowWidth=400)
    decoded = grey(data, window=Window(center=-500, width=10)).ravel()
    assert decoded[RAMP.ravel() < -505].max() == 0
    assert decoded[RAMP.ravel() > -495].min() == 255


def test_without_a_window_percentiles_or_the_whole_range():
    narrow = (RAMP // 16).astype(np.int16)
    assert (grey(make(narrow)).min(), grey(make(narrow)).max()) == (0, 255)
    whole = grey(make(narrow), window="from_file")
    assert 126 <= whole.min() < whole.max() <= 129


def test_monochrome1_is_inverted():
    pixels = np.array([[0, 255]], np.uint8)
    assert grey(make(pixels, monochrome="MONOCHROME1")).tolist() == [[255, 0]]
    assert grey(make(pixels)).tolist() == [[0, 255]]


def test_frames_share_a_range_and_padding_does_not_count():
    pixels = np.stack([np.full((4, 4), level, np.int16) for level in (0, 100, 200)])
    pixels[:, 0, 0] = -2000
    stack = open_stack(make(pixels, PixelPaddingValue=-2000), "a.dcm", CONFIG)
    assert [int(stack.picture(i)[1, 1, 0]) for i in range(3)] == [0, 128, 255]
    assert stack.kind == "frame"


def test_spacing_is_rows_then_columns():
    assert open_stack(make(RAMP, PixelSpacing=[2, 3]), "a.dcm", CONFIG).spacing == (2.0, 3.0)
    assert open_stack(make(RAMP), "a.dcm", CONFIG).spacing is None


def test_messages_hold_no_value_of_the_file():
    data = make(RAMP, PatientName="Pixel^Data", PatientID="2048", RescaleSlope=1)
    with pytest.raises(ImageError) as caught:
        decode(data[:-2000], "a.dcm", CONFIG)
    assert "2048" not in str(caught.value).replace("2048 vs", "")
    assert "Pixel^Data" not in str(caught.value)


@pytest.mark.parametrize("data", [b"x" * 200, b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_invalid_dicom_is_refused(data):
    with pytest.raises(ImageError):
        decode(data, "a.dcm", CONFIG)


def test_a_decoder_that_panics_costs_its_file_alone(capfd):
    """RLE segments longer than the picture: the decoder, in Rust, raises what is no Exception."""
    ds = pydicom.dcmread(io.BytesIO(make(np.zeros((8, 8), np.uint16))))
    segment = bytes([0x81, 7]) * 50
    offsets = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    ds.PixelData = encapsulate([offsets + 2 * segment])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = RLELossless
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    with pytest.raises(ImageError, match=r"its pixels \(RLE Lossless\) are corrupt"):
        decode(buffer.getvalue(), "a.dcm", CONFIG)
    assert "panicked" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("syntax", "first"),
    [
        (JPEGBaseline8Bit, "pillow"),
        (JPEG2000Lossless, "pylibjpeg"),
        (RLELossless, "pylibjpeg"),
        (ExplicitVRLittleEndian, ""),
    ],
)
def test_gdcm_is_used_only_without_alternative(syntax, first):
    ds = pydicom.dcmread(io.BytesIO(make(np.zeros((8, 8), np.uint8))))
    ds.file_meta.TransferSyntaxUID = syntax
    assert dicom_stored._decoders(ds)[0] == first
    assert "gdcm" not in dicom_stored._decoders(ds)
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1  # for which there is no other
    assert dicom_stored._decoders(ds)[0] in {"gdcm", "pylibjpeg"}
