"""Prompts and candidates that exist already: read them, and find those of an image."""

from salip_ray.sources.prompts.collection import Prompts
from salip_ray.sources.prompts.placing import boxes_in_image, require_memory

__all__ = ["Prompts", "boxes_in_image", "require_memory"]
