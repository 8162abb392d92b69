"""Reviews by people: a page to decide on labels, the file that it saves, and its import.

The page is one HTML file (:mod:`salip_ray.review.page`). It saves one JSON file
(:mod:`salip_ray.review.decision_file`), which :mod:`salip_ray.review.importing` brings into the
output. The folder of masks and its ``queue.csv`` are in
:mod:`salip_ray.datasets.exports.review`.
"""
