"""The models that ship with the package, and the phantoms that they are trained on."""

from __future__ import annotations

from pathlib import Path

SAM_WEIGHTS = Path(__file__).parent / "sam.safetensors"
CLIP_WEIGHTS = Path(__file__).parent / "clip.safetensors"
