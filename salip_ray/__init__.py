"""Bulk zero-shot pseudo-labels for medical images: the SaLIP cascade of SAM and CLIP on Ray Data.

- One image, without Ray: ``Cascade(load_config("lungs"))(image)``.
- A folder or bucket: ``label(input, output, load_config("lungs"))``; then :func:`status`,
  :func:`verify`, :func:`retry` and :func:`evaluate` on the output.
- Inside of a Ray Data pipeline: :func:`label_dataset`.
- Labels as training data: :class:`PseudoLabels`.

Importing this package is light: torch and Ray are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from salip_ray.version import VERSION

if TYPE_CHECKING:
    from salip_ray.api import evaluate, status, verify
    from salip_ray.cascade.cascade import Cascade
    from salip_ray.cascade.interfaces import Instances, ModelContext, RefinedMasks
    from salip_ray.config import load_config
    from salip_ray.datasets.pseudo_labels import PseudoLabels
    from salip_ray.errors import (
        ClusterError,
        ConfigError,
        ImageError,
        InputError,
        JobError,
        LeaseError,
        MissingDependencyError,
        ModelError,
        NoJobError,
        OutputError,
        ResourceError,
        ResumeError,
        SalipError,
        StoreError,
        WeightsError,
    )
    from salip_ray.output.summary import Summary
    from salip_ray.pipeline import label, label_dataset, retry

__version__ = VERSION
__all__ = [
    "Cascade",
    "ClusterError",
    "ConfigError",
    "ImageError",
    "InputError",
    "Instances",
    "JobError",
    "LeaseError",
    "MissingDependencyError",
    "ModelContext",
    "ModelError",
    "NoJobError",
    "OutputError",
    "PseudoLabels",
    "RefinedMasks",
    "ResourceError",
    "ResumeError",
    "SalipError",
    "StoreError",
    "Summary",
    "WeightsError",
    "evaluate",
    "label",
    "label_dataset",
    "load_config",
    "retry",
    "status",
    "verify",
]

_MODULES = {
    "Cascade": "salip_ray.cascade.cascade",
    "Instances": "salip_ray.cascade.interfaces",
    "ModelContext": "salip_ray.cascade.interfaces",
    "PseudoLabels": "salip_ray.datasets.pseudo_labels",
    "RefinedMasks": "salip_ray.cascade.interfaces",
    "Summary": "salip_ray.output.summary",
    "evaluate": "salip_ray.api",
    "label": "salip_ray.pipeline",
    "label_dataset": "salip_ray.pipeline",
    "load_config": "salip_ray.config",
    "retry": "salip_ray.pipeline",
    "status": "salip_ray.api",
    "verify": "salip_ray.api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "salip_ray.errors")), name)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
