"""Segment Anything: weights, and a fast encoder and decoder with the official results."""
