"""What a running job shows: counts, progress in the terminal, metrics and log lines."""
