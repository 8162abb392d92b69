"""The job on Ray Data: the only room that knows Ray.

Nothing here imports torch: the driver, the fetch tasks and the commits do without it.
"""

from salip_ray.output.summary import Summary
from salip_ray.pipeline.dataset import label_dataset
from salip_ray.pipeline.job import label
from salip_ray.pipeline.retry import retry

__all__ = ["Summary", "label", "label_dataset", "retry"]
