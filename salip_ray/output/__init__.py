"""What a job writes: the on-disk contract, without Ray."""
