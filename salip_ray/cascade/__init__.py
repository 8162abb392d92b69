"""The SaLIP cascade (Aleem et al., CVPR workshops 2024), pure: arrays and tensors in and out.

One step a module:

    resolution   the working image, and the way back to the original pixels
    prompting    SAM in three moves: encode, decode, upscale
    propose      SAM's automatic masks: candidates with ids, and the image embedding
    crops        how a candidate is shown to CLIP: the five visual prompts
    texts        a class's sentences as one text feature
    retrieve     the k candidates of each class that CLIP scores highest
    refine       SAM prompted with the boxes of the retrieved candidates
    baselines    un-prompted SAM, and SAM prompted with the reference's boxes
    reference    reference masks as class masks and boxes
    cascade      all of it on one image
"""
