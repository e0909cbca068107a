"""Attack steps, membership scores and sampling beside plain loops, on the same layout.

The plain loops are written down from what published scripts do: attacks embed the prompt in every
step and compute gradients for all weights, held in bfloat16; CLiD takes one picture and one caption
at a time, in float32; sampling is the stock pipeline.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from gpu_measure import Bench, Row
from gpu_training import PROMPT, Build
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.attacks import ASPL, AdvDM, SurrogateTraining
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.freezing import frozen
from shortcut_lightning.membership import CLiD, Engine, picture
from shortcut_lightning.membership.reducers import clip

SIZE, EPSILON = 0.6375, 11.0  # of a step and of the ball, in /255
TIMESTEPS = (440, 450, 460)


def attack(build: Build, trains: bool, count: int) -> Callable[[Bench, Row], None]:
    """A measurement: AdvDM, or with a surrogate that trains ASPL; a step of all pictures."""

    def measure(bench: Bench, row: Row) -> None:
        some, steps = (1, 2) if bench.tiny else (count, 6)
        row.note = f"{some} pictures" + ("; training of the surrogate included" if trains else "")
        model = build(bench.device, bench.tiny).eval().requires_grad_(False)
        images = torch.rand(some, 3, model.resolution, model.resolution, device=bench.device)
        method: Attack = AdvDM(EPSILON, step_size=SIZE, steps=steps, bf16=True)
        if trains:
            training = SurrogateTraining(num_class_images=0, order="ref")
            method = ASPL(EPSILON, SIZE, rounds=1, steps=steps, training=training, bf16=True)

        def run() -> None:
            with frozen(model), torch.enable_grad():
                generator = torch.Generator().manual_seed(0)
                method.run(images.clone(), model, [PROMPT] * some, generator)

        row.teraflops = bench.teraflops(run) / steps
        row.ours = bench.timed(run, units=steps, warm=1)
        bench.clear()
        loop = plain_attack(model, images, steps, trains)
        row.plain = bench.timed(loop, units=steps, warm=1)

    return measure


def plain_attack(model: Any, images: Tensor, steps: int, trains: bool) -> Callable[[], None]:
    """The published inner loop, and around it the copy that trains."""
    halves = copy.deepcopy(model).to(torch.bfloat16)
    clean = (images * 2 - 1).bfloat16()

    def loss(of: Any, x: Tensor) -> Tensor:
        latents = of.vae.encode(x).latent_dist.sample() * of.latent_scale
        noise = torch.randn_like(latents)
        at = torch.randint(of.num_train_timesteps, (len(x),), device=x.device)
        noisy = model.add_noise(latents.float(), noise.float(), at).bfloat16()
        words = of.text_encoder(of.token_ids(of.tokenizer, [PROMPT] * len(x)))[0]
        out = of.unet(noisy, at, words, return_dict=False)[0]
        return functional.mse_loss(out.float(), noise.float())

    def trained(of: Any, x: Tensor) -> Any:
        of = copy.deepcopy(of)
        weights = [*of.unet.parameters(), *of.text_encoder.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=5e-7, weight_decay=1e-2)
        for number in range(3):
            loss(of, x[[number % len(x)]]).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return of

    def run() -> None:
        of = halves
        of.unet.requires_grad_(True)
        of.text_encoder.requires_grad_(True)
        of, x = trained(of, clean) if trains else of, clean
        for _ in range(steps):
            x = x.detach().clone().requires_grad_(True)
            of.unet.zero_grad()
            of.text_encoder.zero_grad()
            loss(of, x).backward()
            moved = x + 2 * SIZE / 255 * x.grad.sign()
            reach = 2 * EPSILON / 255
            x = (clean + (moved - clean).clamp(-reach, reach)).clamp(-1, 1).detach()
        if trains:
            trained(of, x)

    return run


def clid(
    build: Build, bf16: bool, count: int, compiled: bool = False
) -> Callable[[Bench, Row], None]:
    """A measurement: CLiD at 15 queries, a picture; with the denoiser compiled."""

    def measure(bench: Bench, row: Row) -> None:
        if compiled:
            bench.may_compile(least_s=60)
        some = 2 if bench.tiny else count
        row.unit = "picture"
        row.note = "bfloat16 against float32" if bf16 else "float32, as published"
        model: Any = build(bench.device, bench.tiny).eval().requires_grad_(False)
        caption = "a photo of sks dog in the noisy beach"
        side = model.resolution
        pictures = [
            picture(f"{number}", caption, torch.rand(3, side, side), side) for number in range(some)
        ]

        def run(number: int = some) -> None:
            settings = {"bf16": bf16, "compile_denoiser": compiled and number == some}
            engine = Engine({"model": model}, progress=False, **settings)
            engine.measure(pictures[:number], {"CLiD": CLiD()}, ["model"])

        row.teraflops = bench.teraflops(lambda: run(1))
        row.ours = bench.timed(run, units=some, warm=1)
        bench.clear()
        row.plain = bench.timed(plain_clid(model, pictures[0].pixels(), caption), warm=1)

    return measure


def plain_clid(model: Any, image: Tensor, caption: str) -> Callable[[], None]:
    """One picture: five captions in turn, three timesteps in a call."""

    @torch.no_grad()
    def run() -> None:
        device = model.alphas.device
        pixels = image[None].to(device) * 2 - 1
        latent = model.vae.encode(pixels).latent_dist.sample() * model.latent_scale
        noise = torch.randn(3, *latent.shape[1:], device=device)
        steps = torch.tensor(TIMESTEPS, device=device)
        noisy = model.add_noise(latent.expand(3, -1, -1, -1), noise, steps)
        for words in (caption, *clip(caption), ""):
            hidden = model.text_encoder(model.token_ids(model.tokenizer, [words]))[0]
            out = model.unet(noisy, steps, hidden.expand(3, -1, -1), return_dict=False)[0]
            (out - noise).square().mean().item()

    return run


def sampling(build: Build, count: int) -> Callable[[Bench, Row], None]:
    """A measurement: pictures of 25 steps with guidance, weights in bfloat16."""

    def measure(bench: Bench, row: Row) -> None:
        some, steps = (1, 2) if bench.tiny else (count, 25)
        row.unit, row.note = "picture", f"{steps} steps, {some} at a time"
        model: Any = build(bench.device, bench.tiny).eval().requires_grad_(False)
        model.denoiser.to(torch.bfloat16)
        model.text_encoder.to(torch.bfloat16)

        def run() -> None:
            model.sample([PROMPT] * some, seeds=range(some), num_inference_steps=steps)

        row.teraflops = bench.teraflops(run) / some
        row.ours = bench.timed(run, units=some, warm=1)
        bench.clear()
        model.vae.to(torch.bfloat16)
        stock = model.pipeline()
        row.plain = bench.timed(
            lambda: stock([PROMPT] * some, num_inference_steps=steps, output_type="np"),
            units=some,
            warm=1,
        )

    return measure
