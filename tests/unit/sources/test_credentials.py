"""No secret of an address is in its public URI or in a message, and ids stay what they were."""

from __future__ import annotations

import pytest

from salip_ray.sources.locations import image_id, public_uri
from salip_ray.sources.stores import describe_error

SECRET = "hush123"


@pytest.mark.parametrize(
    "address",
    [
        "https://h/a.png?token=hush123",
        "https://h/a.png?access_token=hush123&x=1",
        "https://h/a.png?api_key=hush123",
        "https://h/a.png?auth=hush123",
        "https://h/a.png?jwt=hush123",
        "https://h/a.png?hush123",
        "https://h/a.png?anything=hush123",
        "https://h/a.png?name=/b.png%3Ftoken%3Dhush123",
        "https://h/a.png?v=1;token=hush123",
        "https://h/a.png#token=hush123",
        "https://h/a.png?v=1#hush123",
        "https://h/a.png?%73ig=hush123",
        "https://h/a.png?Sig%6eature=hush123",
        "https://h/a.png?sig%3Dhush123",
        "https://h/a.png?%2573ig=hush123",
        "https://h/a.png;jsessionid=hush123",
        "https://h/a.png?X-Amz-Security-Token=hush123",
        "https://h/a.png?X-OSS-Signature=hush123",
        "https://user:hush123@h/a.png",
        "https://hush123@h/a.png?id=1",
        "HTTPS://h/a.png?token=hush123",
        "az://c/a.png?sv=1&sig=hush123",
        "abfs://c@account.dfs/a.png?sig=hush123",
        "s3://b/a.png?X-Amz-Signature=hush123",
        "gs://b/a.png?x-goog-signature=hush123",
        "sftp://user:hush123@h/a.png",
        "zip://a.png::https://h/x.zip?token=hush123",
        "zip://a.png::tar://x.zip::https://u:hush123@h/x.tar",
        "simplecache::https://h/a.png?token=hush123",
        "filecache::s3://b/a.png?X-Amz-Signature=hush123",
        "zip://a.png::simplecache::https://h/x.zip?sig=hush123",
    ],
)
def test_no_secret_is_in_a_public_uri_or_a_message(address):
    assert SECRET not in public_uri(address)
    assert public_uri(public_uri(address)) == public_uri(address)
    for text in (f"cannot open {address} now", f"URL('{address}') is bad"):
        assert SECRET not in describe_error(OSError(text), address)
        assert SECRET not in describe_error(OSError(text))


@pytest.mark.parametrize(
    "uri",
    [
        "https://h/a.png?versionId=7",
        "https://h/wado?requestType=WADO&studyUID=1.2&seriesUID=1.3&objectUID=1.4",
        "https://h/get?id=YWJj==&page=3",
        "s3://b/what?it=is.png",
        "s3://b/what?sig=is.png",
        "s3://b/IM?1",
        "s3://b/a.png?versionId=7",
        "/in/a.png?token=1",
        "zip://a?b=c.png::/x.zip",
        "abfs://c@account.dfs/a.png",
    ],
)
def test_query_that_identifies_object_is_retained(uri):
    assert public_uri(uri) == uri


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Date=1&X-Amz-Expires=9&X-Amz-Signature=s",
        "AWSAccessKeyId=A&Signature=b%3D&Expires=1",
        "X-Goog-Algorithm=a&X-Goog-Signature=1&X-Goog-Date=2",
        "GoogleAccessId=a&Expires=1&Signature=b",
        "sv=1&st=2&se=3&sr=b&sp=r&spr=https&sig=abc%2F",
        "Policy=p&Signature=s&Key-Pair-Id=K",
    ],
)
def test_a_signed_address_has_the_id_of_the_unsigned_one(query):
    assert image_id(public_uri(f"https://h/a.png?{query}")) == image_id("https://h/a.png")


def test_objects_that_differ_in_an_unknown_parameter_keep_different_ids():
    uris = {public_uri(f"https://h/get?item={n}") for n in range(3)}
    assert len(uris) == 3
    assert not any(f"item={n}" in uri for n, uri in enumerate(sorted(uris)))
    renewed = {public_uri(f"https://h/get?id=1&access_token={n}") for n in range(3)}
    assert renewed == {"https://h/get?id=1"}
