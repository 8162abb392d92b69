"""From stored DICOM values to grey: windows, rescale, padding, bits, LUTs, and odd data sets."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.decode import decode, open_stack
from salip_ray.sources.formats.dicom_dataset import read_head
from salip_ray.sources.formats.dicom_marks import is_dicom
from tests.unit.sources.formats.test_dicom import CONFIG, RAMP, grey, make

DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def changed(data, change, **options):
    """The file after ``change`` of its data set."""
    ds = pydicom.dcmread(io.BytesIO(data))
    change(ds)
    buffer = io.BytesIO()
    ds.save_as(buffer, **{"enforce_file_format": True, **options})
    return buffer.getvalue()


def with_raw(data, keyword, vr, value):
    """The file with an attribute whose bytes pydicom would refuse to write."""
    tag = Tag(keyword)
    raw = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return changed(data, lambda ds: ds._dict.__setitem__(tag, raw))


# ------------------------------------------------------------------------------------- windows


def test_a_width_below_1_is_exact():
    """PET in small units, as in SUV."""
    values = {"RescaleSlope": 0.0002, "RescaleIntercept": 0}
    data = make(DEEP, WindowCenter=0.27, WindowWidth=0.5, **values)
    wanted = np.clip((DEEP * 0.0002 - 0.27) / 0.5 + 0.5, 0, 1) * 255
    assert np.abs(grey(data) - wanted).max() <= 0.51
    assert np.abs(grey(data, window="from_file") - wanted).max() <= 0.51


@pytest.mark.parametrize("width", ["0", "-200", "wide", "", "1e400"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_impossible_window_is_ignored(width, function):
    data = make(DEEP, WindowCenter=40, VOILUTFunction=function)
    data = with_raw(data, "WindowWidth", "DS", width.encode())
    np.testing.assert_array_equal(grey(data), grey(make(DEEP)))


def test_the_first_possible_window_counts():
    several = make(DEEP, WindowCenter=[40, 2000, 1], WindowWidth=[0, 1000, 9])
    np.testing.assert_array_equal(
        grey(several), grey(make(DEEP, WindowCenter=2000, WindowWidth=1000))
    )


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_that_of_the_standard(function):
    data = make(DEEP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    linear = {"LINEAR": (1999.5, 999), "LINEAR_EXACT": (2000, 1000)}
    if function == "SIGMOID":
        wanted = 255 / (1 + np.exp(-4 * (DEEP - 2000.0) / 1000))
    else:
        center, width = linear[function]
        wanted = np.clip((DEEP - float(center)) / width + 0.5, 0, 1) * 255
    assert np.abs(grey(data) - wanted).max() <= 0.51


def test_a_negative_slope_turns_the_values_not_the_window():
    values = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    data = make(DEEP, WindowCenter=2000, WindowWidth=1000, **values)
    wanted = grey(make(4095 - DEEP, WindowCenter=2000, WindowWidth=1000))
    np.testing.assert_array_equal(grey(data), wanted)


# ------------------------------------------------------------------------------------- rescale


@pytest.mark.parametrize("keywords", [["RescaleSlope"], ["RescaleSlope", "RescaleIntercept"]])
def test_an_empty_rescale_is_a_missing_one(keywords):
    window = {"WindowCenter": 100, "WindowWidth": 400}
    data = make(RAMP, **window, RescaleIntercept=0)
    for keyword in keywords:
        data = with_raw(data, keyword, "DS", b"")
    np.testing.assert_array_equal(grey(data), grey(make(RAMP, **window)))


def test_a_slope_of_0_is_a_missing_one():
    window = {"WindowCenter": 100, "WindowWidth": 400}
    data = make(RAMP, RescaleSlope=0, RescaleIntercept=50, **window)
    wanted = make(RAMP, RescaleSlope=1, RescaleIntercept=50, **window)
    np.testing.assert_array_equal(grey(data), grey(wanted))


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("value", [b"-1,5 ", b"1\\2 ", b"nan ", b"inf "])
def test_a_rescale_that_is_no_number_is_named(keyword, value):
    data = make(RAMP, RescaleSlope=1, RescaleIntercept=0)
    with pytest.raises(ImageError, match=f"^the DICOM attribute {keyword} is not a number$"):
        decode(with_raw(data, keyword, "DS", value), "a.dcm", CONFIG)


# ------------------------------------------------------------------------------------- padding

PADDED = np.where(np.arange(64)[:, None] < 40, -2000, RAMP[:1].repeat(64, 0) + 1024).astype(
    np.int16
)


@pytest.mark.parametrize(
    ("stored", "vr", "padding"),
    [
        (PADDED, "SS", {"PixelPaddingValue": -2000}),
        (PADDED, "US", {"PixelPaddingValue": 63536}),
        (PADDED.view(np.uint16), "SS", {"PixelPaddingValue": -2000}),
        (PADDED, "SS", {"PixelPaddingValue": -1990, "PixelPaddingRangeLimit": -2010}),
        (PADDED, "SS", {"PixelPaddingValue": -3000, "PixelPaddingRangeLimit": -1000}),
        (PADDED, "US", {"PixelPaddingValue": 63536, "PixelPaddingRangeLimit": 63537}),
    ],
)
@pytest.mark.parametrize("rescaled", ["no", "plain", "shared", "per frame"])
def test_padding_is_left_out_of_the_range(stored, vr, padding, rescaled):
    frames = 2 if rescaled == "per frame" else 1
    data = make(np.stack([stored] * 2) if frames == 2 else stored)
    rescale = pydicom.Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 2, -1024, "HU"
    groups = pydicom.Dataset()
    groups.PixelValueTransformationSequence = [rescale]

    def change(ds):
        for keyword, value in padding.items():
            ds.add(DataElement(Tag(keyword), vr, value))
        if rescaled == "plain":
            ds.RescaleSlope, ds.RescaleIntercept = 2, -1024
        elif rescaled == "shared":
            ds.SharedFunctionalGroupsSequence = [groups]
        elif rescaled == "per frame":
            ds.PerFrameFunctionalGroupsSequence = [groups, groups]

    stack = open_stack(changed(data, change), "a.dcm", CONFIG)
    picture = stack.picture(stack.count - 1)[40:, :, 0]
    assert (picture.min(), picture.max()) == (0, 255)
    assert picture[0, 32] in range(126, 131)


def test_float_padding_is_left_out_of_the_range():
    pixels = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    pixels[0] = -1e30

    def change(ds):
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        ds.FloatPixelData = pixels.tobytes()
        ds.add(DataElement(Tag("FloatPixelPaddingValue"), "FL", -1e30))

    shown = grey(changed(make(pixels.view(np.uint32)), change))
    assert (shown[1:].min(), shown[1:].max()) == (0, 255)
    assert shown[1, 0] < 3
    assert 120 < shown[32, 0] < 135

    def windowed(ds):
        change(ds)
        ds.WindowCenter, ds.WindowWidth = 0.5, 0.5

    shown = grey(changed(make(pixels.view(np.uint32)), windowed))
    assert np.abs(shown[1:] - np.clip((pixels[1:] - 0.25) * 2, 0, 1) * 255).max() <= 0.51


# ---------------------------------------------------------------------------- bits and tables


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_values_end_at_high_bit(high, signed):
    """Left-justified values, with other data in the bits below and above."""
    values = np.arange(-2048, 2048).reshape(64, 64) if signed else np.arange(4096).reshape(64, 64)
    shift = high - 11
    bits = (values & 0xFFF) << shift
    bits |= (1 << shift) - 1  # below
    bits |= ~((1 << (high + 1)) - 1) & 0xFFFF  # above
    tags = {"BitsStored": 12, "HighBit": high, "PixelRepresentation": int(signed)}
    window = {"WindowCenter": 500, "WindowWidth": 1000}
    decoded = grey(make(bits.astype(np.uint16), **tags, **window))
    plain = values.astype(np.int16 if signed else np.uint16)
    np.testing.assert_array_equal(decoded, grey(make(plain, BitsStored=12, HighBit=11, **window)))


def table(first, bits, entries, vr="OW"):
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    raw = np.asarray(entries, np.uint16)
    value = raw.tobytes() if vr == "OW" else raw.tolist()
    item.add(DataElement(Tag("LUTData"), vr, value))
    return item


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_lut_of_any_depth(bits, vr):
    top = 2**bits - 1
    entries = np.linspace(top, 0, 4096).astype(np.uint16)  # inverts
    item = table(0, bits, entries, vr)
    data = changed(make(DEEP), lambda ds: setattr(ds, "VOILUTSequence", [item]))
    assert np.abs(grey(data) - entries[DEEP] / top * 255).max() <= 0.51


def test_a_voi_lut_after_a_rescale_below_zero():
    entries = np.linspace(0, 4095, 4096).astype(np.uint16)
    item = table(-1024, 12, entries)

    def change(ds):
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.VOILUTSequence = [item]

    assert np.abs(grey(changed(make(DEEP), change)) - DEEP / 4095 * 255).max() <= 0.51


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_a_modality_lut_of_any_depth(bits):
    entries = (np.arange(4096) % 2**bits).astype(np.uint16)
    item = table(0, bits, entries)
    item.ModalityLUTType = "US"
    data = changed(make(DEEP), lambda ds: setattr(ds, "ModalityLUTSequence", [item]))
    shown = grey(data, window="from_file")
    assert np.abs(shown - entries[DEEP] / (2**bits - 1) * 255).max() <= 0.51


def test_a_palette_of_more_entries_than_a_byte_counts():
    indices = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    colours = [np.arange(1024) // 4, 255 - np.arange(1024) // 4, np.arange(1024) % 256]

    def change(ds):
        ds.PhotometricInterpretation = "PALETTE COLOR"
        for name, entries in zip(("Red", "Green", "Blue"), colours, strict=True):
            setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [1024, 0, 8])
            ds[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
            data = entries.astype(np.uint8).tobytes()
            setattr(ds, f"{name}PaletteColorLookupTableData", data)

    decoded = decode(changed(make(indices), change), "a.dcm", CONFIG)
    np.testing.assert_array_equal(decoded, np.stack([c[indices] for c in colours], -1))


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("PhotometricInterpretation", "HSV", "another PhotometricInterpretation than MONOCHROME1"),
        ("PhotometricInterpretation", None, "no PhotometricInterpretation"),
        ("BitsStored", 17, "impossible BitsAllocated or BitsStored"),
        ("BitsStored", 0, "impossible BitsAllocated or BitsStored"),
        ("BitsAllocated", None, "impossible BitsAllocated or BitsStored"),
    ],
)
def test_an_impossible_description_of_pixels_is_named(keyword, value, message):
    def change(ds):
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)

    with pytest.raises(ImageError, match=message):
        decode(changed(make(DEEP), change), "a.dcm", CONFIG)


@pytest.mark.parametrize(
    "keyword", ["PixelRepresentation", "SamplesPerPixel", "BitsStored", "HighBit"]
)
def test_an_attribute_with_a_usual_value_may_be_missing(keyword):
    data = changed(make(DEEP), lambda ds: ds.__delitem__(keyword))
    np.testing.assert_array_equal(grey(data), grey(make(DEEP)))


# ---------------------------------------------------------------------------------- data sets


SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("missing", ["preamble", "meta", "transfer syntax"])
def test_a_data_set_without_a_transfer_syntax(syntax, missing):
    ds = pydicom.dcmread(io.BytesIO(make(DEEP)))
    how = {"implicit_vr": syntax == "implicit", "little_endian": syntax != "big endian"}
    if syntax == "big endian":
        ds.PixelData = DEEP.astype(">u2").tobytes()
    body = io.BytesIO()
    del ds.file_meta
    ds.preamble = None
    pydicom.dcmwrite(body, ds, enforce_file_format=False, force_encoding=True, **how)
    element = b"\x02\x00\x02\x00UI\x06\x001.2.3\0"
    if missing == "preamble":
        uid = SYNTAXES[syntax].encode() + b"\0" * (len(SYNTAXES[syntax]) % 2)
        element += b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid
    head = {"preamble": element, "meta": b"", "transfer syntax": bytes(128) + b"DICM" + element}
    data = head[missing] + body.getvalue()
    np.testing.assert_array_equal(grey(data), grey(make(DEEP)))
    if syntax != "big endian" or missing != "meta":
        assert is_dicom(data[:132])
        assert decode(data, "IM0001", CONFIG).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "head",
    [b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(200), b"\x08\x00" + bytes(200), b"", b"\x08\x00text"],
)
def test_other_files_are_not_dicom(head):
    assert not is_dicom(head[:132])


@pytest.mark.parametrize("name", ["a.ima", "a.IMA", "a.dic", "a.dc3", "a.dicom", "A", "1.2.840.3"])
def test_vendor_suffixes(name):
    assert decode(make(DEEP), name, CONFIG).shape == (64, 64, 3)


@pytest.mark.parametrize("charset", ["\\ISO 2022 IR 87", "GB18030", "ISO_IR 192", "NOSUCHST"])
def test_no_character_set_keeps_pixels_from_being_read(charset):
    data = make(DEEP, PatientName="Yamada^Tarou")
    if charset == "NOSUCHST":
        data = with_raw(data, "SpecificCharacterSet", "CS", b"GB18030 ")
        data = data.replace(b"GB18030 ", b"NOSUCHST")
    else:
        data = with_raw(data, "SpecificCharacterSet", "CS", charset.encode())
    np.testing.assert_array_equal(grey(data), grey(make(DEEP)))


# -------------------------------------------------------------------------------------- bombs


def deflated(data, tail=b""):
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    whole = buffer.getvalue()
    if not tail:
        return whole
    at = 132 + 12 + int.from_bytes(whole[140:144], "little")
    stream = zlib.compressobj(9, wbits=-15)
    body = zlib.decompress(whole[at:], wbits=-15) + tail
    return whole[:at] + stream.compress(body) + stream.flush()


def element(tag, size):
    """An explicit OB element of zeros."""
    group, number = tag
    head = group.to_bytes(2, "little") + number.to_bytes(2, "little") + b"OB\0\0"
    return head + size.to_bytes(4, "little") + bytes(size)


def test_a_deflated_file_is_read():
    data = deflated(make(DEEP))
    np.testing.assert_array_equal(grey(data), grey(make(DEEP)))
    assert read_head(io.BytesIO(data), ["Rows", "Columns"]).Rows == 64


_MEASURE = """
import io, resource, sys
data = open(sys.argv[1], "rb").read()
from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.decode import decode, open_stack
from salip_ray.sources.headers import read_header
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    if sys.argv[2] == "head":
        read_header(sys.argv[1], ImageConfig())
    else:
        decode(data, sys.argv[1], ImageConfig())
    print("read")
except ImageError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak(path, what):
    """What reading message, and the MB by which the memory of a fresh process grew."""
    command = [sys.executable, "-c", _MEASURE, str(path), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, grown = done.stdout.strip().splitlines()
    return message, int(grown) / 1024


@pytest.mark.parametrize("what", ["head", "whole"])
def test_a_deflated_bomb_is_not_inflated(tmp_path, what):
    """300 MB of zeros in 300 kB, after the pixels and before them."""
    tail = element((0x7FE1, 0x0010), 300_000_000)
    (tmp_path / "a.dcm").write_bytes(deflated(make(DEEP), tail))
    message, grown = peak(tmp_path / "a.dcm", what)
    assert message == "read"
    assert grown < 120


def test_a_jpeg_2000_stream_larger_than_its_rows_is_not_decoded():
    def claim(ds):
        sides = np.array([30_000, 30_000, 0, 0, 30_000, 30_000, 0, 0], ">u4").tobytes()
        stream = b"\xff\x4f\xff\x51" + b"\0\x29\0\0" + sides + b"\0\1\7\1\1"
        ds.PixelData = encapsulate([stream + bytes(1000)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless

    data = changed(make(np.zeros((64, 64), np.uint8)), claim)
    with pytest.raises(ImageError, match=r"JPEG 2000 data has 30000 x 30000 pixels"):
        decode(data, "a.dcm", ImageConfig())
