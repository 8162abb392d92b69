"""Readers of image formats, one module each; :mod:`salip_ray.sources.decode` chooses one.

A reader turns the bytes of a file into a :class:`~salip_ray.sources.formats.stack.Stack`, the
pictures that the file holds.
"""
