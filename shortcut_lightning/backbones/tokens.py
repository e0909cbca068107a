"""New words for a frozen vocabulary: only their rows are parameters.

Keeping the new rows apart from the table means that no old row can move, no weight decay touches
them, and a checkpoint holds a few vectors instead of the whole table.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import CLIPTokenizer

from shortcut_lightning.backbones.base import tensor_bytes


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


def add_rows(
    tokenizer: Any, text_encoder: Any, tokens: Sequence[str], initializers: Sequence[str]
) -> None:
    """Adds words to one vocabulary and learnable rows to its text encoder."""
    table = text_encoder.get_input_embeddings()
    rows = initial_rows(table.weight.detach(), len(tokens))
    for row, word in enumerate(initializers):
        if not word:
            continue
        ids = tokenizer(word, add_special_tokens=False).input_ids
        if isinstance(tokenizer, CLIPTokenizer) and len(ids) != 1:
            raise ValueError(
                f"'{word}' is {len(ids)} tokens in this vocabulary; an initializer must be "
                "exactly one (model.token_initializers)."
            )
        # Other vocabularies have longer or shorter pieces: there the mean of a word's.
        rows[row] = table.weight[ids].detach().float().mean(0).cpu()
    add_words(tokenizer, tokens)
    first_id = tokenizer.convert_tokens_to_ids(tokens[0])
    text_encoder.set_input_embeddings(TokenTable(table, rows.to(table.weight.device), first_id))


def hash_of_words(tokens: Sequence[str], tables: Sequence[Tensor]) -> str:
    """Of words and their rows in each text encoder."""
    digest = hashlib.sha256("\n".join(tokens).encode())
    for rows in tables:
        digest.update(tensor_bytes(rows))
    return digest.hexdigest()[:16]


def add_words(tokenizer: Any, words: Sequence[str]) -> None:
    """Makes each word one token, in the vocabulary of byte pairs or of sentence pieces."""
    # single_word: otherwise a token would also match inside longer words. Words in brackets cannot,
    # and must match right after a name: "watermark<l3>". Outside CLIP's they are special tokens,
    # as sentence pieces would take a bracket for punctuation.
    special = not isinstance(tokenizer, CLIPTokenizer)
    tokenizer.add_tokens(
        [
            AddedToken(
                word,
                single_word=word[0].isalnum() or word[-1].isalnum(),
                normalized=False,
                special=special,
            )
            for word in words
        ],
        special_tokens=special,
    )


def load_rows(tokenizer: Any, text_encoder: Any, words: Sequence[str], vectors: Tensor) -> None:
    """Adds words with their vectors (n, D) for good, into the text encoder's own table."""
    add_words(tokenizer, words)
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[tokenizer.convert_tokens_to_ids(list(words))] = vectors.to(table)


def merge_rows(text_encoder: Any) -> None:
    """Puts the learned rows into the table of a text encoder that is to be written."""
    merged = text_encoder.get_input_embeddings().merged()
    text_encoder.set_input_embeddings(merged)
    text_encoder.config.get_text_config().vocab_size = merged.num_embeddings
    head = text_encoder.get_output_embeddings()  # a language model's, which nothing here asks
    if head is None:
        return
    weight = merged.weight
    if not text_encoder.config.tie_word_embeddings:
        old = head.weight.detach()[: len(weight)]
        weight = nn.Parameter(torch.cat([old, weight[len(old) :].to(old)]))
    head.weight, head.out_features = weight, len(weight)
