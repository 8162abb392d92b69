"""Round trips with labelling tools: one module per tool.

``export`` writes images and labels as the tool imports them. ``read`` returns the decisions in what
the tool saved, which :mod:`salip_ray.review.importing` brings into the output. To add a tool, copy
:mod:`salip_ray.review.tools.fiftyone`, and enter it in :mod:`salip_ray.review.importing` and
``salip_ray/cli/export.py``.
"""
