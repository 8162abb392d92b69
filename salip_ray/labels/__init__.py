"""What a run wrote: masks, and reading them back."""
