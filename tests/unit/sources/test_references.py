"""Finding and reading the reference mask of an image."""

from __future__ import annotations

import io
import unicodedata

import nibabel
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.schema import ImageRef
from salip_ray.sources import references
from salip_ray.sources.references import References
from tests.tiff_files import tiff


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(np.asarray(array)).save(path)
    return path


MASK = np.array([[0, 1, 2], [255, 0, 0]], np.uint8)


def test_a_folder_is_matched_by_stem(tmp_path):
    save(tmp_path / "m" / "a.png", MASK)
    save(tmp_path / "m" / "deep" / "b.png", MASK)
    masks = References.open(str(tmp_path / "m"))
    assert masks.find(ImageRef("s3://bucket/x/a.jpg")) == ImageRef(str(tmp_path / "m" / "a.png"))
    assert masks.find(ImageRef("/in/b.tif")) == ImageRef(str(tmp_path / "m" / "deep" / "b.png"))
    assert masks.find(ImageRef("/in/c.png")) is None
    assert len(masks) == 2
    np.testing.assert_array_equal(masks.load(masks.find(ImageRef("a.png"))), MASK)
    assert masks.load(masks.find(ImageRef("a.png"))).dtype == np.int32


def test_two_masks_of_one_stem_are_refused(tmp_path):
    save(tmp_path / "a.png", MASK)
    save(tmp_path / "x" / "a.tif", MASK)
    with pytest.raises(InputError, match="two masks for 'a'"):
        References.open(str(tmp_path))


@pytest.mark.parametrize("where", ["index.csv", "."])
def test_index_is_relative_to_files_next_to_it(tmp_path, where):
    save(tmp_path / "masks" / "m1.png", MASK)
    save(tmp_path / "elsewhere" / "m2.png", MASK)
    (tmp_path / "index.csv").write_text(
        f"image,mask,width\na.png,m1.png,3\nsub/b.png,elsewhere/m2.png,3\n"
        f"/abs/c.png,{tmp_path}/masks/m1.png,3\n"
    )
    masks = References.open(str(tmp_path / where))
    assert masks.find(ImageRef(f"{tmp_path}/images/a.png")) == ImageRef(f"{tmp_path}/masks/m1.png")
    assert masks.find(ImageRef(f"{tmp_path}/sub/b.png")) == ImageRef(f"{tmp_path}/elsewhere/m2.png")
    assert masks.find(ImageRef("/abs/c.png")) == ImageRef(f"{tmp_path}/masks/m1.png")
    # Moved images are masks by their stem.
    assert masks.find(ImageRef("s3://bucket/b.jpg")) == ImageRef(f"{tmp_path}/elsewhere/m2.png")


def test_a_stem_that_means_two_masks_finds_neither(tmp_path):
    (tmp_path / "index.csv").write_text("image,mask\nx/a.png,/m/1.png\ny/a.png,/m/2.png\n")
    masks = References.open(str(tmp_path))
    assert masks.find(ImageRef("/moved/a.png")) is None
    assert masks.find(ImageRef(f"{tmp_path}/y/a.png")) == ImageRef("/m/2.png")


def test_a_stem_that_several_images_have_finds_no_mask_among_them(tmp_path):
    for name in ("view1.png", "view2.png"):
        Pil.new("L", (4, 4)).save(tmp_path / name)
    uris = [f"/in/p{patient}/view1.png" for patient in range(3)] + ["/in/p0/view2.png"]
    folder = References.open(str(tmp_path)).among([*uris, uris[-1]])
    assert [folder.find(ImageRef(uri)) is None for uri in uris] == [True, True, True, False]
    (tmp_path / "index.csv").write_text(f"image,mask\n{uris[0]},{tmp_path}/view1.png\n")
    index = References.open(str(tmp_path))
    assert index.find(ImageRef(uris[1])) is not None  # it alone may have been moved
    listed = index.among(uris)
    assert [listed.find(ImageRef(uri)) is None for uri in uris] == [False, True, True, True]


def test_numbered_files_in_folders_of_equal_name_match_no_mask(tmp_path):
    mask = save(tmp_path / "brain" / "007.png", MASK)
    masks = References.open(str(tmp_path))
    uris = ["/in/p0/brain/007.png", "/in/p0/other/007.png", "/in/p1/brain/007.png"]
    assert [masks.among(uris).find(ImageRef(uri)) for uri in uris] == [None] * 3
    # Told by the folder alone.
    assert [masks.among(uris[:2]).find(ImageRef(uri)) for uri in uris[:2]] == [
        ImageRef(str(mask)),
        None,
    ]


def test_a_bad_location_or_index_is_named(tmp_path):
    with pytest.raises(InputError, match="gone does not exist"):
        References.open(str(tmp_path / "gone"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is neither a folder nor an index"):
        References.open(str(tmp_path / "file"))
    (tmp_path / "file").unlink()
    with pytest.raises(InputError, match="no mask found"):
        References.open(str(tmp_path))
    (tmp_path / "index.csv").write_text("image,file\na,b\n")
    with pytest.raises(InputError, match="no column 'mask'; its columns are image, file"):
        References.open(str(tmp_path))
    (tmp_path / "index.csv").write_text("image,mask\na.png,\n")
    with pytest.raises(InputError, match="a row without image or mask"):
        References.open(str(tmp_path))


def test_masks_as_people_save_them(tmp_path):
    rgb = save(tmp_path / "rgb.png", np.repeat(MASK[..., None], 3, axis=2))
    deep = save(tmp_path / "deep.png", MASK.astype(np.uint16) * 200)
    bits = save(tmp_path / "bits.png", MASK > 0)
    palette = Pil.fromarray(MASK % 3, "P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8])
    palette.save(tmp_path / "palette.png")
    masks = References({})
    np.testing.assert_array_equal(masks.load(ImageRef(str(rgb))), MASK)
    np.testing.assert_array_equal(masks.load(ImageRef(str(deep))), MASK.astype(int) * 200)
    np.testing.assert_array_equal(masks.load(ImageRef(str(bits))), MASK > 0)
    np.testing.assert_array_equal(masks.load(ImageRef(str(tmp_path / "palette.png"))), MASK % 3)


def test_masks_that_are_none(tmp_path):
    colour = save(tmp_path / "colour.png", np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    soft = save(tmp_path / "soft.tif", np.full((2, 3), 0.5, np.float32))
    (tmp_path / "text.png").write_text("x")
    for path, message in (
        (colour, "one whole number a pixel"),
        (soft, "float32"),
        (tmp_path / "text.png", "cannot be read"),
        (tmp_path / "gone.png", "does not exist"),
    ):
        with pytest.raises(ImageError, match=message):
            References({}).load(ImageRef(str(path)))


def test_a_label_volume_is_cut_as_its_image_is(tmp_path):
    values = np.zeros((4, 5, 6), np.uint8)
    values[3, 0, 2] = 2  # right, behind, third from below
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    masks = References.open(str(tmp_path))
    mask = masks.find(ImageRef("/in/a.nii", 0)).uri
    for axis, index, pixel in (
        ("axial", 2, (4, 0)),
        ("coronal", 0, (3, 0)),
        ("sagittal", 3, (3, 4)),
    ):
        ids = masks.load(ImageRef(mask, index), ImageConfig(axis=axis))
        assert np.argwhere(ids).tolist() == [list(pixel)]
        assert ids[pixel] == 2
        other = ImageRef(mask, index + 1 if index < 3 else 0)
        assert not masks.load(other, ImageConfig(axis=axis)).any()
    with pytest.raises(ImageError, match="has 6 axial slices, slice 6 is wanted"):
        masks.load(ImageRef(mask, 6))


def test_a_mask_volume_that_is_not_on_its_images_grid_is_refused(tmp_path):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), affine), tmp_path / "a.nii")
    masks = References.open(str(tmp_path))
    mask = masks.find(ImageRef("/in/a.nii.gz", 5))
    assert masks.load(mask, count=6, spacing=(3.0, 2.0)).all()
    with pytest.raises(ImageError, match="has 6 axial slices, its image 7"):
        masks.load(mask, count=7)
    with pytest.raises(ImageError, match="pixels of 3 x 2 mm, but its image of 1 x 1 mm"):
        masks.load(mask, count=6, spacing=(1.0, 1.0))
    with pytest.raises(ImageError, match="has 6 axial slices, its image 1"):
        masks.load(ImageRef(mask.uri))
    with pytest.raises(ImageError, match="is NIfTI, but its image is not"):
        masks.find(ImageRef("/in/a.dcm", 5))


def test_each_slice_may_have_a_mask_of_its_own(tmp_path):
    for name in ("brain/007.png", "other/007.png", "head_12.png", "head_13.png"):
        save(tmp_path / name, MASK)
    masks = References.open(str(tmp_path))
    for image, index, mask in (
        ("brain.nii.gz", 7, "brain/007.png"),
        ("other.dcm", 7, "other/007.png"),
        ("head.tif", 12, "head_12.png"),
    ):
        where = masks.find(ImageRef(f"/in/{image}", index))
        assert where == ImageRef(str(tmp_path / mask))
        np.testing.assert_array_equal(masks.load(where), MASK)
    assert masks.find(ImageRef("/in/brain.nii.gz", 8)) is None
    # Which of the two an image of that name alone means is not known; its folder says it.
    assert masks.find(ImageRef("/in/007.png")) is None
    assert masks.find(ImageRef("/in/other/007.png")) == ImageRef(str(tmp_path / "other/007.png"))
    assert masks.find(ImageRef("/in/head_13.png")) == ImageRef(str(tmp_path / "head_13.png"))


def test_pages_are_masked_by_pages(tmp_path):
    pages = [Pil.fromarray(MASK * n) for n in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "b.png", MASK)
    masks = References.open(str(tmp_path))
    ids = masks.load(masks.find(ImageRef("/in/a.tiff", 2)), count=3)
    np.testing.assert_array_equal(ids, MASK * 2)
    with pytest.raises(ImageError, match="has 1 page, its image 3"):
        masks.load(masks.find(ImageRef("/in/b.tif", 2)), count=3)


def test_a_label_volume_of_fractions_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((2, 2, 2), 0.4), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match="fractions"):
        References({}).load(ImageRef(str(tmp_path / "a.nii"), 0))


@pytest.mark.parametrize("location", ["keyless://b/masks", "keyless://b/index.csv"])
def test_a_store_that_does_not_answer_is_one_line(keyless, location):
    with pytest.raises(InputError, match=r"reference keyless://b/.* cannot be read: Unable to"):
        References.open(location)


def test_no_message_shows_a_signature(tmp_path, monkeypatch):
    signed = "https://h/{}?Signature=hush"
    volume = nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)).to_bytes()
    colour = io.BytesIO()
    Pil.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(colour, "PNG")
    files = {"a.nii": volume, "b.png": b"none", "c.png": colour.getvalue()}
    by_uri = {signed.format(name): data for name, data in files.items()}
    monkeypatch.setattr(
        references, "fetch_all", lambda uris, *_, **__: [by_uri[uri] for uri in uris]
    )
    masks = References({"a": signed.format("a.nii")})
    mask = ImageRef(signed.format("a.nii"), 1)
    (tmp_path / "index.csv").write_text(f"image,mask\n{signed.format('x.png')},\n")
    (tmp_path / "bad.csv").write_text(f"image,mask\na,{signed.format('x.png')},b\n")
    for ask in (
        lambda: masks.find(ImageRef("/in/a.png", 1)),
        lambda: masks.load(mask, count=7),
        lambda: masks.load(ImageRef(mask.uri, 9)),
        lambda: masks.load(mask, spacing=(2.0, 1.0)),
        lambda: masks.load(ImageRef(signed.format("b.png"))),
        lambda: masks.load(ImageRef(signed.format("c.png"))),
        lambda: References.open(str(tmp_path)),
        lambda: References.open(str(tmp_path / "bad.csv")),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert "hush" not in str(caught.value)


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Pil.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


BINARY = np.where(np.add.outer(np.arange(40), np.arange(50)) % 23 < 11, 255, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        ("a.jpg", "JPEG", {"quality": 100}, "a.jpg is JPEG, which changes values"),
        ("a.png", "JPEG", {}, "is JPEG, which changes values"),
        ("a.webp", "WEBP", {"quality": 100}, "is lossy WebP, which changes values"),
        (
            "a.tif",
            "TIFF",
            {"compression": "jpeg"},
            "is TIFF with a lossy compression, which changes",
        ),
    ],
)
def test_a_mask_of_a_lossy_format_is_refused(tmp_path, name, kind, options, message):
    (tmp_path / name).write_bytes(encoded(BINARY, kind, **options))
    masks = References.open(str(tmp_path))
    with pytest.raises(ImageError, match=f"{message}.* save masks as PNG"):
        masks.load(masks.find(ImageRef("/in/a.png")))


def test_a_lossless_webp_mask_is_read(tmp_path):
    (tmp_path / "a.webp").write_bytes(encoded(BINARY, "WEBP", lossless=True))
    np.testing.assert_array_equal(References({}).load(ImageRef(str(tmp_path / "a.webp"))), BINARY)


@pytest.mark.parametrize("mask_form", ["NFC", "NFD"])
@pytest.mark.parametrize("image_form", ["NFC", "NFD"])
def test_names_match_in_either_form_of_unicode(tmp_path, mask_form, image_form):
    mask = unicodedata.normalize(mask_form, "M\u00fcller")
    image = unicodedata.normalize(image_form, "M\u00fcller")
    save(tmp_path / "m" / f"{mask}.png", MASK)
    save(tmp_path / "m" / f"{mask}_007.png", MASK)
    masks = References.open(str(tmp_path / "m")).among([f"/in/{image}.nii"])
    assert masks.find(ImageRef(f"/in/{image}.png")) is not None
    assert masks.find(ImageRef(f"/in/{image}.nii", 7)).index is None
    (tmp_path / "index.csv").write_text(f"image,mask\n/in/{mask}.png,/m/1.png\n")
    index = References.open(str(tmp_path))
    assert index.find(ImageRef(f"/in/{image}.png")) == ImageRef("/m/1.png")
    both = [f"/in/{name}/M\u00fcller.png" for name in "ab"]
    shared = References.open(str(tmp_path / "m")).among(
        [both[0], unicodedata.normalize("NFD", both[1])]
    )
    assert shared.find(ImageRef(both[0])) is None


def test_images_that_share_a_name_have_a_reason(tmp_path):
    save(tmp_path / "view1.png", MASK)
    save(tmp_path / "brain" / "007.png", MASK)
    uris = [
        f"/in/p{patient}/{name}" for patient in (1, 2) for name in ("view1.png", "brain/007.png")
    ]
    masks = References.open(str(tmp_path)).among([*uris, "/in/p1/other.png"])
    for uri in uris:
        assert masks.find(ImageRef(uri)) is None
        reason = masks.ambiguity(ImageRef(uri))
        assert reason.startswith("2 images have the name of one reference mask: list whole paths")
        assert "view1" not in reason  # the name may be a patient's
    assert masks.ambiguity(ImageRef("/in/p1/other.png")) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32, np.uint64])
def test_whole_numbers_of_any_type_are_class_ids(tmp_path, dtype):
    (tmp_path / "a.tif").write_bytes(tiff(MASK.astype(dtype)))
    np.testing.assert_array_equal(References({}).load(ImageRef(str(tmp_path / "a.tif"))), MASK)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.full((4, 4), 2**32 - 1, np.uint32), {}, "beyond 32 bits"),
        (np.full((4, 4), np.nan, np.float32), {}, "one whole number a pixel"),
        (np.ones((4, 4), np.uint16), {"photometric": 0}, "WhiteIsZero with more than 8 bits"),
        (np.arange(32, dtype=np.uint8).reshape(4, 4, 2), {"tags": {338: (3, [2])}}, "transparent"),
    ],
)
def test_tiff_masks_that_are_none(tmp_path, array, options, message):
    (tmp_path / "a.tif").write_bytes(tiff(array, **options))
    with pytest.raises(ImageError, match=message):
        References({}).load(ImageRef(str(tmp_path / "a.tif")))


def test_a_mask_that_is_drawn_in_alpha_is_refused(tmp_path):
    layers = np.full((4, 4, 4), 255, np.uint8)
    layers[:2, :, 3] = 0
    save(tmp_path / "a.png", layers)
    with pytest.raises(ImageError, match="has transparent pixels"):
        References({}).load(ImageRef(str(tmp_path / "a.png")))
