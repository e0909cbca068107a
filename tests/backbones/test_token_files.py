"""Textual-inversion files of others: python -m pytest tests/backbones/test_token_files.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shortcut_lightning import backbones

A1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 32)}, "name": "cat"}


def write(content: Any, file: Path) -> Path:
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)
    return file


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.bin", {"<cat>": torch.ones(32)}, "<cat>"),
        ("a.safetensors", {"<cat>": torch.ones(2, 32)}, "<cat>"),
        ("cat.safetensors", {"emb_params": torch.ones(1, 32)}, "cat"),
        ("a.pt", A1111, "cat"),
    ],
)
def test_each_format_brings_its_word(
    name: str, content: Any, word: str, small_sd: Path, tmp_path: Path
) -> None:
    backbone = backbones.load(str(small_sd))
    backbone.load_tokens([str(write(content, tmp_path / name))])
    assert backbone.count_tokens(word) == (2 if name in {"a.safetensors", "a.pt"} else 1)


XL = {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", XL, r"for Stable Diffusion XL \(vectors 768 and 1280 wide\); this model "
         r"is a model with one text encoder and vectors 32 wide"),
        ("a.bin", {"<cat>": torch.ones(1, 768)}, r"for Stable Diffusion 1.x \(vectors 768 wide\)"),
        ("a.safetensors", {"<cat>": torch.ones(1, 1024)}, r"for Stable Diffusion 2.x"),
        ("a.bin", {"<cat>": torch.ones(1, 16)}, r"vectors 16 wide; this .* vectors 32 wide"),
        ("a.bin", {"dog</w>": torch.ones(1, 32)}, r"knows 'dog</w>' already"),
        ("a.bin", {"<cat>": torch.ones(1, 32) / 0}, r"NaN or infinite\) in <cat>"),
        ("a.bin", {"a": torch.ones(1, 32), "b": torch.ones(1, 32)}, r"holds a, b; a textual inv"),
        ("a.bin", {"a": "text"}, r"'a' is not a vector"),
        ("a.bin", {"a": torch.ones(())}, r"'a' is not a vector"),
        ("a.bin", {"<a>": torch.ones(0, 32)}, r"has 0 vectors for the word .<a>.; a wo"),
        ("a.bin", {"<a>": torch.ones(76, 32)}, r"has 76 vectors .* from 1 to 75, which is all"),
        ("a.pt", {"a": torch.ones(1, 32).long()}, r"weights of int64 in a; floating-point"),
        ("a.bin", {}, r"holds nothing"),
        ("a.bin", [1], r"holds a list"),
        ("a.bin", b"", r"is empty"),
        ("a.bin", b"PK\x03\x04 cut off", r"damaged, truncated"),
        ("a.safetensors", b"\x80\0\0\0\0\0\0\0{cut", r"damaged or truncated"),
        ("a.bin", {"a": Path("/somewhere")}, r"holds more than weights .*never|refused"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    name: str, content: Any, message: str, small_sd: Path, tmp_path: Path
) -> None:
    backbone = backbones.load(str(small_sd))
    with pytest.raises(ValueError, match=message) as caught:
        backbone.load_tokens([str(write(content, tmp_path / name))])
    said = str(caught.value)
    assert said.endswith("(model.embeddings).")
    assert "tensor(" not in said
    assert "\n" not in said
    with pytest.raises(ValueError, match="No textual-inversion file"):
        backbone.load_tokens([str(tmp_path / "missing.bin")])


def test_a_word_of_one_encoder_is_not_for_two(small_sdxl: Path, tmp_path: Path) -> None:
    file = write({"<cat>": torch.ones(1, 768)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"Stable Diffusion 1.x .*two text encoders, .*32 and 48"):
        backbones.load(str(small_sdxl)).load_tokens([str(file)])
