"""Anti-Diffusion beside its three parts written out: python -m pytest tests/attacks"""

import copy
import math
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from naive import agree, from_model, latents, noised, ours, pgd, photos, text, to_model
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.attacks import AntiDiffusion
from shortcut_lightning.attacks.anti_diffusion import attended
from shortcut_lightning.backbones.base import Backbone


class Kept(AttnProcessor):
    """Plain attention that keeps its maps."""

    def __init__(self, seen: list[Tensor]) -> None:
        self.seen = seen

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> Any:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        share = attn.get_attention_scores(query, key)
        self.seen.append(share.unflatten(0, (len(hidden_states), -1)))
        return attn.to_out[0](attn.batch_to_head_dim(share @ value))


def published(model: Any, x0: Tensor, rounds: int, eps: float, side: int) -> Tensor:
    """With one ball; gradients of the denoiser are not clipped."""
    g, x = torch.Generator().manual_seed(3), x0
    words = text(model, [""]).detach()
    model = copy.deepcopy(model)
    seen: list[Tensor] = []
    for name, layer in model.unet.named_modules():
        if name.endswith("attn2"):
            layer.set_processor(Kept(seen))

    def error(z: Tensor) -> Tensor:
        _, t, zt, target = noised(model, z, g)
        seen.clear()
        out = model.unet(zt, t, encoder_hidden_states=words.expand(len(z), -1, -1)).sample
        return functional.mse_loss(out, target)

    def tuned(parameters: list[Tensor], steps: int, rate: float) -> None:
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=rate)
        for _ in range(steps):
            with torch.no_grad():
                z = latents(model, x, g)
            optimizer.zero_grad()
            error(z).backward()
            optimizer.step()
        for parameter in parameters:
            parameter.requires_grad_(False)

    def objective(changed: Tensor) -> Tensor:
        value = error(latents(model, changed, g))
        maps = torch.cat([each for each in seen if each.shape[2] == side**2], dim=1)
        cut = torch.clamp(maps.mean(1) * 1e2, min=0, max=1)
        return value - functional.mse_loss(cut, torch.zeros_like(cut))

    for number in range(rounds + 1):
        tuned([words], 3, 1e-2)
        if number:
            tuned(list(model.unet.parameters()), 2, 1e-4)
        x = pgd(x0, x, 2, 2 / 127.5, eps / 127.5, objective)
    return x


@pytest.mark.parametrize("kind", ["noise", "velocity"])
def test_against_the_parts_written_out(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(f"{kind}_model")
    attack = AntiDiffusion(
        5,
        2,
        2,
        2,
        prompt_steps=3,
        prompt_rate=1e-2,
        surrogate_steps=2,
        learning_rate=1e-4,
        map_side=8,
    )
    expected = published(model, to_model(photos()), 2, 5, 8)
    assert agree(ours(attack, model, photos()), from_model(expected), share=0.97)


def test_one_ball_for_all_rounds(noise_model: Backbone) -> None:
    images = photos()
    attack = AntiDiffusion(3, 2, 3, 3, prompt_steps=0, surrogate_steps=0, attention_weight=0)
    moved = (ours(attack, noise_model, images) - images).abs().max() * 255
    assert moved == pytest.approx(3, abs=0.01)


def test_attention_that_is_cut_and_the_side_that_counts() -> None:
    small, large = torch.full((1, 2, 4, 5), 0.002), torch.full((1, 2, 16, 5), 0.5)
    assert attended([small, large], 2).item() == pytest.approx(0.04)
    assert attended([small, large], 16).item() == 1.0
    head = torch.stack([torch.zeros(4, 5), torch.full((4, 5), 0.01)])[None]
    assert math.isclose(attended([head], 2).item(), 0.25, rel_tol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_gradient_checkpointing_changes_nothing(weight: float, noise_model: Backbone) -> None:
    plain, checkpointed = (
        AntiDiffusion(
            3,
            2,
            1,
            1,
            prompt_steps=1,
            surrogate_steps=1,
            attention_weight=weight,
            gradient_checkpointing=wanted,
        )
        for wanted in (False, True)
    )
    images = photos()
    expected = ours(plain, noise_model, images)
    assert torch.equal(ours(checkpointed, noise_model, images), expected)
