"""Outputs to review, and the page of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.review.page import make_page
from salip_ray.review.selection import choose
from tests.unit.datasets.conftest import draw
from tests.unit.datasets.conftest import write_output as write_thorax


@pytest.fixture
def thorax(tmp_path: Path) -> Path:
    """Six images with lung and heart, of sizes that differ, one empty image and one error row."""
    return write_thorax(tmp_path)


@pytest.fixture
def write_page(tmp_path: Path):
    """Write the review page of an output; return its file and the images in its order."""

    def write(output, *, limit=200, **options):
        labels = PseudoLabels(str(output), negatives=True, **options)
        entries = choose(labels, limit)
        file = tmp_path / "review.html"
        file.write_bytes(make_page(labels, entries, "thorax").data)
        return file, entries

    return write


@pytest.fixture
def scene():
    """The picture and class masks of an image of the thorax, by its index."""
    return draw
