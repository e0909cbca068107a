"""A model asked in plain loops, one image at a time, to compare scores with."""

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership.pictures import content_key


class Plain:
    """The model by its parts, one image at a time: encodes, noises and predicts without batching,
    sharing or caches."""

    def __init__(self, model: Backbone, image: Tensor, caption: str, seed: int = 0) -> None:
        self.model, self.image, self.caption, self.seed = model, image, caption, seed
        self.key = torch.tensor([content_key(image)])
        self.alphas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
        self.alphas = (1 - self.alphas.square()).cumprod(0)
        self.z = self.encode(image, "image")

    def encode(self, image: Tensor, draw: str) -> Tensor:
        latent = self.model.vae.encode(image[None] * 2 - 1).latent_dist
        noise = self.noise(f"posterior {draw}", latent.mean)
        return (latent.mean + latent.std * noise) * 0.18215

    def noise(self, draw: str, like: Tensor | None = None) -> Tensor:
        like = self.z if like is None else like
        return draws.normal(like.shape[1:], self.seed, f"membership {draw}", self.key)

    def noise_at(self, step: int, repeat: int = 0) -> Tensor:
        return self.noise(f"noise t{step} #{repeat}")

    def noised(self, z: Tensor, noise: Tensor, step: int) -> Tensor:
        a = float(self.alphas[step])
        return a**0.5 * z + (1 - a) ** 0.5 * noise

    def eps(self, x: Tensor, step: int, caption: str | None = None) -> Tensor:
        text = self.caption if caption is None else caption
        ids = self.model.tokenizer(
            text, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        out = self.model.unet(x, step, self.model.text_encoder(ids)[0]).sample
        a = float(self.alphas[step])
        if self.model.prediction_type == "v_prediction":
            return a**0.5 * out + (1 - a) ** 0.5 * x
        return out

    def mse(self, step: int, caption: str | None = None, repeat: int = 0) -> float:
        noise = self.noise_at(step, repeat)
        predicted = self.eps(self.noised(self.z, noise, step), step, caption)
        return float((predicted - noise).square().mean())
