"""The official checkpoints: addresses, sizes, hashes and licences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An official file: address, size in bytes, SHA-256, licence, and the settings that use it."""

    uri: str
    size: int
    sha256: str
    licence: str
    used_as: str


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_CLIP = "https://openaipublic.azureedge.net/clip/models"
# SAM: addresses and licence from facebookresearch/segment-anything; sizes and hashes from public
# mirrors with content-addressed storage. CLIP: addresses from openai/CLIP, which hold the hash.
CHECKPOINTS = {
    "sam_vit_b": Checkpoint(
        f"{_SAM}/sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "Apache-2.0",
        "sam.model=vit_b",
    ),
    "sam_vit_l": Checkpoint(
        f"{_SAM}/sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "Apache-2.0",
        "sam.model=vit_l",
    ),
    "sam_vit_h": Checkpoint(
        f"{_SAM}/sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "Apache-2.0",
        "sam.model=vit_h (presets paper-2d, paper-3d)",
    ),
    "clip_vit_l_14": Checkpoint(
        f"{_CLIP}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        932_768_134,
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "MIT",
        "clip.model=ViT-L-14-quickgelu (preset paper-2d)",
    ),
    "clip_vit_b_32": Checkpoint(
        f"{_CLIP}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        353_976_522,
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "MIT",
        "clip.model=ViT-B-32-quickgelu (preset paper-3d)",
    ),
}
