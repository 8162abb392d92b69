"""Names of files that stay out of outputs."""

from __future__ import annotations

import re

import nibabel
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import PrivacyConfig
from salip_ray.errors import ImageError
from salip_ray.rows import Picture
from salip_ray.sources.privacy import hides_uri, is_pseudonym, pseudonym, scrub
from salip_ray.sources.references import References


@pytest.mark.parametrize(
    ("uri", "hidden"),
    [
        ("/in/doe_jane/1.dcm", True),
        ("s3://b/IM00001", True),
        ("/in/1.2.840.113619.2", True),
        ("/in/a.png", False),
        ("/in/sub-01_T1w.nii.gz", False),
    ],
)
def test_dicom_is_hidden_by_default(uri, hidden):
    assert hides_uri(uri, PrivacyConfig()) is hidden
    assert hides_uri(uri, PrivacyConfig(hash_uris=True))
    assert not hides_uri(uri, PrivacyConfig(hash_uris=False))


def test_messages_lose_every_path():
    said = "s3://b/doe jane/x.dcm does not exist; mask /m/doe.png or https://h/doe?x=1 is bad"
    assert scrub(said, ("s3://b/doe jane/x.dcm", None), pseudonym("ab")) == (
        "id:ab does not exist; mask ... or ... is bad"
    )


def test_a_pseudonym_is_known_as_one():
    assert is_pseudonym(pseudonym("ab"))
    assert not is_pseudonym("s3://b/k")


NAMES = re.compile("Doe|John|nii|png|refs")


@pytest.mark.parametrize(
    "said",
    [
        "reference mask {} has 30 axial slices, its image 29",
        "reference mask {} has 2 pages, slice 6 is wanted",
        "reference mask {} has 30 x 40 pixels, its image 30 x 41",
        "reference mask: {} does not exist",
        "reference mask: access to {} was refused",
        "reference mask: {} could not be fetched: OSError: ",
        "reference mask: {} could not be fetched: HTTP 403",
        "reference mask {} cannot be read",
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/refs/Doe John/ct.nii.gz",
        "s3://refs/a/John has 3 Doe.png",
        "https://h/John is a folder/Doe",
    ],
)
def test_no_part_of_a_masks_path_is_left_and_what_is_wrong_with_it_is(said, path):
    scrubbed = scrub(said.format(path), (), "id:ab")
    assert not NAMES.search(scrubbed)
    assert scrubbed.endswith(said.partition("{}")[2].removesuffix(": "))


def test_of_a_message_that_is_not_known_no_part_is_left():
    for said in (
        "reference mask /refs/Doe John/Doe John 7.nii puzzles Doe",
        "reference mask: /refs/Doe J could not be fetched: OSError: Doe John/7.nii is gone",
        "reference mask /refs/Doe J/1.png cannot be read: no image in John Doe",
    ):
        assert not NAMES.search(scrub(said, (), "id:ab"))


def test_the_messages_are_those_that_are_raised(tmp_path):
    folder = tmp_path / "Doe John"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), folder / "Doe a.nii")
    (folder / "Doe b.png").write_text("x")
    Pil.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(folder / "Doe c.png")
    found = References.open(str(folder))
    volume = Picture(str(folder / "Doe a.nii"), 1)
    for ask, kept in (
        (lambda: found.load(volume, count=7), "has 6 axial slices, its image 7"),
        (lambda: found.load(Picture(volume.uri, 9)), "has 6 axial slices, slice 9 is wanted"),
        (
            lambda: found.load(volume, spacing=(2.5, 1.0)),
            "pixels of 1 x 1 mm, but its image of 2.5",
        ),
        (lambda: found.find(Picture("/in/Doe a.png", 1)), "is NIfTI, but its image is not"),
        (lambda: found.load(Picture(str(folder / "Doe b.png"))), "cannot be read"),
        (lambda: found.load(Picture(str(folder / "Doe c.png"))), "found uint8 of shape [2, 3, 3]"),
        (lambda: found.load(Picture(str(folder / "Doe d.png"))), "does not exist"),
        (lambda: found.load(Picture(str(folder))), "is a folder"),
    ):
        with pytest.raises(ImageError) as caught:
            ask()
        assert "Doe" in str(caught.value)
        scrubbed = scrub(str(caught.value), (), "id:ab")
        assert kept in scrubbed
        assert not NAMES.search(scrubbed)
