"""The models: which SAM and which CLIP, where their weights come from, and the bundled ones."""
