"""Bulk zero-shot pseudo-labels for medical images: the SaLIP cascade of SAM and CLIP on Ray Data.

One image: ``Cascade(load_config("lungs"))(image)``. A folder or bucket:
``label(input, output, load_config("lungs"))``. Inside a Ray Data pipeline: ``label_dataset``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salip_ray.cascade.cascade import Cascade
    from salip_ray.config import load_config
    from salip_ray.pipeline import label, label_dataset

__all__ = ["Cascade", "label", "label_dataset", "load_config"]
__version__ = "0.1.0"

_HOMES = {
    "Cascade": "salip_ray.cascade.cascade",
    "label": "salip_ray.pipeline",
    "label_dataset": "salip_ray.pipeline",
    "load_config": "salip_ray.config",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: neither torch nor Ray should slow down `salip-ray --help`.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
