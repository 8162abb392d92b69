"""Files that give viewers of label volumes the names and colours of the classes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from salip_ray.datasets.exports import palette

#: ITK-SNAP: Segmentation > Import Label Descriptions.
ITKSNAP = "labels.itksnap.txt"
#: 3D Slicer: add it with the volumes, and choose it as their colour table.
SLICER = "labels.ctbl"


def itksnap_labels(names: Mapping[int, str]) -> str:
    """Return a label description file of ITK-SNAP.

    Args:
        names: of the values above 0.
    """
    head = "# index, red, green, blue, opacity, visible, in meshes, name\n"
    lines = ['0 0 0 0 0 0 0 "Clear Label"']
    for value, name in names.items():
        red, green, blue = colour_of(value)
        text = re.sub(r'["\x00-\x1f]', "_", name)
        lines.append(f'{value} {red} {green} {blue} 1 1 1 "{text}"')
    return head + "\n".join(lines) + "\n"


def slicer_colours(names: Mapping[int, str]) -> str:
    """Return a colour table of 3D Slicer, which shows an underscore as a space.

    Args:
        names: of the values above 0.
    """
    lines = ["# value name red green blue alpha", "0 background 0 0 0 0"]
    for value, name in names.items():
        red, green, blue = colour_of(value)
        text = re.sub(r"\s+", "_", name)
        lines.append(f"{value} {text} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def colour_of(value: int) -> palette.Colour:
    """Return the colour of a class id, or of pixels to ignore."""
    return palette.colours()[min(value, palette.IGNORE)]
