"""Where images come from: locations, listings and manifests, fetching, decoding, references."""
