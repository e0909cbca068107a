"""Prompts longer than a CLIP text encoder takes: cut into rows that it reads one by one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTokenizer


def in_chunks(tokenizer: CLIPTokenizer, texts: Sequence[str], chunks: int, length: int) -> Tensor:
    """(B * chunks, length + 2) int64: each text's words in rows of `length` between begin and end,
    the last words cut off where they fill more rows than there are."""
    begin, end, fill = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    read = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    rows = []
    for ids in read.input_ids:
        for start in range(0, chunks * length, length):
            row = [begin, *ids[start : start + length], end]
            rows.append(row + [fill] * (length + 2 - len(row)))
    return torch.tensor(rows)


def side_by_side(states: Tensor, chunks: int) -> Tensor:
    """(B * chunks, L, D) -> (B, chunks * L, D): what the denoiser looks at together."""
    return states.unflatten(0, (-1, chunks)).flatten(1, 2) if chunks > 1 else states
