"""Prompts of images that exist already, for SAM: read them, and find those of an image."""

from salip_ray.sources.prompts.collection import Prompts
from salip_ray.sources.prompts.placing import boxes_in_image

__all__ = ["Prompts", "boxes_in_image"]
