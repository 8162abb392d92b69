"""What one worker process does for itself: memory, devices, notes of deaths, recycling."""
