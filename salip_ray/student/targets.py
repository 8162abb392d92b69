"""What a network is to say of each pixel: a channel, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from salip_ray.output.masks import LabelMap, label_dtype

IGNORED = -1
"""The target of a pixel that the loss ignores."""

Target = npt.NDArray[np.int16]  #: channel of each pixel [h, w]: 0 background, or IGNORED


def channels(class_ids: Sequence[int], ignore_index: int) -> Target:
    """Return a table from the values of a label map to channels: 0, then the classes in order.

    Classes that are not learnt become background.
    """
    table: Target = np.zeros(ignore_index + 1, np.int16)
    for channel, class_id in enumerate(class_ids, start=1):
        table[class_id] = channel
    table[ignore_index] = IGNORED
    return table


def label_map_of(channel_map: npt.NDArray[np.integer[Any]], class_ids: Sequence[int]) -> LabelMap:
    """Return the class ids of the network's channels [h, w]."""
    table = np.array([0, *class_ids])
    return table[channel_map].astype(label_dtype(int(table.max())))  # type: ignore[no-any-return]
