"""Labels as training data, and exports to other formats."""
