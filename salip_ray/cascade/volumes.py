"""Choose one label for each slice of a volume, so that neighbouring slices agree.

Every slice has a few possible labels of a class, and may show nothing of it. The best path through
the slices (Viterbi) has the highest sum of scores and of overlaps between neighbours. Where the
path leaves a few slices empty between two labelled ones, :func:`between` draws their masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from salip_ray.schema import Mask

Scores = npt.NDArray[np.float64]


def best_path(
    scores: Sequence[Scores],
    overlaps: Sequence[npt.NDArray[np.float64]],
    *,
    nothing: float,
    continuity: float,
) -> list[int | None]:
    """Return the possible label to choose on each slice, by its position; None is nothing.

    Of equal paths, the one with the earlier labels wins, and nothing comes last.

    Args:
        scores: of the possible labels of each slice, [n]; n may be 0.
        overlaps: Dice of the labels of each slice and those of the next, [n, n_next], one array
            less than slices.
        nothing: the score of showing nothing.
        continuity: the weight of an overlap. Two neighbours that show nothing overlap by 1; nothing
            and a label overlap by 0.

    Raises:
        ValueError: the number of overlaps does not fit.
    """
    if len(overlaps) != max(0, len(scores) - 1):
        raise ValueError(f"{len(scores)} slices need one overlap less, found {len(overlaps)}")
    if not scores:
        return []
    total = np.append(scores[0], nothing)
    came_from = []
    for overlap, own in zip(overlaps, scores[1:], strict=True):
        links = np.zeros((len(total), len(own) + 1))
        links[:-1, :-1], links[-1, -1] = overlap, 1.0
        sums = total[:, None] + continuity * links
        came_from.append(sums.argmax(axis=0))
        total = sums.max(axis=0) + np.append(own, nothing)
    path = [int(total.argmax())]
    for origins in reversed(came_from):
        path.append(int(origins[path[-1]]))
    path.reverse()
    return [None if at == len(own) else at for at, own in zip(path, scores, strict=True)]


def between(before: Mask, after: Mask, position: float) -> Mask:
    """Return the mask [H, W] between those of two slices, interpolated by their shape.

    The signed distance to the outline is interpolated; the mask is where it is positive.

    Args:
        before: not empty.
        after: not empty.
        position: from 0, at ``before``, to 1, at ``after``.
    """
    first, last = (_signed_distance(mask) for mask in (before, after))
    return np.asarray((1 - position) * first + position * last > 0)


def _signed_distance(mask: Mask) -> npt.NDArray[np.float64]:
    from scipy import ndimage  # every commit imports this module, and few interpolate

    inside, outside = (ndimage.distance_transform_edt(part) for part in (mask, ~mask))
    return np.asarray(inside - outside, np.float64)
