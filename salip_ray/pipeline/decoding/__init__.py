"""From rows of the manifest to working images: fetch files, open them, decode pictures."""
