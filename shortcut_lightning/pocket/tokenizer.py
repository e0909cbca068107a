"""A byte-level BPE tokenizer: each word of the grammar is one token, any text is some.

The end token gets the highest number on purpose: CLIP's text tower may pool at the largest id of a
sentence, and with any other order it would pool at some word and, being causal, see nothing after
it.
"""

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from shortcut_lightning.pocket.captions import vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
Merge = tuple[str, str]


def merges_for(words: tuple[str, ...]) -> list[Merge]:
    """Merge rules, in order of priority, after which every word is a single token.

    Each word is taken apart by the rules so far, then rules are appended that join what is left,
    left to right. Later rules have lower priority, so they cannot break words already joined.
    """
    rules: dict[Merge, int] = {}
    for word in words:
        pieces = split(word, rules)
        while len(pieces) > 1:
            rules.setdefault((pieces[0], pieces[1]), len(rules))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return list(rules)


def split(word: str, rules: dict[Merge, int]) -> list[str]:
    """Apply merge rules to one word, best rule first, as every BPE tokenizer does."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pairs = list(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: rules.get(pair, len(rules)))
        if best not in rules:
            break
        at = pairs.index(best)
        pieces = [*pieces[:at], best[0] + best[1], *pieces[at + 2 :]]
    return pieces


def byte_letters() -> list[str]:
    """The printable stand-ins that byte-level BPE uses for the 256 byte values (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(others))]


def build_tokenizer(length: int = LENGTH) -> "CLIPTokenizer":
    """The tokenizer of the family; any text can be encoded, in at most `length` tokens."""
    from transformers import CLIPTokenizer

    vocab, merges = tables()
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,  # pairs, whatever the annotation says
        model_max_length=length,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
    )


def tables() -> tuple[dict[str, int], list[Merge]]:
    """Token -> number (end token last) and merge rules."""
    letters = byte_letters()
    merges = merges_for(vocabulary())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += list(dict.fromkeys(first + second for first, second in merges))
    return {token: number for number, token in enumerate([*tokens, START, END])}, merges


def save_tokenizer(folder: Path, length: int = LENGTH) -> None:
    """Write the tokenizer, with the older `vocab.json` and `merges.txt` beside the new file."""
    build_tokenizer(length).save_pretrained(folder)
    vocab, merges = tables()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    lines = ["#version: 0.2", *(" ".join(rule) for rule in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {"model_max_length": length}
    config.write_text(json.dumps(settings, indent=2) + "\n")
