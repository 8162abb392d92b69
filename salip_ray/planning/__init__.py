"""Measure an image of a job on this machine, and size the job from it: the command ``plan``."""
