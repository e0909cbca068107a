"""What published scripts do, written out plainly: images in [-1, 1], the parts of the model called
by hand, gradients by `backward` for everything. Slow and without options, to hold ours against."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.attacks import Attack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.freezing import frozen

PROMPTS = ["a photo of sks person", "a photo of sks dog"]


def photos(count: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth 8-bit images in [0, 1] without values at the ends."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 4, 4, generator=generator)
    large = functional.interpolate(small, (side, side), mode="bilinear")
    return (large * 155 + 50).round() / 255


def ours(attack: Attack, backbone: Backbone, images: Tensor, seed: int = 3) -> Tensor:
    """The method without the base class's rounding."""
    with frozen(backbone), torch.enable_grad():
        generator = torch.Generator().manual_seed(seed)
        return attack.run(images.clone(), backbone, PROMPTS[: len(images)], generator).detach()


def agree(got: Tensor, expected: Tensor, share: float = 0.99) -> bool:
    """Whether nearly all pixels are within a twentieth of a level. A gradient near zero may round
    to either sign, so a few pixels may differ by a step."""
    return ((got - expected).abs() * 255 < 0.05).float().mean().item() >= share


def to_model(images: Tensor) -> Tensor:
    return images * 2 - 1


def from_model(images: Tensor) -> Tensor:
    return (images + 1) / 2


def text(model, prompts: list[str]) -> Tensor:
    ids = model.tokenizer(
        prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids
    return model.text_encoder(ids)[0]


def latents(model, x: Tensor, g: torch.Generator) -> Tensor:
    posterior = model.vae.encode(x).latent_dist
    drawn = torch.randn(posterior.mean.shape, generator=g)
    return model.vae.config.scaling_factor * (posterior.mean + posterior.std * drawn)


def noised(model, z: Tensor, g: torch.Generator, t: Tensor | None = None):
    """Noise, timesteps, noisy latents and target."""
    eps = torch.randn(z.shape, generator=g)
    if t is None:
        t = torch.randint(len(model.alphas), (len(z),), generator=g)
    abar = model.alphas[t].view(-1, 1, 1, 1)
    zt = abar**0.5 * z + (1 - abar) ** 0.5 * eps
    if model.prediction_type == "v_prediction":
        return eps, t, zt, abar**0.5 * eps - (1 - abar) ** 0.5 * z
    return eps, t, zt, eps


def loss(model, x: Tensor, prompts: list[str], g: torch.Generator, t: Tensor | None = None):
    z = latents(model, x, g)
    _, t, zt, target = noised(model, z, g, t)
    out = model.unet(zt, t, encoder_hidden_states=text(model, prompts)).sample
    return functional.mse_loss(out.float(), target.float(), reduction="mean")


def pgd(
    x0: Tensor,
    x: Tensor,
    steps: int,
    alpha: float,
    eps: float,
    objective: Callable[[Tensor], Tensor],
    ascending: bool = True,
) -> Tensor:
    """alpha and eps in [-1, 1] units."""
    for _ in range(steps):
        x = x.detach().clone().requires_grad_(True)
        objective(x).backward()
        moved = x + (alpha if ascending else -alpha) * x.grad.sign()
        x = torch.clamp(x0 + torch.clamp(moved - x0, min=-eps, max=eps), min=-1, max=1).detach()
    return x


def dreambooth(
    model,
    instances: Tensor,
    prompts: list[str],
    classes: Tensor | None,
    class_prompt: str,
    steps: int,
    lr: float,
    g: torch.Generator,
    batch_size: int = 1,
):
    """A trained deep copy; images in order from the first, gradients clipped to 1."""
    model = copy.deepcopy(model)
    parameters = list(model.unet.parameters()) + list(model.text_encoder.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters, lr=lr, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
    )
    for step in range(steps):
        rows = [(step * batch_size + i) % len(instances) for i in range(batch_size)]
        x, said = instances[rows], [prompts[row] for row in rows]
        if classes is not None:
            x = torch.cat(
                [x, classes[[(step * batch_size + i) % len(classes) for i in range(batch_size)]]]
            )
            said = said + [class_prompt] * batch_size
        with torch.no_grad():
            z = latents(model, x, g)
        _, t, zt, target = noised(model, z, g)
        out = model.unet(zt, t, encoder_hidden_states=text(model, said)).sample
        cost = functional.mse_loss(out[:batch_size], target[:batch_size])
        if classes is not None:
            cost = cost + 1.0 * functional.mse_loss(out[batch_size:], target[batch_size:])
        cost.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def class_images(model, prompt: str, count: int, g: torch.Generator) -> Tensor:
    seeds = torch.randint(2**31, (count,), generator=g).tolist()
    return to_model(model.sample([prompt] * count, seeds=seeds))
