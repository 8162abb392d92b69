"""Kills, faults and damaged files: what must hold whatever happens to a job."""
