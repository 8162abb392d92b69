"""Names of files that stay out of outputs."""

from __future__ import annotations

import pytest

from salip_ray.config import PrivacyConfig
from salip_ray.sources.privacy import hides_uri, is_pseudonym, pseudonym, scrub


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
