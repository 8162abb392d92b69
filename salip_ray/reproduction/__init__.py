"""The paper's experiments on its three datasets, as ordinary jobs: ``salip-ray reproduce``."""
