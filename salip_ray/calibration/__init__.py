"""Fit the confidence of labels on a few images with references."""
