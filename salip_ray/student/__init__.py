"""A student: a small network that learns from pseudo-labels and is scored against references."""
