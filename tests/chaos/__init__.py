"""Kill it, starve it, feed it rubbish, and compare: what must hold whatever happens to a job."""
