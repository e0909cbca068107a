"""Attacks on a model that does not learn, against their naive loops.

python -m pytest tests/attacks
"""

import pytest
import torch
from naive import (
    PROMPTS,
    agree,
    from_model,
    latents,
    loss,
    noised,
    ours,
    pgd,
    photos,
    text,
    to_model,
)
from torch import Tensor

from shortcut_lightning.attacks import SDS, AdvDM, Glaze, Mist, PhotoGuardDiffusion
from shortcut_lightning.attacks.denoising import eps_loss
from shortcut_lightning.attacks.glaze import dssim
from shortcut_lightning.attacks.pictures import pattern
from shortcut_lightning.backbones.base import Backbone


@pytest.fixture(params=["noise", "velocity"])
def model(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(f"{request.param}_model")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_loss_and_gradient_are_the_naive_ones(model: Backbone) -> None:
    x = to_model(photos()).requires_grad_()
    loss(model, x, PROMPTS, generator()).backward()
    images = photos().requires_grad_()
    value = eps_loss(model, images, model.embed(PROMPTS), generator())
    value.backward()
    torch.testing.assert_close(
        value, loss(model, to_model(photos()), PROMPTS, generator()), rtol=1e-4, atol=1e-6
    )
    assert images.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(images.grad, 2 * x.grad, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("ascending", [True, False])
def test_advdm(model: Backbone, ascending: bool) -> None:
    g, x0 = generator(), to_model(photos())
    expected = pgd(x0, x0, 3, 4 / 255, 10 / 255, lambda x: loss(model, x, PROMPTS, g), ascending)
    attack = AdvDM(5, step_size=2, steps=3, ascending=ascending, start_randomly=False)
    assert agree(ours(attack, model, photos()), from_model(expected))


def test_advdm_up_raises_the_loss_and_down_lowers_it(noise_model: Backbone) -> None:
    def error(images: Tensor) -> float:
        many = images[:1].expand(32, -1, -1, -1)
        conditioning = noise_model.embed(PROMPTS[:1] * 32)
        return eps_loss(noise_model, many, conditioning, generator()).item()

    up = ours(AdvDM(32, steps=12, step_size=4), noise_model, photos(1))
    down = ours(AdvDM(32, steps=12, step_size=4, ascending=False), noise_model, photos(1))
    with torch.no_grad():
        assert error(down) < error(up)


@pytest.mark.parametrize("mode", ["fused", "semantic", "textural"])
def test_mist(noise_model: Backbone, mode: str) -> None:
    model, g, x0 = noise_model, generator(), to_model(photos())
    target = model.vae.encode(to_model(pattern(x0))).latent_dist

    def objective(x: Tensor) -> Tensor:
        z = latents(model, x, g)
        semantic = 0.0
        if mode != "textural":
            _, t, zt, wanted = noised(model, z, g)
            out = model.unet(zt, t, encoder_hidden_states=text(model, PROMPTS)).sample
            # One image at a time in the published loop: its own mean beside its own sum.
            semantic = ((out - wanted) ** 2).mean(dim=(1, 2, 3)).sum()
        if mode == "semantic":
            return -semantic
        drawn = target.mean + target.std * torch.randn(target.mean.shape, generator=g)
        return ((z - 0.18215 * drawn) ** 2).sum() - (1e4 * semantic if mode == "fused" else 0)

    noise = torch.rand(x0.shape, generator=g)
    start = (x0 + (2 * noise - 1) * 10 / 255).clamp(-1, 1)
    expected = pgd(x0, start, 2, 4 / 255, 10 / 255, objective, ascending=False)
    attack = Mist(5, step_size=2, steps=2, mode=mode)  # type: ignore[arg-type]
    assert agree(ours(attack, model, photos()), from_model(expected))


@pytest.mark.parametrize(
    ("ascending", "rate"),
    [(True, 0.0), (False, 0.0), (False, 5.0)],  # with a rate published downwards only
)
def test_sds(model: Backbone, ascending: bool, rate: float) -> None:
    """The score is sent back through the encoder only, and the textural gradient subtracted."""
    g, x0 = generator(), to_model(photos())
    target, x = model.vae.encode(to_model(pattern(x0))).latent_dist, to_model(photos())
    for _ in range(2):
        x = x.detach().requires_grad_()
        z = latents(model, x, g)
        with torch.no_grad():
            eps, t, zt, _ = noised(model, z, g)
            out = model.unet(zt, t, encoder_hidden_states=text(model, PROMPTS)).sample
            abar = model.alphas_cumprod()[t].view(-1, 1, 1, 1)
            if model.prediction_type == "v_prediction":
                out = abar**0.5 * out + (1 - abar) ** 0.5 * zt
        (score,) = torch.autograd.grad(z, x, out - eps, retain_graph=True)
        direction = score if ascending else -score
        if rate:
            drawn = target.mean + target.std * torch.randn(target.mean.shape, generator=g)
            (texture,) = torch.autograd.grad(((z - 0.18215 * drawn) ** 2).sum(), x)
            direction = direction * rate - texture
        moved = (x + 4 / 255 * direction.sign() - x0).clamp(-10 / 255, 10 / 255)
        x = (x0 + moved).clamp(-1, 1)
    attack = SDS(5, step_size=2, steps=2, ascending=ascending, texture_rate=rate)
    assert agree(ours(attack, model, photos()), from_model(x.detach()))


def naive_edit(
    model, z: Tensor, eps: Tensor, prompts: list[str], times: list[int], guidance: float
) -> Tensor:
    """DDIM, one image's equation per line, guidance from two separate passes."""
    alphas = [model.alphas[t] for t in times] + [torch.tensor(1.0)]
    zt = alphas[0] ** 0.5 * z + (1 - alphas[0]) ** 0.5 * eps
    for t, now, then in zip(times, alphas, alphas[1:], strict=False):
        steps = torch.full((len(z),), t)
        wanted = model.unet(zt, steps, encoder_hidden_states=text(model, prompts)).sample
        other = model.unet(zt, steps, encoder_hidden_states=text(model, [""] * len(z))).sample
        out = other + guidance * (wanted - other)
        if model.prediction_type == "v_prediction":
            out = now**0.5 * out + (1 - now) ** 0.5 * zt
        z0 = (zt - (1 - now) ** 0.5 * out) / now**0.5
        zt = then**0.5 * z0 + (1 - then) ** 0.5 * out
    return zt


def test_photoguard_diffusion(model: Backbone) -> None:
    g, x0 = generator(), to_model(photos())
    x = x0
    for _ in range(2):
        slopes = []
        for _ in range(2):
            x = x.detach().requires_grad_()
            z = latents(model, x, g)
            eps = torch.randn(z.shape, generator=g)
            z = naive_edit(model, z, eps, PROMPTS, [699, 350], 2.0)
            out = model.vae.decode(z / 0.18215).sample.clamp(-1, 1)
            distance = sum(image.norm() for image in out)
            slopes.append(torch.autograd.grad(distance, x)[0])
        moved = x - 4 / 255 * (sum(slopes) / 2).sign()
        x = (x0 + (moved - x0).clamp(-10 / 255, 10 / 255)).clamp(-1, 1)
    attack = PhotoGuardDiffusion(
        5, step_size=2, steps=2, repeats=2, num_inference_steps=2, guidance_scale=2.0
    )
    assert agree(ours(attack, model, photos()), from_model(x.detach()), share=0.97)


def test_glaze(noise_model: Backbone) -> None:
    model, g, x = noise_model, generator(), photos()
    with torch.no_grad():
        z = 0.18215 * model.vae.encode(to_model(x)).latent_dist.mean
        eps = torch.randn(z.shape, generator=g)
        styled = naive_edit(model, z, eps, ["a photo of a dog"] * 2, [399, 200], 2.0)
        styled = (model.vae.decode(styled / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        goal = model.vae.encode(to_model(styled)).latent_dist
    delta = (2 * torch.rand(x.shape, generator=g) - 1) * 6 / 255
    delta = ((x + delta).clamp(0, 1) - x).requires_grad_()
    adam = torch.optim.Adam([delta], lr=0.5 / 255)
    for _ in range(3):
        posterior = model.vae.encode(to_model(x + delta)).latent_dist
        first, second = (torch.randn(goal.mean.shape, generator=g) for _ in range(2))
        mine = posterior.mean + posterior.std * first
        other = goal.mean + goal.std * second
        visible = torch.stack([dssim((x + delta)[[i]], x[[i]])[0] for i in range(2)])
        cost = ((mine - other) ** 2).mean(dim=(1, 2, 3)) + 30 * (visible - 0.02).clamp(min=0)
        adam.zero_grad()
        cost.sum().backward()
        adam.step()
        with torch.no_grad():
            delta.clamp_(-5 / 255, 5 / 255)
    attack = Glaze(
        5,
        step_size=0.5,
        steps=3,
        start_radius=6,
        style_prompt="a photo of a dog",
        num_inference_steps=2,
        guidance_scale=2.0,
    )
    assert agree(ours(attack, model, x), (x + delta).detach(), share=0.98)


def test_glaze_sees_in_full_precision(
    noise_model: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, ...]] = []

    def record(changed: Tensor, clean: Tensor) -> Tensor:
        value = dssim(changed, clean)
        seen.append((value.detach(), changed.detach().clone(), clean))
        return value

    monkeypatch.setattr("shortcut_lightning.attacks.glaze.dssim", record)
    ours(Glaze(5, steps=2, num_inference_steps=1, bf16=True), noise_model, photos())
    assert len(seen) == 2
    for value, changed, clean in seen:
        assert torch.equal(value, dssim(changed, clean))


def test_glaze_without_lpips_says_so(noise_model: Backbone) -> None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        with pytest.raises(ValueError, match="'lpips' needs torchvision"):
            ours(Glaze(perceptual="lpips", steps=1), noise_model, photos(1))


def test_dssim_is_zero_for_equal_images_and_grows_with_noise() -> None:
    x, noise = photos(2), torch.randn(2, 3, 32, 32, generator=generator())
    small, large = dssim(x + 0.01 * noise, x), dssim(x + 0.1 * noise, x)
    assert torch.equal(dssim(x, x), torch.zeros(2))
    assert (small < large).all()
    assert (small > 0).all()


def test_the_built_in_pattern_is_half_black_half_white() -> None:
    board = pattern(torch.zeros(1, 3, 64, 48))
    assert board.shape == (1, 3, 64, 48)
    assert set(board.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < board.mean() < 0.6


def test_checkpointing_recomputes_and_leaves_no_trace(noise_model: Backbone) -> None:
    def flags() -> list[bool | None]:
        return [getattr(part, "gradient_checkpointing", None) for part in noise_model.modules()]

    before, calls = flags(), []
    blocks = {
        "unet": noise_model.denoiser.down_blocks[0].resnets[0],
        "vae": noise_model.vae.encoder.down_blocks[0].resnets[0],
    }
    # Before, not after: a recomputation stops as soon as it has what it needs.
    hooks = [
        block.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, block in blocks.items()
    ]
    plain = AdvDM(5, step_size=2, steps=1, start_randomly=False)
    saving = AdvDM(5, step_size=2, steps=1, start_randomly=False, gradient_checkpointing=True)
    kept = ours(plain, noise_model, photos(1))
    saved = ours(saving, noise_model, photos(1))
    for hook in hooks:
        hook.remove()
    assert torch.equal(kept, saved)
    assert (calls.count("unet"), calls.count("vae")) == (1 + 2, 1 + 2)
    assert flags() == before
    assert not noise_model.embed([""]).hidden.requires_grad


def test_bf16_is_nearly_the_same_and_ends_with_the_attack(noise_model: Backbone) -> None:
    plain = AdvDM(5, step_size=2, steps=1, start_randomly=False)
    half = AdvDM(5, step_size=2, steps=1, start_randomly=False, bf16=True)
    got, expected = (ours(each, noise_model, photos(1)) for each in (half, plain))
    assert not torch.equal(got, expected)
    assert agree(got, expected, share=0.8)
    assert not torch.is_autocast_enabled("cpu")
