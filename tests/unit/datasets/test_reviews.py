"""Decisions are stored next to the labels."""

from __future__ import annotations

import resource

import pytest

from salip_ray.datasets.reviews import Decision, Reviews
from salip_ray.errors import OutputError
from salip_ray.output.reader import LabelOutput
from tests.unit.datasets.conftest import save_decisions

ACCEPTED = {f"{number:032x}": Decision("accepted") for number in range(500)}


def test_interrupted_write_loses_no_decision(output):
    save_decisions(output, ACCEPTED)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes of a file, as of a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot write .*reviews"):
            save_decisions(output, {"f" * 32: Decision("rejected")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Reviews.of(LabelOutput.open(str(output))).decisions.keys() == ACCEPTED.keys()
