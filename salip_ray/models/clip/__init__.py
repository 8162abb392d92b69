"""CLIP by open_clip: find its weights, load it, and prepare its images."""
