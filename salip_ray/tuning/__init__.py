"""Step 6 of SaLIP: search the recipe that labels a few images with references best."""
