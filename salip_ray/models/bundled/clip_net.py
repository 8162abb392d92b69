"""The bundled CLIP: a small open_clip model for crops of phantoms and the sentences about them.

It is an ordinary `open_clip.CLIP`: a ModifiedResNet over 64x64 pixels, a text transformer over
open_clip's standard tokenizer, a shared space of 128 dimensions. Its file is small because it
stores only the rows of the token table (49,408) that training used. One more row, trained by
replacing random words, stands for every other token. Loading fills the whole table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import CLIP, SimpleTokenizer, image_transform
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from salip_ray.errors import WeightsError
from salip_ray.models.bundled import CLIP_WEIGHTS
from salip_ray.models.clip.transform import accept_thin_images

IMAGE_SIZE = 64  #: side of the vision tower's input, pixels
EMBED_DIM = 128
CONTEXT_LENGTH = 77  #: tokens of a sentence, start and end included: open_clip's standard
VOCABULARY = 49_408  #: tokens of open_clip's standard tokenizer
WEIGHTS = CLIP_WEIGHTS

_TABLE = "token_embedding.weight"
_STORED_ROWS = "token_embedding.rows"  # of the tokens below; the last row is any other token's
_STORED_IDS = "token_embedding.ids"


def build_bundled_clip(vocabulary: int = VOCABULARY) -> CLIP:
    """Return the bundled CLIP with random weights. Training gives it a smaller `vocabulary`."""
    return CLIP(
        EMBED_DIM,
        vision_cfg={"layers": (2, 2, 2, 2), "width": 16, "image_size": IMAGE_SIZE},
        text_cfg={
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    )


def bundled_preprocess() -> Callable[[Image], Tensor]:
    """Return open_clip's inference transform: PIL image -> float32 [3, 64, 64], normalised.

    The longer side is resized to 64 and the shorter padded with black. open_clip's default would
    cut the ends off a long crop, and half a lung is another class for this model.
    """
    transform: Callable[[Image], Tensor] = accept_thin_images(
        image_transform(IMAGE_SIZE, is_train=False, resize_mode="longest")
    )
    return transform


def bundled_tokenizer() -> SimpleTokenizer:
    """Return open_clip's standard tokenizer: list of n sentences -> int64 [n, 77]."""
    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


def load_bundled_clip(
    path: Path | None = None,
) -> tuple[CLIP, Callable[[Image], Tensor], SimpleTokenizer]:
    """Return the bundled CLIP in eval mode (float32, CPU), its preprocess and its tokenizer.

    Args:
        path: safetensors file that `save_bundled_clip` wrote; the shipped weights if None.

    Raises:
        WeightsError: the file is missing, is not safetensors, or fits another network.
    """
    path = WEIGHTS if path is None else Path(path)
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"bundled CLIP weights {path}: no such file") from None
    except SafetensorError as error:
        raise WeightsError(
            f"bundled CLIP weights {path}: not a safetensors file: {error}"
        ) from None
    model = build_bundled_clip()
    try:
        ids, rows = stored.pop(_STORED_IDS), stored.pop(_STORED_ROWS).float()
        table = rows[-1].repeat(VOCABULARY, 1)
        table[ids.long()] = rows[:-1]
        floats = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in stored.items()
        }
        model.load_state_dict({**floats, _TABLE: table})
    except (KeyError, RuntimeError) as error:
        raise WeightsError(
            f"bundled CLIP weights {path}: made for another network: {error}"
        ) from None
    return model.requires_grad_(False).eval(), bundled_preprocess(), bundled_tokenizer()


def save_bundled_clip(state: dict[str, Tensor], tokens: Tensor, path: Path) -> None:
    """Write weights as float16 safetensors.

    Args:
        state: state dict of a model over the vocabulary of `compact` ids (see `compact_tokens`).
        tokens: int64 [n], ascending: the standard tokens that have a row.
        path: file to write, in one step.
    """
    table = state[_TABLE]
    # Row 0 of a compact table is "any other token"; it is stored last.
    tensors = {name: tensor for name, tensor in state.items() if name != _TABLE}
    tensors[_STORED_ROWS] = torch.cat((table[1:], table[:1]))
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }
    tensors[_STORED_IDS] = tokens.to(torch.int32).cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def compact_state(model: CLIP, tokens: Tensor) -> dict[str, Tensor]:
    """Return the state dict of a loaded model over the vocabulary of `tokens`, to train on.

    A token without an own row starts as any other token.
    """
    state = dict(model.state_dict())
    # No file stores token 0, the padding: it has the row of any other token.
    state[_TABLE] = state[_TABLE][torch.cat((tokens.new_zeros(1), tokens))]
    return state


def compact_tokens(tokenised: Tensor, tokens: Tensor) -> Tensor:
    """Map standard token ids to rows of a table: 1 + index in `tokens`, 0 for any other token.

    The order of ids stays, so the end-of-text token is still the highest, which open_clip's text
    tower relies on.
    """
    index = torch.searchsorted(tokens, tokenised).clamp(max=len(tokens) - 1)
    return torch.where(tokens[index] == tokenised, index + 1, torch.zeros_like(index))
