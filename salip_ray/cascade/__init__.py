"""The SaLIP cascade (Aleem et al., CVPR workshops 2024) on arrays and tensors.

Only ``loading`` and the families of ``transformers`` read files.

Read the modules in this order:

    interfaces       proposer, retriever and refiner, and their results
    cascade          all steps on one image
    proposer         steps 1 and 2: SAM's automatic masks, filtered by area
    candidates       from decoded masks to candidates with ids
    visual_prompts   step 3: the five pictures of a candidate that CLIP can be shown
    retriever        steps 3 and 4: image features of the candidates
    ranking          step 4: text features, scores, and the k best candidates of each class
    refiner          step 5: SAM prompted with the boxes of the retrieved candidates
    prompts          boxes, and points by options of ``refine``
    cleaning         masks without holes and small components, by options of ``refine``
    compose          masks and outcomes of each class
    baselines        un-prompted SAM, and SAM prompted with boxes of the reference
    confidence       an estimate of each label's Dice
    sam_ops          SAM's operations: encode, decode, upscale
    geometry         sizes, masks and boxes
    loading          the steps that a configuration names, with their weights
    own_models       models of other packages as steps; own_results checks what they return
    sam2, sam3       families of ``transformers``
"""
