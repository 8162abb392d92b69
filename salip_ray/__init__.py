"""Bulk zero-shot pseudo-labels for medical images: the SaLIP cascade of SAM and CLIP on Ray Data."""
