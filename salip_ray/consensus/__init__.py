"""One output from several: the masks on which runs over the same images agree."""
