"""Labels as training data: samples, splits, decisions of reviewers, and exports."""
