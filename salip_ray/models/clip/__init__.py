"""CLIP: weights by open_clip, and its image transform."""
