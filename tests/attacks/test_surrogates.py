"""Attacks on a model that learns meanwhile, against their naive loops.

python -m pytest tests/attacks
"""

import copy
from pathlib import Path
from typing import Any

import naive
import pytest
import torch
from naive import PROMPTS, agree, from_model, latents, noised, ours, pgd, photos, text, to_model
from PIL import Image
from torch import Tensor

from shortcut_lightning.attacks import (
    ASPL,
    CAAT,
    EASPL,
    FSMG,
    MetaCloak,
    SimAC,
    SurrogateTraining,
)
from shortcut_lightning.attacks import simac as simac_module
from shortcut_lightning.attacks.caat import first_token_given
from shortcut_lightning.attacks.denoising import denoise
from shortcut_lightning.attacks.surrogate import Surrogate
from shortcut_lightning.attacks.trained import step_back
from shortcut_lightning.attacks.transforms import gaussian_blur
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.freezing import frozen

CLASS = "a photo of a person"
RATE = 1e-3
IN_ORDER = SurrogateTraining(
    learning_rate=RATE, order="ref", class_prompt=CLASS, num_class_images=3
)
NO_PRIOR = SurrogateTraining(learning_rate=RATE, order="ref", num_class_images=0)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unchanged(model: Backbone, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fsmg_with_prior_preservation(velocity_model: Backbone) -> None:
    model, g, x0 = velocity_model, generator(), to_model(photos(3))
    before = copy.deepcopy(model.state_dict())
    prompts = [*PROMPTS, PROMPTS[0]]
    classes = naive.class_images(model, CLASS, 3, g)
    victim = naive.dreambooth(model, x0, prompts, classes, CLASS, 2, RATE, g, batch_size=2)
    expected = pgd(x0, x0, 2, 4 / 255, 10 / 255, lambda x: naive.loss(victim, x, prompts, g))
    attack = FSMG(5, step_size=2, steps=2, surrogate_steps=2, training=IN_ORDER)
    with frozen(model), torch.enable_grad():
        got = attack.run(photos(3), model, prompts, generator())
    assert agree(got, from_model(expected), share=0.97)
    assert unchanged(model, before)
    untrained = FSMG(5, step_size=2, steps=2, surrogate_steps=0, training=NO_PRIOR)
    assert not agree(ours(untrained, model, photos()), got[:2], share=0.97)


def test_one_step_back_is_the_posterior_mean(
    noise_model: Backbone, velocity_model: Backbone
) -> None:
    """DDPM (arXiv 2006.11239), eq. 11: another form of the same mean."""
    for model in (noise_model, velocity_model):
        with torch.no_grad():
            t = torch.tensor([1, 640])
            made = denoise(model, photos(), model.embed(PROMPTS), generator(), t)
        abar, before = model.alphas_cumprod()[t], model.alphas_cumprod()[t - 1]
        alpha = abar / before
        for row in range(2):
            a, b = alpha[row], abar[row]
            eps = made.prediction[row]
            if model.prediction_type == "v_prediction":
                eps = b.sqrt() * eps + (1 - b).sqrt() * made.noisy[row]
            mean = (made.noisy[row] - (1 - a) / (1 - b).sqrt() * eps) / a.sqrt()
            torch.testing.assert_close(step_back(model, made)[row], mean, rtol=1e-3, atol=1e-4)


def test_targeted_fsmg_adds_the_distance_to_the_target(
    noise_model: Backbone, tmp_path: Path
) -> None:
    model, g, x0 = noise_model, generator(), to_model(photos())
    path = tmp_path / "target.png"
    Image.new("RGB", (32, 32), (250, 20, 60)).save(path)
    red = torch.tensor([250, 20, 60]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32) / 255
    goal = 0.18215 * model.vae.encode(to_model(red)).latent_dist.mean.detach()

    def objective(x: Tensor) -> Tensor:
        t = torch.randint(1, 1000, (2,), generator=g)
        z = latents(model, x, g)
        eps, t, zt, wanted = noised(model, z, g, t)
        out = model.unet(zt, t, encoder_hidden_states=text(model, PROMPTS)).sample
        abar = model.alphas[t].view(-1, 1, 1, 1)
        before = model.alphas[t - 1].view(-1, 1, 1, 1)
        alpha = abar / before
        step = (zt - (1 - alpha) / (1 - abar) ** 0.5 * out) / alpha**0.5
        noisy_goal = before**0.5 * goal + (1 - before) ** 0.5 * eps
        return ((out - wanted) ** 2).mean() - ((step - noisy_goal) ** 2).mean()

    expected = pgd(x0, x0, 2, 4 / 255, 10 / 255, objective)
    attack = FSMG(5, step_size=2, steps=2, surrogate_steps=0, target=str(path), training=NO_PRIOR)
    assert agree(ours(attack, model, photos()), from_model(expected), share=0.98)


def naive_aspl(
    model, x0: Tensor, x: Tensor, classes: Tensor | None, f, g: torch.Generator
) -> tuple:
    """One round: train a copy on clean images, climb, train the other on perturbed ones."""
    surrogate = naive.dreambooth(f, x0, PROMPTS, classes, CLASS, 2, RATE, g)
    x = pgd(x0, x, 2, 4 / 255, 10 / 255, lambda x: naive.loss(surrogate, x, PROMPTS, g))
    return x, naive.dreambooth(f, x, PROMPTS, classes, CLASS, 2, RATE, g)


def test_aspl(noise_model: Backbone) -> None:
    model, g, x0 = noise_model, generator(), to_model(photos())
    before = copy.deepcopy(model.state_dict())
    classes = naive.class_images(model, CLASS, 3, g)
    x, f = x0, model
    for _ in range(2):
        x, f = naive_aspl(model, x0, x, classes, f, g)
    attack = ASPL(5, step_size=2, rounds=2, surrogate_steps=2, steps=2, training=IN_ORDER)
    assert agree(ours(attack, model, photos()), from_model(x), share=0.97)
    assert unchanged(model, before)


def test_easpl_averages_models_that_start_together(
    noise_model: Backbone, velocity_model: Backbone, small_sd_v: Path
) -> None:
    g, x0 = generator(), to_model(photos())
    x, fs = x0, [noise_model, velocity_model]
    for _ in range(2):
        ends = []
        for number, f in enumerate(fs):
            end, fs[number] = naive_aspl(f, x0, x, None, f, g)
            ends.append(end)
        x = sum(ends) / 2
    attack = EASPL(
        5,
        step_size=2,
        rounds=2,
        surrogate_steps=2,
        steps=2,
        surrogates=["", str(small_sd_v)],
        training=NO_PRIOR,
    )
    # Seeds of class images are drawn in any case, none of them here.
    assert agree(ours(attack, noise_model, photos()), from_model(x), share=0.97)


def test_caat_moves_images_up_and_projections_down_by_one_backward(noise_model: Backbone) -> None:
    model, g, x0 = copy.deepcopy(noise_model), generator(), to_model(photos())
    kv = [
        parameter
        for name, parameter in model.unet.named_parameters()
        if "attn2.to_k" in name or "attn2.to_v" in name
    ]
    assert kv
    for parameter in kv:
        parameter.requires_grad_(True)

    def published(module: Any, inputs: Any, output: Tensor) -> Tensor:
        mask = torch.ones_like(output)
        mask[:, :1] = 0
        return mask * output + (1 - mask) * output.detach()

    for name, module in model.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            module.register_forward_hook(published)
    optimizer = torch.optim.AdamW(kv, lr=RATE)
    x = x0
    for _ in range(3):
        x = x.detach().requires_grad_()
        flip = torch.rand((), generator=g) < 0.5
        cost = naive.loss(model, torch.flip(x, [3]) if flip else x, PROMPTS, g)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        moved = x + 4 / 255 * x.grad.sign()
        x = (x0 + (moved - x0).clamp(-10 / 255, 10 / 255)).clamp(-1, 1).detach()
    before = copy.deepcopy(noise_model.state_dict())
    attack = CAAT(5, step_size=2, steps=3, learning_rate=RATE)
    assert agree(ours(attack, noise_model, photos()), from_model(x), share=0.98)
    assert unchanged(noise_model, before)


def test_the_first_token_teaches_caats_projections_nothing() -> None:
    weights = torch.nn.Linear(3, 2, bias=False)
    text = torch.zeros(1, 4, 3)
    text[0, 0] = 1.0  # only the first token says anything
    first_token_given(weights, (text,), weights(text)).square().sum().backward()
    assert weights.weight.grad is not None
    assert not weights.weight.grad.any()
    assert torch.equal(first_token_given(weights, (text,), weights(text)), weights(text))


@pytest.mark.parametrize("unnormalised", [False, True])
def test_metacloak(noise_model: Backbone, unnormalised: bool) -> None:
    """Two states in the pool, one trial, two rounds from each."""
    model, g, x0 = noise_model, generator(), to_model(photos())

    def seen(x: Tensor) -> Tensor:
        return from_model(x) * 255 if unnormalised else x

    # One surrogate step, then one more with the optimiser going on.
    pool = [
        naive.dreambooth(model, seen(x0), PROMPTS, None, CLASS, steps, RATE, generator())
        for steps in (1, 2)
    ]
    naive.dreambooth(model, seen(x0), PROMPTS, None, CLASS, 2, RATE, g)

    def objective(x: Tensor, f) -> Tensor:
        sigma = 0.1 + 1.9 * torch.rand((), generator=g).item()
        taps = torch.exp(-0.5 * (torch.linspace(-3, 3, 7) / sigma) ** 2)
        kernel = torch.outer(taps / taps.sum(), taps / taps.sum()).expand(3, 1, 7, 7)
        padded = torch.nn.functional.pad(x, [3, 3, 3, 3], mode="reflect")
        blurred = torch.nn.functional.conv2d(padded, kernel, groups=3)
        flip = torch.rand((), generator=g).item() < 0.5
        return naive.loss(f, blurred.flip(-1) if flip else blurred, PROMPTS, g)

    x = x0
    for f in pool:
        for _ in range(2):
            x = pgd(x0, x, 2, 4 / 255, 10 / 255, lambda x, f=f: objective(x, f))
            f = naive.dreambooth(f, seen(x), PROMPTS, None, CLASS, 1, RATE, g)
    attack = MetaCloak(
        5,
        step_size=2,
        steps=2,
        trials=1,
        advance_steps=1,
        interval=2,
        surrogate_steps=2,
        unnormalised_surrogates=unnormalised,
        training=NO_PRIOR,
    )
    assert attack.pool() == {0, 1}
    assert agree(ours(attack, model, photos()), from_model(x), share=0.96)


def test_metacloak_keeps_the_published_pool() -> None:
    assert sorted(MetaCloak().pool()) == [0, 199, 399, 599, 799, 999]


def test_blur_keeps_flat_images_and_mass() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 2.0), flat)
    point = torch.zeros(1, 3, 17, 17)
    point[..., 8, 8] = 1
    assert gaussian_blur(point, 1.0).sum() == pytest.approx(3, rel=1e-4)


def test_simac_search_against_the_naive_one() -> None:
    """One image, a toy gradient that is small at early timesteps and depends on the image."""

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return (x - 0.4) * (t.view(-1, 1, 1, 1) + 1.0)

    x0 = photos(1)
    attack = SimAC(4, step_size=1)
    [got] = attack.timesteps(x0, slope, 1000, generator())

    g, left, x = generator(), list(range(1000)), x0.clone()
    for _ in range(50):
        if len(left) <= 100:
            break
        tried = [left[i] for i in torch.randperm(len(left), generator=g)[:5]]
        scores = [slope(x, torch.tensor([t])).abs().sum().item() for t in tried]
        worst = tried[scores.index(min(scores))]
        best = tried[scores.index(max(scores))]
        middle = min(max(worst, 20), 980)
        left = [t for t in left if not middle - 20 <= t < middle + 20]
        x = x + 1 / 255 * slope(x, torch.tensor([best])).sign()
        x = (x0 + (x - x0).clamp(-4 / 255, 4 / 255)).clamp(0, 1)
    assert got.tolist() == left
    assert got.float().mean() > 600  # early ones went


@pytest.mark.parametrize("window", [400, 700])
def test_a_wide_window_leaves_timesteps(window: int) -> None:
    def slope(x: Tensor, t: Tensor) -> Tensor:
        return (x - 0.4) * (t.view(-1, 1, 1, 1) + 1.0)

    found = SimAC(4, step_size=1, window=window).timesteps(photos(), slope, 1000, generator())
    assert all(1 <= len(each) <= 1000 for each in found)
    # All of the schedule is within the widest, which therefore strikes out nothing.
    assert (len(found[0]) == 1000) is (window == 700)


def test_simac_climbs_loss_and_feature_distance(
    noise_model: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, g, x0 = noise_model, generator(), to_model(photos())
    kept = [torch.tensor([5, 50, 500]), torch.tensor([7, 70, 700])]
    monkeypatch.setattr(SimAC, "timesteps", lambda *_: kept)
    surrogate = naive.dreambooth(model, x0, PROMPTS, None, CLASS, 1, RATE, g)
    captured: list[Tensor] = []
    for block in surrogate.unet.up_blocks[-1].resnets:
        block.register_forward_hook(lambda _m, _i, out: captured.append(out))

    def objective(x: Tensor) -> Tensor:
        t = torch.stack([each[torch.randperm(3, generator=g)[0]] for each in kept])
        drawn = torch.randn(2, 4, 8, 8, generator=g)
        hidden = text(surrogate, PROMPTS)
        outs, eps = [], None
        captured.clear()
        for image in (x, x0):
            posterior = surrogate.vae.encode(image).latent_dist
            z = 0.18215 * (posterior.mean + posterior.std * drawn)
            if eps is None:
                eps, t, zt, wanted = noised(surrogate, z, g, t)
            else:
                abar = surrogate.alphas[t].view(-1, 1, 1, 1)
                zt = abar**0.5 * z + (1 - abar) ** 0.5 * eps
            outs.append(surrogate.unet(zt, t, encoder_hidden_states=hidden).sample)
        half = len(captured) // 2
        pairs = zip(captured[:half], captured[half:], strict=True)
        feature = sum(((a - b.detach()) ** 2).mean() for a, b in pairs) / half
        return ((outs[0] - wanted) ** 2).mean() + 3 * feature

    # The first step of the features starts where perturbed and clean are equal: its gradient is 0.
    expected = pgd(x0, x0, 2, 4 / 255, 10 / 255, objective)
    attack = SimAC(
        5, step_size=2, rounds=1, surrogate_steps=1, steps=2, feature_weight=3, training=NO_PRIOR
    )
    got = ours(attack, model, photos())
    assert agree(got, from_model(expected), share=0.97)
    attack.feature_weight = 0
    assert not agree(ours(attack, model, photos()), got, share=0.97)


def test_features_need_a_unet(noise_model: Backbone) -> None:
    class NoBlocks:
        denoiser = torch.nn.Linear(1, 1)

    with (
        pytest.raises(ValueError, match=r"set data\.attack\.feature_weight to 0"),
        simac_module.last_features(NoBlocks()),  # type: ignore[arg-type]
    ):
        pass


def test_a_lora_surrogate_costs_its_adapters(noise_model: Backbone) -> None:
    before = copy.deepcopy(noise_model.state_dict())
    state = torch.get_rng_state()
    training = SurrogateTraining(method="lora", learning_rate=RATE, num_class_images=0)
    surrogate = Surrogate(noise_model, training, PROMPTS, photos(), generator())
    assert torch.equal(torch.get_rng_state(), state)
    lent = {p.data_ptr() for p in noise_model.parameters()}
    own = [name for name, p in surrogate.model.named_parameters() if p.data_ptr() not in lent]
    assert own
    assert all("lora_" in name for name in own)
    assert len(own) == len(surrogate.learners)
    start = surrogate.weights()
    surrogate.train(surrogate.encode(photos()), 2)
    moved = [not torch.equal(a, b) for a, b in zip(start, surrogate.weights(), strict=True)]
    assert any(moved)
    surrogate.load(start)
    assert all(torch.equal(a, b) for a, b in zip(start, surrogate.weights(), strict=True))
    assert unchanged(noise_model, before)


def test_a_lora_surrogate_of_a_model_with_adapters_has_its_own(noise_model: Backbone) -> None:
    lent = copy.deepcopy(noise_model)
    lent.add_lora(unet=True, text_encoder=False, rank=2, alpha=2, dropout=0.0, dora=False)
    lent.requires_grad_(False)
    before = copy.deepcopy(lent.state_dict())
    training = SurrogateTraining(method="lora", rank=3, learning_rate=RATE, num_class_images=0)
    surrogate = Surrogate(lent, training, PROMPTS, photos(), generator())
    assert {min(each.shape) for each in surrogate.learners} == {3}
    plain = Surrogate(noise_model, training, PROMPTS, photos(), generator())
    for one in (surrogate, plain):
        one.train(one.encode(photos()), 1)
    torch.testing.assert_close(surrogate.weights(), plain.weights(), rtol=0, atol=1e-6)
    assert unchanged(lent, before)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_a_full_surrogate_leaves_adapters_behind(noise_model: Backbone, kind: Any) -> None:
    lent = copy.deepcopy(noise_model)
    shape = {"kind": kind, "rank": 2, "alpha": 2, "dropout": 0.0, "dora": False}
    lent.add_lora(unet=True, text_encoder=False, **shape)
    lent.requires_grad_(False)
    before = copy.deepcopy(lent.state_dict())
    full = Surrogate(lent, NO_PRIOR, PROMPTS, photos(), generator())
    plain = Surrogate(noise_model, NO_PRIOR, PROMPTS, photos(), generator())
    for one in (full, plain):
        one.train(one.encode(photos()), 1)
    torch.testing.assert_close(full.weights(), plain.weights(), rtol=0, atol=1e-6)
    recipe = SurrogateTraining(method="lora", num_class_images=0)
    lora = Surrogate(lent, recipe, PROMPTS, photos(), generator())
    assert all("lora_" in name for name, _ in named(lora))
    assert unchanged(lent, before)


def named(surrogate: Surrogate) -> list[tuple[str, torch.Tensor]]:
    """Its learners with their names."""
    learners = {id(each) for each in surrogate.learners}
    return [(n, p) for n, p in surrogate.model.named_parameters() if id(p) in learners]


def test_bf16_weights_hardly_move_at_the_published_rate(noise_model: Backbone) -> None:
    shares = {}
    for dtype in ("fp32", "bf16_ref"):
        training = SurrogateTraining(dtype=dtype, num_class_images=0)  # type: ignore[arg-type]
        surrogate = Surrogate(noise_model, training, PROMPTS, photos(), generator())
        before = surrogate.weights()
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=dtype == "bf16_ref", cache_enabled=False
        ):
            surrogate.train(surrogate.encode(photos()), 3)
        pairs = list(zip(before, surrogate.weights(), strict=True))
        moved = sum((a != b).sum().item() for a, b in pairs)
        shares[dtype] = moved / sum(a.numel() for a, _ in pairs)
    assert shares["bf16_ref"] < 0.05
    assert shares["fp32"] > 0.8


def test_bf16_reference_runs_in_bf16(noise_model: Backbone) -> None:
    training = SurrogateTraining(dtype="bf16_ref", num_class_images=0)
    attack = ASPL(5, step_size=2, rounds=1, surrogate_steps=1, steps=1, training=training)
    assert attack.computes_in_bf16
    assert (ours(attack, noise_model, photos()) != photos()).any()
    with pytest.raises(ValueError, match=r"data\.attack\.training\.dtype 'bf16_ref'"):
        SurrogateTraining(dtype="bf16_ref", method="lora")


def test_orders_of_images(noise_model: Backbone) -> None:
    def firsts(training: SurrogateTraining) -> list[int]:
        surrogate = Surrogate(noise_model, training, PROMPTS, photos(), generator())
        return [row for _ in range(4) for row, _ in surrogate._rows(4, 3)]

    assert firsts(NO_PRIOR) == [0, 1, 2] * 4
    shuffled = firsts(SurrogateTraining(num_class_images=0))
    assert all(sorted(shuffled[i : i + 4]) == [0, 1, 2, 3] for i in (0, 4, 8))
    assert shuffled[:4] != shuffled[4:8] or shuffled[4:8] != shuffled[8:]


def test_surrogates_learn_from_private_images(noise_model: Backbone, tmp_path: Path) -> None:
    for number, image in enumerate(photos(3, side=48, seed=9)):
        levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(tmp_path / f"{number}.png")
    (tmp_path / "captions.txt").write_text("a photo")
    training = SurrogateTraining(
        learning_rate=RATE, num_class_images=0, clean_data_dir=str(tmp_path)
    )
    assert training.clean_images(photos()).shape == (3, 3, 32, 32)
    attack = FSMG(5, step_size=2, steps=1, surrogate_steps=3, training=training)
    known = FSMG(5, step_size=2, steps=1, surrogate_steps=3, training=NO_PRIOR)
    assert not torch.equal(ours(attack, noise_model, photos()), ours(known, noise_model, photos()))
    nowhere = SurrogateTraining(clean_data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"No images: .*training\.clean_data_dir.*does not exist"):
        nowhere.clean_images(photos())


def test_a_damaged_private_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    training = SurrogateTraining(clean_data_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"training\.clean_data_dir: 1 of 1 .*broken\.jpg cannot be"
    ):
        training.clean_images(photos())


def test_a_surrogate_by_name_is_attacked_instead(
    noise_model: Backbone, velocity_model: Backbone, small_sd_v: Path
) -> None:
    from shortcut_lightning.attacks import AdvDM

    transferred = AdvDM(5, step_size=2, steps=1, surrogate=str(small_sd_v))
    direct = AdvDM(5, step_size=2, steps=1)
    got = ours(transferred, noise_model, photos())
    assert torch.equal(got, ours(direct, velocity_model, photos()))
    assert not torch.equal(got, ours(direct, noise_model, photos()))


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"data\.attack\.surrogates is empty"):
        EASPL(surrogates=[])
    with pytest.raises(
        ValueError, match=r"ASPL\.step_size is 0; it must be above 0 and at most 255"
    ):
        ASPL(step_size=0)
    with pytest.raises(ValueError, match=r"FSMG\.steps is 0"):
        FSMG(steps=0)
    with pytest.raises(ValueError, match=r"SimAC\.rounds is 0; it must be at least 1"):
        SimAC(rounds=0)
    with pytest.raises(ValueError, match=r"surrogate_steps is -1; it must be at least 0"):
        ASPL(surrogate_steps=-1)
    for given in ({"trials": 0}, {"advance_steps": 0}, {"surrogate_steps": 0}):
        [(key, _)] = given.items()
        with pytest.raises(ValueError, match=rf"MetaCloak\.{key} is 0; it must be at least 1"):
            MetaCloak(**given)
    with pytest.raises(ValueError, match=r"data\.attack\.interval is 2; .* which is 3"):
        MetaCloak(interval=2, advance_steps=3)
