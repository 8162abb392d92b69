"""Rows between stages: their columns, as Python objects and as Arrow tables."""
