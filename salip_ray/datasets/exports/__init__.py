"""Labels in the formats that trainers and labelling tools read, one module per format.

Every export writes whole files, image by image. It skips files that exist, so a stopped export
resumes, and records in ``export.json`` what it is made of.

To add a format, copy :mod:`salip_ray.datasets.exports.decathlon`: it has one function that writes
an image and a label map for each of :func:`~salip_ray.datasets.exports.cases.cases`, and then the
files that describe them.
"""
