"""Check what a model of another package returns.

Anything that no image can explain (a wrong shape, NaN) is a :class:`~salip_ray.errors.ModelError`,
which a job records in the row.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salip_ray.errors import ModelError
from salip_ray.schema import Size

Array: TypeAlias = npt.NDArray[Any]


class OwnModel:
    """What the three kinds share: a name for messages, and batches, if the model has any."""

    def __init__(self, model: Any, name: str | None, batch_size: int) -> None:
        self.model = model
        self.name = name or type(model).__name__
        self.has_batches = hasattr(model, "set_batch_size")
        self.embedding: str | None = getattr(model, "embedding", None)
        self.set_batch_size(batch_size)

    def set_batch_size(self, size: int) -> None:
        """Let the model process ``size`` items at a time, if it has batches."""
        if self.has_batches:
            self.model.set_batch_size(size)

    def fail(self, problem: str) -> ModelError:
        """Return the error for an unusable result."""
        return ModelError(f"{self.name} {problem}")

    def array(self, values: Any, what: str, shape: tuple[int | None, ...]) -> Array:
        """Return values as an array of a shape, of which None is any number.

        Raises:
            ModelError: the shape is another one.
        """
        array = as_array(values)
        if array.ndim != len(shape) or any(
            wanted not in (None, side) for side, wanted in zip(array.shape, shape, strict=True)
        ):
            wanted = ", ".join("n" if side is None else str(side) for side in shape)
            raise self.fail(f"returned {what} of shape {list(array.shape)}, expected [{wanted}]")
        return array

    def numbers(self, values: Any, what: str, shape: tuple[int | None, ...]) -> Array:
        """Return values as a finite float32 array.

        Raises:
            ModelError: the shape is another one, or a value is NaN or infinite.
        """
        array = self.array(values, what, shape)
        try:
            array = array.astype(np.float32)  # as the columns between actors
        except (TypeError, ValueError):
            raise self.fail(f"returned {what} that are not numbers ({array.dtype})") from None
        if not np.isfinite(array).all():
            raise self.fail(f"returned {what} with NaN or infinite values")
        return array

    def masks(self, values: Any, count: int | None, size: Size) -> npt.NDArray[np.bool_]:
        """Return masks as bool [n, H, W].

        Raises:
            ModelError: the shape is another one, or a value is neither 0 nor 1.
        """
        array = self.array(values, "masks", (count, *size))
        if array.dtype != np.bool_:
            if not np.isin(array, (0, 1)).all():
                raise self.fail(
                    f"returned masks of {array.dtype} with other values than 0 and 1: apply the "
                    "threshold in the model"
                )
            array = array.astype(np.bool_)
        return array


def as_array(values: Any) -> Array:
    """Return an array, tensor, or list of either as an array on the CPU."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:  # unknown to NumPy
            values = values.float()
        return np.asarray(values.numpy())
    if isinstance(values, list | tuple) and any(isinstance(value, Tensor) for value in values):
        return np.stack([as_array(value) for value in values])
    return np.asarray(values)
