"""CLIP's inference transform on CLIP's device.

open_clip prepares one PIL image at a time on a CPU: resize, centre crop or padding, normalise. Here
a resize is two matrix products with the weights of Pillow's antialiased filters. Pillow also rounds
and clips between the two, so single pixels at sharp edges differ by some grey levels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import CenterCropOrPad, ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from salip_ray.schema import Image

_Weights: TypeAlias = npt.NDArray[np.float64]
_Filter: TypeAlias = Callable[[_Weights], _Weights]


class _ResizeToOnePixelOrMore(ResizeKeepRatio):  # type: ignore[misc]  # open_clip is untyped there
    """Resize, but no side to less than one pixel."""

    @staticmethod
    def get_params(*args: Any, **kwargs: Any) -> list[int]:
        """Return the height and width to resize to."""
        return [max(1, side) for side in ResizeKeepRatio.get_params(*args, **kwargs)]


def accept_thin_images(transform: Any) -> Any:
    """Return open_clip's inference transform, changed to accept images of any shape.

    If open_clip fits the longer side, it rounds the shorter side of a thin image down to 0, which
    Pillow refuses. Other images are not affected.
    """
    if not isinstance(transform, Compose):
        return transform
    steps = []
    for step in transform.transforms:
        if isinstance(step, ResizeKeepRatio):
            step = _ResizeToOnePixelOrMore(step.size, step.longest, step.interpolation)
        steps.append(step)
    return Compose(steps)


@dataclass(frozen=True)
class DeviceTransform:
    """Resize pictures to ``size`` x ``size`` and normalise them.

    Attributes:
        size: side of the model's input, pixels.
        longest: fit the longer side and pad the shorter with ``fill``; else fit the shorter side
            and cut the ends of the longer.
        filter: ``"bicubic"`` or ``"bilinear"``, as Pillow's.
        mean: of each channel, of values between 0 and 1.
        std: likewise.
        fill: grey level of the padding.
    """

    size: int
    longest: bool
    filter: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill: int = 0

    @staticmethod
    def like(transform: Any) -> DeviceTransform | None:
        """Return the equivalent of a transform of open_clip, or None if there is none."""
        steps = list(transform.transforms) if isinstance(transform, Compose) else []
        resize = next((s for s in steps if isinstance(s, Resize | ResizeKeepRatio)), None)
        crop = next((s for s in steps if isinstance(s, CenterCrop | CenterCropOrPad)), None)
        normalize = next((s for s in steps if isinstance(s, Normalize)), None)
        kinds = {InterpolationMode.BICUBIC: "bicubic", InterpolationMode.BILINEAR: "bilinear"}
        if resize is None or crop is None or normalize is None:
            return None
        longest = isinstance(resize, ResizeKeepRatio)
        if longest and resize.longest != 1:
            return None
        size, target = crop.size, resize.size
        if not isinstance(target, int):
            target = max(target)
        if size[0] != size[1] or size[0] != target or resize.interpolation not in kinds:
            return None
        return DeviceTransform(
            size=target,
            longest=longest,
            filter=kinds[resize.interpolation],
            mean=tuple(float(m) for m in normalize.mean),
            std=tuple(float(s) for s in normalize.std),
            fill=int(getattr(crop, "fill", 0)) if longest else 0,
        )

    def __call__(self, pictures: Sequence[Image], device: torch.device) -> Tensor:
        """Transform uint8 RGB arrays [h, w, 3] of any size: float32 [n, 3, size, size]."""
        out = torch.empty(len(pictures), 3, self.size, self.size, device=device)
        for index, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            rows, columns = (m.to(device) for m in self._sides(height, width))
            pixels = torch.as_tensor(np.ascontiguousarray(picture), device=device)
            planes = pixels.permute(2, 0, 1).float()
            resized = (rows @ planes @ columns.T).round_().clamp_(0, 255)
            top, left = (self.size - rows.shape[0]) // 2, (self.size - columns.shape[0]) // 2
            if resized.shape[1:] != (self.size, self.size):
                out[index] = self.fill
            out[index, :, top : top + rows.shape[0], left : left + columns.shape[0]] = resized
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (self.mean, self.std))
        return out.div_(255).sub_(mean).div_(std)

    def _sides(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the resize of rows and of columns, as matrices of at most ``size`` rows."""
        if self.longest:
            scale = self.size / max(height, width)
            sides = [(n, max(1, round(n * scale))) for n in (height, width)]
        else:
            short = min(height, width)
            sides = [
                (n, self.size if n == short else int(self.size * n / short))
                for n in (height, width)
            ]
        matrices = []
        for before, after in sides:
            matrix = resize_matrix(before, after, self.filter)
            if after > self.size:
                start = round((after - self.size) / 2)
                matrix = matrix[start : start + self.size]
            matrices.append(matrix)
        return matrices[0], matrices[1]


@functools.lru_cache(maxsize=4096)
def resize_matrix(before: int, after: int, kind: str) -> Tensor:
    """Return Pillow's antialiased resize of one axis as a matrix [after, before]."""
    kernel, support = _FILTERS[kind]
    scale = before / after
    stretch = max(scale, 1.0)
    center = ((np.arange(after) + 0.5) * scale)[:, None]
    pixel = np.arange(before)[None]
    # Pillow rounds both ends of its window.
    first = np.maximum(0, np.trunc(center - support * stretch + 0.5))
    last = np.minimum(before, np.trunc(center + support * stretch + 0.5))
    weights = kernel(np.abs(pixel - center + 0.5) / stretch) * ((pixel >= first) & (pixel < last))
    return torch.as_tensor(weights / weights.sum(axis=1, keepdims=True), dtype=torch.float32)


def _bilinear(x: _Weights) -> _Weights:
    return np.maximum(0.0, 1.0 - x)


def _bicubic(x: _Weights) -> _Weights:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x * -0.5 + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS: dict[str, tuple[_Filter, float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
}
