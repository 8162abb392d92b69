"""A student: a small U-Net that learns from pseudo-labels and is scored against references."""
