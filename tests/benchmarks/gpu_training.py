"""Training steps: DreamBooth under Lightning's Trainer beside a plain loop as diffusers' examples
have it, on the same networks.

The plain loop is written down from the examples' documented behaviour: networks that do not learn
in bfloat16 (SDXL's autoencoder in float32), autocast, text and latents computed in every step,
AdamW without fusion, gradient clipping, the loss shown at every step.
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from gpu_measure import MOST, WARM, Bench, Row, Skipped, Way
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, IterableDataset

from shortcut_lightning.backbones import Backbone, Conditioning
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Compute

PROMPT = "a photo of sks person"
Build = Callable[[torch.device, bool], Backbone]


class Pictures(IterableDataset):
    """Batches without end: random pictures, no class images."""

    def __init__(self, side: int, count: int) -> None:
        self.images = torch.rand(count, 3, side, side)

    def __iter__(self) -> Iterator[TrainBatch]:
        count, first = len(self.images), 0
        while True:
            draws = torch.arange(first, first + count)
            yield TrainBatch(
                self.images, [PROMPT] * count, torch.zeros(count, dtype=torch.bool), draws
            )
            first += count


class Watch(pl.Callback):
    """Times steps after the warm-up and ends training when this way's time is over."""

    def __init__(self, bench: Bench, warm: int) -> None:
        self.bench, self.warm, self.seconds = bench, warm, []
        self.start = self.end = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.bench.synchronize()
        now = time.perf_counter()
        done = trainer.global_step - self.warm
        if done == 0:
            self.end = now + self.bench.slice_s
        elif done > 0:  # from one start to the next, so that loading and logging count
            self.seconds.append(now - self.start)
            trainer.should_stop = len(self.seconds) >= MOST or now > self.end
        self.start = now


def module_of(
    backbone: Backbone, fused: bool = True, compute: Mapping[str, bool] = {}, **settings: Any
) -> DreamBooth:
    """DreamBooth on networks that are there already; `compute` as its settings of that name."""

    class Given(DreamBooth):
        def _load(self) -> Backbone:
            return backbone

        def _new_optimizer(self, fused: bool) -> Any:
            return super()._new_optimizer(fused and self.wants_fused)

        wants_fused = fused

    held = Compute(frozen_dtype="bf16", **compute)
    return Given(learning_rate=5e-6, compute=held, **settings)


def ours(bench: Bench, module: DreamBooth, count: int, warm: int = WARM) -> Way:
    """A step through the Trainer, as `fit` takes it."""
    watch = Watch(bench, warm)
    bench.reset_peak()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=10**6,
            accelerator="gpu" if bench.device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            gradient_clip_val=1.0,
            logger=pl.loggers.CSVLogger(folder),
            default_root_dir=folder,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        pictures = Pictures(module.backbone.resolution, count)
        trainer.fit(module, DataLoader(pictures, batch_size=None))
    way = bench.way(watch.seconds)
    module.to(bench.device)  # the trainer leaves it on the host
    return way


def there_and_back(bench: Bench, module: DreamBooth, count: int) -> Callable[[], None]:
    """A step, forward and backward, without the optimiser."""
    batch = next(iter(Pictures(module.backbone.resolution, count)))
    moved = batch._replace(
        images=batch.images.to(bench.device),
        is_prior=batch.is_prior.to(bench.device),
        draws=batch.draws.to(bench.device),
    )

    def step() -> None:
        with bench.autocast:
            loss = module(moved)["loss"]
        loss.backward()
        module.zero_grad(set_to_none=True)

    return step


def plain(bench: Bench, model: Any, count: int, words: Conditioning | None = None) -> Way:
    """A step of the plain loop on the same networks; `words` where they are embedded beforehand."""
    learning = [p for p in model.denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=5e-6, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    xl = hasattr(model, "text_encoder_2") and hasattr(model, "unet")
    dtype = torch.float32 if xl else torch.bfloat16
    model.vae.to(dtype)
    pictures = torch.rand(count, 3, model.resolution, model.resolution)

    def step() -> None:
        pixels = (pictures * 2 - 1).to(bench.device, dtype)
        with torch.no_grad():
            latents = model.vae.encode(pixels).latent_dist.sample().float()
            latents = (latents - model.latent_shift) * model.latent_scale
        said = words if words else model.embed([PROMPT] * count)
        noise = torch.randn_like(latents)
        steps = torch.randint(model.num_train_timesteps, (count,), device=bench.device)
        noisy = model.add_noise(latents, noise, steps)
        with bench.autocast:
            predicted = _denoised(model, noisy, steps, said)
        target = model.target(latents, noise, steps)
        loss = functional.mse_loss(predicted.float(), target.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # the example shows the loss in its progress bar

    try:
        return bench.timed(step)
    finally:
        model.vae.float()


def _denoised(model: Any, noisy: Tensor, steps: Tensor, words: Conditioning) -> Tensor:
    if not hasattr(model, "unet"):  # FLUX's packing of latents is the stock pipeline's either way
        return model.predict(noisy, steps, words)
    more = {}
    if hasattr(model, "text_encoder_2"):
        side = model.resolution
        sizes = torch.tensor([[side, side, 0, 0, side, side]], device=noisy.device)
        added = {"text_embeds": words.pooled, "time_ids": sizes.expand(len(noisy), -1).float()}
        more = {"added_cond_kwargs": added}
    return model.unet(noisy, steps, words.hidden, return_dict=False, **more)[0]


def step(build: Build, method: str, count: int, **settings: Any) -> Callable[[Bench, Row], None]:
    """A measurement: both ways of a training step of one layout."""

    def measure(bench: Bench, row: Row) -> None:
        row.note = f"batch {1 if bench.tiny else count}"
        some = 1 if bench.tiny else count
        backbone = build(bench.device, bench.tiny)
        module = module_of(backbone, method=method, **settings).to(bench.device)
        row.teraflops = bench.teraflops(there_and_back(bench, module, some))
        row.ours = ours(bench, module, some)
        bench.kept[row.name] = row.ours
        bench.clear()
        row.plain = plain(bench, backbone, some)

    return measure


def flux_step(build: Build, nf4: bool) -> Callable[[Bench, Row], None]:
    """A LoRA step of FLUX's size, its activations recomputed, its prompts embedded beforehand."""

    # At this size cuDNN's attention failed backward where operations are counted (torch 2.11 on an
    # H100: "mha_graph.execute ... is_good"), and flash attention did not.
    @sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    def measure(bench: Bench, row: Row) -> None:
        row.note = "batch 1, recomputed activations, whose operations count"
        try:
            backbone: Any = build(bench.device, bench.tiny)
        except ImportError as error:
            raise Skipped(f"no family Flux in this version ({error})") from error
        module = module_of(
            backbone,
            method="lora",
            rank=16,
            compute={"gradient_checkpointing": True, "cache_text_embeddings": True},
        ).to(bench.device)
        if nf4:
            quantized(backbone.denoiser, bench.device)
        config = backbone.denoiser.config
        words = Conditioning(
            torch.randn(1, 16 if bench.tiny else 512, config.joint_attention_dim),
            torch.randn(1, config.pooled_projection_dim),
        )
        words = Conditioning(words.hidden.to(bench.device), words.pooled.to(bench.device))
        module._text_cache[PROMPT] = words
        row.teraflops = bench.teraflops(there_and_back(bench, module, 1))
        row.ours = ours(bench, module, 1)
        bench.clear()
        row.plain = plain(bench, backbone, 1, words)

    return measure


def quantized(network: torch.nn.Module, device: torch.device) -> None:
    """Puts NF4 layers of bitsandbytes in the place of frozen ones. Raises Skipped without it."""
    try:
        import bitsandbytes as bnb
    except ImportError as error:
        raise Skipped("bitsandbytes is not installed (extra gpu)") from error
    for name, layer in list(network.named_modules()):
        if type(layer) is not torch.nn.Linear or "lora_" in name:
            continue
        small = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        small.weight = bnb.nn.Params4bit(
            layer.weight.data, requires_grad=False, quant_type="nf4"
        ).to(device)
        small.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, small)


def variant(
    build: Build, of: str, count: int, change: Callable[[Backbone], None] | None = None,
    fused: bool = True, least_s: float = 0.0, **settings: Any,
) -> Callable[[Bench, Row], None]:  # fmt: skip
    """A measurement: our LoRA step with one thing changed, against the row `of` without it.

    `least_s` is what it needs on a card, where it would otherwise overrun.
    """

    def measure(bench: Bench, row: Row) -> None:
        row.against, row.plain = f"ours in '{of}'", bench.kept.get(of)
        row.note = f"batch {1 if bench.tiny else count}"
        if not row.plain:
            raise Skipped(f"'{of}' was not measured")
        if settings.get("compute"):
            bench.may_compile(least_s)
        backbone = build(bench.device, bench.tiny)
        if change:
            change(backbone)
        module = module_of(backbone, fused=fused, method="lora", **settings).to(bench.device)
        row.ours = ours(bench, module, 1 if bench.tiny else count)

    return measure
