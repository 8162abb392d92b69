"""The job on Ray Data.

Nothing here imports torch: the driver, the fetch tasks and the commits do not need it. A worker
imports the modules that its actor or task needs, so the functions below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salip_ray.output.summary import Summary
    from salip_ray.pipeline.dataset import label_dataset
    from salip_ray.pipeline.job import label
    from salip_ray.pipeline.retry_errors import retry

__all__ = ["Summary", "label", "label_dataset", "retry"]

_MODULES = {
    "Summary": "salip_ray.output.summary",
    "label": "salip_ray.pipeline.job",
    "label_dataset": "salip_ray.pipeline.dataset",
    "retry": "salip_ray.pipeline.retry_errors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access finds it without this function
    return value
