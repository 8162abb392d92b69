"""SaLIP's test-time search: the recipe that labels a few images with references best."""
