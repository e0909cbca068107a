"""New words for a frozen vocabulary: only their rows are parameters.

Keeping the new rows apart from the table means that no old row can move, no weight decay touches
them, and a checkpoint holds a few vectors instead of the whole table.
"""

from collections.abc import Sequence

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor, nn
from transformers import CLIPTokenizer


class TokenTable(nn.Module):
    """An embedding table with learnable rows appended to a fixed one."""

    def __init__(self, table: nn.Embedding, rows: Tensor, first_id: int) -> None:
        """`rows` (n, D) belong to the token ids `first_id` ... `first_id + n - 1`."""
        super().__init__()
        self.table = table
        self.rows = nn.Parameter(rows)
        self.first_id = first_id

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, L, D)."""
        is_new = ids >= self.first_id
        old = self.table(ids.masked_fill(is_new, 0))
        new = self.rows[(ids - self.first_id).clamp(min=0)]
        return torch.where(is_new.unsqueeze(-1), new.to(old.dtype), old)

    def merged(self) -> nn.Embedding:
        """One plain table, as other programs expect it in a text encoder."""
        weight = torch.cat([self.table.weight[: self.first_id], self.rows.to(self.table.weight)])
        return nn.Embedding.from_pretrained(weight.detach().clone(), freeze=True)


def initial_rows(table: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, D) random directions of the table's median norm (0.385 in CLIP's).

    A library's default (the table's mean, or N(0, 0.02)) gives every new word the same meaning or
    a norm the text encoder never saw.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, table.shape[1], generator=generator)
    return rows / rows.norm(dim=1, keepdim=True) * table.norm(dim=1).median().cpu()


def all_vectors(prompts: Sequence[str], tokenizer: CLIPTokenizer) -> list[str]:
    """The prompts with a textual inversion of several vectors spelled out, `x` as `x x_1 x_2`: the
    words diffusers loads it as, and what its pipelines do with a prompt.

    Prompts without one are left alone, as diffusers takes milliseconds to say so where there are
    many new words.
    """
    words = tokenizer.get_added_vocab()
    several = [word for word in words if f"{word}_1" in words]
    convert = TextualInversionLoaderMixin().maybe_convert_prompt
    return [
        convert(prompt, tokenizer) if any(word in prompt for word in several) else prompt
        for prompt in prompts
    ]
