"""A trained student: its network, the classes it knows, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from salip_ray.errors import WeightsError
from salip_ray.output.masks import LabelMap
from salip_ray.schema import Image, Mask
from salip_ray.student.samples import label_map_of, square_input
from salip_ray.student.unet import make_net

_HEAD = "student"  # of the file's metadata


@dataclass(frozen=True)
class Student:
    """A trained net with what it needs to label an image.

    ``class_ids`` maps labels to their ids in label maps, in the order of the net's channels.
    """

    net: nn.Module
    class_ids: Mapping[str, int]
    size: int
    width: int

    @torch.inference_mode()
    def channels(self, image: Image) -> Tensor:
        """The most likely channel of each pixel, int64 [H, W] of the image's own size."""
        device = next(self.net.parameters()).device
        picture, (height, width) = square_input(image, self.size)
        logits = self.net(picture[None].to(device))[:, :, :height, :width]
        full = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
        return full[0].argmax(dim=0)

    def __call__(self, image: Image) -> dict[str, Mask]:
        """The mask [H, W] of each class in an image (uint8 RGB [H, W, 3])."""
        found = self.channels(image).cpu().numpy()
        return {label: found == channel for channel, label in enumerate(self.class_ids, start=1)}

    def label_map(self, image: Image) -> LabelMap:
        """Class ids [H, W] of an image, 0 for the background."""
        return label_map_of(self.channels(image).cpu().numpy(), list(self.class_ids.values()))

    def to_bytes(self) -> bytes:
        """The student as one safetensors file."""
        about = {"class_ids": dict(self.class_ids), "size": self.size, "width": self.width}
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
        return save(tensors, metadata={_HEAD: json.dumps(about)})

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the file") -> Student:
        """A student from its file, ready to label.

        Raises:
            WeightsError: the file is not one of :meth:`to_bytes`.
        """
        try:
            length = int.from_bytes(data[:8], "little")
            about: dict[str, Any] = json.loads(
                json.loads(data[8 : 8 + length])["__metadata__"][_HEAD]
            )
            net = make_net(len(about["class_ids"]), about["width"])
            net.load_state_dict(load(data))
        except Exception as error:  # noqa: BLE001  (safetensors and torch raise what they like)
            said = " ".join(str(error).split())
            raise WeightsError(f"{name} is not a trained student: {said}") from None
        return cls(net.eval(), about["class_ids"], about["size"], about["width"])
