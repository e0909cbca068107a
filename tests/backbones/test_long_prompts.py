"""Prompts of more than 75 words: python -m pytest tests/backbones/test_long_prompts.py"""

from pathlib import Path

import pytest
import torch

from shortcut_lightning import backbones
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Sampling

LONG = " ".join(["dog", "beach", "photo", "the"] * 40)  # 160 words


@pytest.mark.parametrize("family", ["small_sd", "small_sdxl", "small_sd3"])
def test_rows_side_by_side(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(family)
    short, long = (backbones.load(str(folder)) for _ in range(2))
    long.lengthen(2)
    assert (short.prompt_length, long.prompt_length) == (75, 150)
    words = LONG.split()
    first, second, third = (" ".join(words[i : i + 75]) for i in (0, 75, 150))
    prompts = [LONG, "a dog"]
    with torch.no_grad():
        both = long.embed(prompts)
        parts = [short.embed([first, "a dog"]), short.embed([second, "dog"])]
        cut = long.embed([f"{first} {second}"])
        empty = short.embed(["a", "a"])
    torch.testing.assert_close(both.hidden[0, :77], parts[0].hidden[0, :77])
    torch.testing.assert_close(both.hidden[0, 77:154], parts[1].hidden[0, :77])
    torch.testing.assert_close(both.hidden[1, :77], parts[0].hidden[1, :77])
    torch.testing.assert_close(both.hidden[:1], cut.hidden)  # what fills more rows is cut off
    assert third
    assert both.hidden.shape[1] == empty.hidden.shape[1] + 77
    if both.pooled is not None:
        torch.testing.assert_close(both.pooled, parts[0].pooled)


def test_one_row_is_what_it_was(small_sd: Path) -> None:
    plain, one = (backbones.load(str(small_sd)) for _ in range(2))
    one.lengthen(1)
    with torch.no_grad():
        assert torch.equal(plain.embed([LONG]).hidden, one.embed([LONG]).hidden)


def test_a_module_trains_and_samples_with_them(small_sd: Path) -> None:

    module = DreamBooth(str(small_sd), prompt_chunks=3, sampling=Sampling(num_inference_steps=1))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    prior = torch.tensor([False, True])
    data = TrainBatch(images, [LONG, "a dog"], prior, torch.tensor([0, 1]))
    loss = module(data)["loss"]
    loss.backward()
    assert module.backbone.embed([LONG]).hidden.shape[1] == 3 * 77
    pictures = [
        module.backbone.sample([prompt], seeds=[0], num_inference_steps=1)
        for prompt in (LONG, LONG[: len(LONG) // 2])
    ]
    assert not torch.equal(*pictures)
    assert module.base().prompt_length == 225
    with pytest.raises(ValueError, match=r"prompt_chunks is 9; it must be from 1 to 8"):
        DreamBooth(str(small_sd), prompt_chunks=9)
