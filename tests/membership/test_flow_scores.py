"""Scores on rectified flows whose text is a T5's or a language model's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from flow_models import write_small_qwen_image, write_small_z_image
from models import write_small_sd3

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Conditioning
from shortcut_lightning.membership import CLiD
from shortcut_lightning.membership.reducers import GaussianNoise, ImportantWords, spread


@pytest.mark.parametrize("write", [write_small_z_image, write_small_qwen_image])
def test_noise_on_a_caption_is_as_strong_as_the_caption_is(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = backbones.load(str(write(tmp_path / "flow"))).requires_grad_(False).eval()
    said = model.embed(["a dog"])
    assert said.mask is not None
    expected = said.hidden[0, said.mask[0]].std()
    torch.testing.assert_close(spread(said).squeeze(), expected)
    assert spread(Conditioning(said.hidden)).squeeze() < expected
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert CLiD(GaussianNoise((0.5,)), n_t=1)(pictures, ["a dog"], model).isfinite().all()


def test_words_weights_are_refused_where_no_layer_shows_them(tmp_path: Path) -> None:
    """Stable Diffusion 3.5 medium has layers `attn2`, which see the picture alone."""
    model: Any = backbones.load(str(write_small_sd3(tmp_path / "sd35")))
    settings = dict(model.denoiser.config) | {"dual_attention_layers": [0]}
    model.transformer = SD3Transformer2DModel.from_config(settings)
    model.requires_grad_(False).eval()
    score = CLiD(ImportantWords((0.5,), num_inference_steps=1), n_t=1)
    with pytest.raises(ValueError, match=r"no cross-attention layers .* another reducer"):
        score(torch.rand(1, 3, 32, 32), ["a dog"], model)
