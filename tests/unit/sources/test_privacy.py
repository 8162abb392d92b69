"""Names of files that stay out of outputs."""

from __future__ import annotations

import re

import fsspec
import nibabel
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import PrivacyConfig, load_config
from salip_ray.errors import ImageError, InputError
from salip_ray.schema import ImageRef
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import public_uri
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
    message = "s3://b/doe jane/x.dcm does not exist; mask /m/doe.png or https://h/doe?x=1 is bad"
    assert scrub(message, ("s3://b/doe jane/x.dcm", None), pseudonym("ab")) == (
        "id:ab does not exist; mask ... or ... is bad"
    )


def test_a_pseudonym_is_known_as_one():
    assert is_pseudonym(pseudonym("ab"))
    assert not is_pseudonym("s3://b/k")


NAMES = re.compile("Doe|John|nii|png|refs")


@pytest.mark.parametrize(
    "path",
    [
        "/refs/Doe John/ct.nii.gz",
        "s3://refs/a/John has 3 Doe.png",
        "https://h/John is a folder/Doe?X-Amz-Signature=1",
    ],
)
def test_scrub_removes_path_of_mask_and_retains_its_problem(path):
    for wrong in ("has 30 axial slices, its image 29", "cannot be read: no image in it"):
        for shown in (path, public_uri(path)):
            scrubbed = scrub(f"reference mask {shown} {wrong}", (path,), "id:ab")
            assert scrubbed == f"reference mask id:ab {wrong}"
    assert not NAMES.search(scrub(f"{path.rpartition('/')[2]} is odd", (path,), "id:ab"))


def test_messages_about_masks_lose_their_names(tmp_path):
    folder = tmp_path / "Doe John"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), folder / "Doe a.nii")
    (folder / "Doe b.png").write_text("x")
    Pil.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(folder / "Doe c.png")
    masks = References.open(str(folder))
    a, b, c, d = (
        str(folder / name) for name in ("Doe a.nii", "Doe b.png", "Doe c.png", "Doe d.png")
    )
    volume = ImageRef(a, 1)
    for mask, ask, remaining in (
        (a, lambda: masks.load(volume, count=7), "has 6 axial slices, its image 7"),
        (a, lambda: masks.load(ImageRef(a, 9)), "has 6 axial slices, slice 9 is wanted"),
        (a, lambda: masks.load(volume, spacing=(2.5, 1.0)), "1 x 1 mm, but its image of 2.5"),
        (a, lambda: masks.find(ImageRef("/in/Doe a.png", 1)), "is NIfTI, but its image is not"),
        (b, lambda: masks.load(ImageRef(b)), "cannot be read"),
        (c, lambda: masks.load(ImageRef(c)), "found uint8 of shape [2, 3, 3]"),
        (d, lambda: masks.load(ImageRef(d)), "does not exist"),
        (str(folder), lambda: masks.load(ImageRef(str(folder))), "is a folder"),
    ):
        with pytest.raises(ImageError) as caught:
            ask()
        assert "Doe" in str(caught.value)
        scrubbed = scrub(str(caught.value), (mask,), "id:ab")
        assert remaining in scrubbed
        assert not NAMES.search(scrubbed)
    assert masks.named(ImageRef("/in/Doe a.png", 1)) == volume
    assert masks.named(ImageRef("/in/other.png")) is None


@pytest.mark.parametrize(
    ("name", "privacy", "shown"),
    [
        ("IM_doe", PrivacyConfig(), False),
        ("IM_doe", PrivacyConfig(hash_uris=False), True),
    ],
)
def test_a_failing_store_names_no_patient_while_listing(sick, name, privacy, shown):
    fsspec.filesystem("sick").pipe_file(f"/in/doe_jane/{name}", bytes(200))
    sick.failures = {name: [ConnectionError(f"503 for /in/doe_jane/{name}")] * 9}
    with pytest.raises(InputError) as caught:
        list_images("sick:///in", privacy=privacy)
    assert ("doe" in str(caught.value)) is shown
    assert "cannot be read" in str(caught.value)


def test_a_failing_store_names_no_patient_while_heads_are_read(sick):
    fsspec.filesystem("sick").pipe_file("/in/doe_jane/1.nii", bytes(400))
    listing = list_images("sick:///in")
    config = load_config(
        {"task": {"name": "t", "prompts": {"a": ["a"]}}}, overrides=["privacy.hash_uris=true"]
    )
    for privacy, shown in ((config.privacy, False), (PrivacyConfig(), True)):
        sick.failures = {"1.nii": [ConnectionError("503 for /in/doe_jane/1.nii")] * 9}
        with pytest.raises(InputError) as caught:
            expand(listing, config.model_copy(update={"privacy": privacy}))
        assert ("doe" in str(caught.value)) is shown
