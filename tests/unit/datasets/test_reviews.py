"""What people decided is kept beside the labels."""

from __future__ import annotations

import resource

import pytest

from salip_ray.datasets.reviews import Decision, Reviews
from salip_ray.errors import OutputError

ACCEPTED = {f"{number:032x}": Decision("accepted") for number in range(500)}


def test_a_write_that_is_cut_short_loses_no_decision(output):
    Reviews.open(str(output)).save(ACCEPTED, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes of a file, as of a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot write .*reviews"):
            Reviews.open(str(output)).save({"f" * 32: Decision("rejected")}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Reviews.open(str(output)).decisions.keys() == ACCEPTED.keys()
