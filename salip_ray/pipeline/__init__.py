"""The job on Ray Data.

Nothing here imports torch: the driver, the fetch tasks and the commits do not need it.
"""

from salip_ray.output.summary import Summary
from salip_ray.pipeline.dataset import label_dataset
from salip_ray.pipeline.job import label
from salip_ray.pipeline.retry import retry

__all__ = ["Summary", "label", "label_dataset", "retry"]
