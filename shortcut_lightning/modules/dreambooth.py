"""DreamBooth (arXiv 2208.12242) on any backbone: the whole model, LoRA, text encoder, new words.

What is special about a method that builds on it (contrastive decoupling, geometry erasure) comes
with the batch: its prompts and its loss weights. The step itself is the same for all.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shortcut_lightning import backbones, draws
from shortcut_lightning.backbones import Backbone, Conditioning
from shortcut_lightning.backbones.base import WeightingScheme
from shortcut_lightning.batch import PromptBatch, TrainBatch
from shortcut_lightning.losses import DreamBoothLoss, contrast_loss
from shortcut_lightning.losses.contrast import denoising_errors
from shortcut_lightning.modules.optimized import Optimized
from shortcut_lightning.modules.optimizers import Group
from shortcut_lightning.modules.settings import (
    KEYS,
    AdamSettings,
    AdapterShape,
    Compute,
    Sampling,
    flat,
)
from shortcut_lightning.modules.trainable import (
    DTYPES,
    FrozenDtype,
    Method,
    choose_trainable,
    shrink_frozen,
    trainable_groups,
)
from shortcut_lightning.ranges import (
    Chunks,
    CountOrNone,
    NotNegative,
    Positive,
    Ranged,
    Rank,
)

log = logging.getLogger(__name__)
Schedule = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
]


class DreamBooth(Ranged, Optimized):
    """Fine-tunes a text-to-image model on a few images of one subject.

    Args:
        pretrained_model_name_or_path: `pocket`, a diffusers folder, a hub id, or a checkpoint of
            Stable Diffusion 1.x, 2.x or XL in one file (`.safetensors`, `.ckpt`).
        revision: Branch, tag or commit on the hub.
        variant: Weight file variant, for example `fp16`.
        single_file_config: For a single file, the folder of CLIP's tokenizer, or a diffusers folder
            whose tokenizer and configurations are taken; empty looks for `tokenizer/` beside it.
        lora: A LoRA file or folder (diffusers or kohya keys), merged into the weights first.
        embeddings: Textual-inversion files, loaded first.
        method: `full` trains the weights themselves, `lora` adapters on the attention layers;
            `loha` and `lokr` are adapters of Hadamard and Kronecker products (LyCORIS).
        train_unet: Whether the denoiser learns.
        train_text_encoder: Whether the text encoder learns, by the same method.
        rank: Rank of the adapters.
        adapter: Its fine points: scale, dropout, layers.
        new_tokens: Words to add to the vocabulary and learn.
        token_initializers: A known word for each new token; empty draws random directions.
        prompt_chunks: Rows of 75 words that a prompt may fill; 1 cuts prompts at 75 words. Each
            prompt fills them all, here and in sampling.
        prior_loss_weight: Weight of the class images' loss.
        snr_gamma: Min-SNR gamma (arXiv 2303.09556); 0 is off.
        noise_offset: Strength of a constant added to each noise channel; 0 is off.
        weighting_scheme: How a rectified flow draws its timesteps and weighs their errors, by the
            names of diffusers: `logit_normal` (arXiv 2403.03206), `none` (uniform), `mode`,
            `sigma_sqrt`, `cosmap`; and `u_shaped`, which keeps off the middle of the path, where
            members of the training set are told best (arXiv 2603.13421).
        train_guidance: What a guidance-distilled model (FLUX.1 dev) is told while it learns; 1 or
            3.5 are usual.
        learning_rate: Of the denoiser.
        text_encoder_lr: Of the text encoder; 0 takes `learning_rate`.
        token_lr: Of new tokens; 0 takes `learning_rate`.
        adam: AdamW's own settings.
        lr_scheduler: A schedule of diffusers that needs no rules of its own.
        lr_warmup_steps: Optimiser steps of linear warm-up; under `constant`, where diffusers passes
            over them, they are refused.
        compute: How the networks are held and run: memory and time.
        sampling: How pictures are made in `test` and `predict`.
    """

    def __init__(
        self,
        pretrained_model_name_or_path: str = "pocket",
        revision: str = "",
        variant: str = "",
        single_file_config: str = "",
        lora: str = "",
        embeddings: list[str] = [],  # noqa: B006
        method: Method = "full",
        train_unet: bool = True,
        train_text_encoder: bool = False,
        rank: Rank = 4,
        adapter: AdapterShape = AdapterShape(),  # noqa: B008
        new_tokens: list[str] = [],  # noqa: B006
        token_initializers: list[str] = [],  # noqa: B006
        prior_loss_weight: NotNegative = 1.0,
        snr_gamma: NotNegative = 0.0,
        noise_offset: NotNegative = 0.0,
        weighting_scheme: WeightingScheme = "logit_normal",
        train_guidance: NotNegative = 1.0,
        learning_rate: Positive = 5e-6,
        text_encoder_lr: NotNegative = 0.0,
        token_lr: NotNegative = 0.0,
        adam: AdamSettings = AdamSettings(),  # noqa: B008
        lr_scheduler: Schedule = "constant",
        lr_warmup_steps: CountOrNone = 0,
        compute: Compute = Compute(),  # noqa: B008
        sampling: Sampling = Sampling(),  # noqa: B008
        prompt_chunks: Chunks = 1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["adapter", "adam", "compute", "sampling"])
        self.save_hyperparameters(flat(adapter, adam, compute, sampling))
        if compute.frozen_dtype == "nf4" and (method != "lora" or lora):
            raise ValueError(
                "model.compute.frozen_dtype nf4 stores weights in 4 bits, which neither learn nor "
                "take in another adapter: set model.method to 'lora' and leave model.lora empty."
            )
        if lr_warmup_steps and lr_scheduler == "constant":
            raise ValueError(
                f"model.lr_warmup_steps is {lr_warmup_steps}, and model.lr_scheduler 'constant' "
                "warms nothing up: set it to 'constant_with_warmup', or the steps to 0."
            )
        self.backbone = self._load()
        self.backbone.check_sampler(sampling.scheduler)
        self._refuse()
        choose_trainable(
            self.backbone,
            method=method,
            train_unet=train_unet,
            train_text_encoder=train_text_encoder,
            rank=rank,
            alpha=adapter.alpha or rank,
            dropout=adapter.dropout,
            dora=adapter.dora,
            new_tokens=new_tokens,
            token_initializers=token_initializers,
            convolutions=adapter.convolutions,
            ranks=adapter.rank_pattern,
            alphas={} if adapter.alpha else adapter.rank_pattern,
        )
        shrink_frozen(self.backbone, compute.frozen_dtype)
        if compute.gradient_checkpointing:
            self.backbone.enable_gradient_checkpointing(compute.checkpointed_blocks)
        self.text_learns = any(p.requires_grad for p in self.backbone.text_encoders.parameters())
        if compute.cache_text_embeddings and self.text_learns:
            raise ValueError(
                "model.compute.cache_text_embeddings keeps prompts' embeddings, but the text "
                "encoder "
                "or new tokens are trained (model.train_text_encoder, model.new_tokens): they "
                "would go stale. Set model.compute.cache_text_embeddings to false."
            )
        if compute.compile_unet:
            self.backbone.denoiser.compile()
        # By this name PyTorch's DDP leaves alone what it would not take beside what is on the
        # device; it does not learn.
        self._ddp_params_and_buffers_to_ignore = self._stay_on_the_cpu()
        offset = self.backbone.prediction.snr_offset
        self.loss = DreamBoothLoss(prior_loss_weight, snr_gamma, offset)
        self._text_cache: dict[str, Conditioning] = {}
        self._base: list[Backbone] = []  # in a list, so that it is no submodule
        # Only what learns is in a checkpoint; the rest comes from the pretrained model.
        self.strict_loading = False

    def forward(self, batch: TrainBatch) -> dict[str, Tensor]:
        """One denoising step: encode, embed, noise, predict, losses."""
        latents = self.encode(batch)
        conditioning = self.embed(batch.prompts)
        timesteps = self.draw_timesteps(batch)
        noise = self.draw_noise(batch, latents)
        noisy = self.backbone.add_noise(latents, noise, timesteps)
        prediction = self.backbone.predict(noisy, timesteps, conditioning)
        target = self.backbone.target(latents, noise, timesteps)
        snr = self.backbone.snr(timesteps)
        losses = self.loss(
            prediction,
            target,
            snr,
            batch.is_prior,
            batch.loss_weights,
            self.backbone.loss_weights(timesteps),
        )
        if batch.contrast is None:
            return losses
        otherwise = self.backbone.predict(noisy, timesteps, self.embed(batch.contrast.prompts))
        losses["loss_contrast"] = contrast_loss(
            denoising_errors(prediction, target),
            denoising_errors(otherwise, target),
            batch.contrast.margin,
        )
        losses["loss"] = losses["loss"] + batch.contrast.weight * losses["loss_contrast"]
        return losses

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        if self.hparams["lora_dropout"] > 0:
            # Dropout draws from torch's global state: tie it to the batch, so a resumed run agrees.
            torch.manual_seed(int(batch.draws[0]))
        losses = self(batch)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()},
            prog_bar=True,
            batch_size=len(batch.prompts),
        )
        return losses["loss"]

    def validation_step(self, batch: TrainBatch, batch_idx: int) -> None:
        self.log(
            "val/loss",
            self(batch)["loss_instance"],
            prog_bar=True,
            batch_size=len(batch.prompts),
            sync_dist=True,
        )

    def test_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self.sample(batch)

    def predict_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self.sample(batch)

    def sample(self, batch: PromptBatch) -> Tensor:
        """(B, 3, H, W) images in [0, 1] from the tuned or the untouched model."""
        with self._of(batch.arm) as backbone:
            return backbone.sample(
                batch.prompts,
                seeds=batch.seeds.tolist(),
                negative_prompts=batch.negative_prompts,
                num_inference_steps=self.hparams["num_inference_steps"],
                guidance_scale=self.hparams["guidance_scale"],
                scheduler=self.hparams["sampling_scheduler"],
                safety=batch.safety,
                size=batch.size,
            )

    @contextmanager
    def _of(self, arm: str) -> Iterator[Backbone]:
        """The model of an arm. Beneath adapters alone the untouched one is still there, so that no
        second one is needed."""
        if arm != "base":
            yield self.backbone
        elif self._holds_base:
            with self.backbone.without_lora():
                yield self.backbone
        else:
            yield self.base()

    def base(self) -> Backbone:
        """The pretrained model alone, loaded when first asked for."""
        if not self._base:
            base = self._load_base(self.hparams["frozen_dtype"]).requires_grad_(False).eval()
            self._base.append(base.to(self.device))
        return self._base[0]

    def on_test_end(self) -> None:
        self._base.clear()

    def encode(self, batch: TrainBatch) -> Tensor:
        """(B, C, h, w) latents: a draw from the posterior, cached or computed."""
        with torch.no_grad():
            if batch.moments is not None:
                posterior = backbones.Posterior(*batch.moments.unbind(1))
            else:
                posterior = self.backbone.encode(batch.images)
            shape = posterior.mean.shape[1:]
            return posterior.sample(draws.normal(shape, self.seed, "posterior", batch.draws))

    def _stay_on_the_cpu(self) -> list[str]:
        """Names of parameters and buffers."""
        return [
            f"backbone.{network}.{name}"
            for network in self.backbone.freed
            for kind in (nn.Module.named_parameters, nn.Module.named_buffers)
            for name, _ in kind(getattr(self.backbone, network))
        ]

    def embed(self, prompts: list[str]) -> Conditioning:
        """B prompts -> conditioning, with gradients where the text side learns."""
        if not self.hparams["cache_text_embeddings"]:
            with torch.set_grad_enabled(self.text_learns and torch.is_grad_enabled()):
                return self.backbone.embed(prompts)
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._text_cache]
        if new:
            with torch.no_grad():
                embedded = self.backbone.embed(new)
            for row, prompt in enumerate(new):
                self._text_cache[prompt] = embedded.rows(slice(row, row + 1))
        return Conditioning.stack([self._text_cache[prompt] for prompt in prompts])

    def draw_timesteps(self, batch: TrainBatch) -> Tensor:
        """(B,) timesteps as the family draws them, row i by `batch.draws[i]` alone."""
        rows = [
            self.backbone.draw_timesteps(1, draws.generator(self.seed, "timestep", draw))
            for draw in batch.draws.tolist()
        ]
        return torch.cat(rows).to(batch.draws.device)

    def draw_noise(self, batch: TrainBatch, latents: Tensor) -> Tensor:
        """(B, C, h, w) standard normal noise, with the offset if one is wanted."""
        noise = draws.normal(latents.shape[1:], self.seed, "noise", batch.draws)
        if self.hparams["noise_offset"] > 0:
            shape = (latents.shape[1], 1, 1)
            offset = draws.normal(shape, self.seed, "noise offset", batch.draws)
            noise = noise + self.hparams["noise_offset"] * offset
        return noise

    @property
    def seed(self) -> int:
        return draws.run_seed()

    def parameter_groups(self) -> list[Group]:
        """See `Optimized`: denoiser, text encoders and new words, each with its rate."""
        return trainable_groups(
            self.backbone,
            unet_lr=self.hparams["learning_rate"],
            text_lr=self.hparams["text_encoder_lr"] or self.hparams["learning_rate"],
            token_lr=self.hparams["token_lr"] or self.hparams["learning_rate"],
            weight_decay=self.hparams["adam_weight_decay"],
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        learned = {name for name, p in self.named_parameters() if p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if name in learned}
        self.add_point(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint["state_dict"]
        learned = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        stored_shapes = {name: tensor.shape for name, tensor in stored.items()}
        if stored_shapes != learned:
            differing = sorted(set(stored_shapes.items()) ^ set(learned.items()))[0][0]
            raise ValueError(
                f"The checkpoint holds {len(stored)} trained tensors, this configuration trains "
                f"{len(learned)}; they first differ at '{differing}'. Use the configuration of the "
                "run that wrote it (config.yaml beside its checkpoints)."
            )
        self.take_point(checkpoint)

    def on_fit_start(self) -> None:
        if self.backbone.distilled:
            log.warning(
                "%s: %s.", self.hparams["pretrained_model_name_or_path"], self.backbone.distilled
            )

    def _refuse(self) -> None:
        """Raises ValueError for a setting that means nothing on this family."""
        usual = inspect.signature(DreamBooth).parameters
        grouped = flat(AdapterShape(), AdamSettings(), Compute(), Sampling())
        for setting, reason in self.backbone.refused.items():
            default = grouped[setting] if setting in grouped else usual[setting].default
            if self.hparams[setting] != default:
                key = KEYS.get(setting, setting)
                raise ValueError(f"model.{key} is {self.hparams[setting]}: {reason}")

    def _load(self) -> Backbone:
        # Halves from the start need half the memory of the host as well. What learns itself, or
        # has a LoRA merged into it, begins with all its digits.
        backbone = self._load_base(self.hparams["frozen_dtype"] if self._only_adapts else "fp32")
        if self.hparams["lora"]:
            backbone.load_lora(self.hparams["lora"])
        if self.hparams["embeddings"]:
            backbone.load_tokens(self.hparams["embeddings"])
        return backbone

    @property
    def _only_adapts(self) -> bool:
        """Whether adapters are all that is added to the pretrained model."""
        more = any(self.hparams[name] for name in ("new_tokens", "lora", "embeddings"))
        return self.hparams["method"] != "full" and not more

    @property
    def _holds_base(self) -> bool:
        """Whether the pretrained model is what is left where adapters step aside."""
        return self._only_adapts

    def _load_base(self, dtype: FrozenDtype = "fp32") -> Backbone:
        backbone = backbones.load(
            self.hparams["pretrained_model_name_or_path"],
            self.hparams["revision"],
            self.hparams["variant"],
            DTYPES[dtype],
            single_file_config=self.hparams["single_file_config"],
            nf4=self.hparams["frozen_dtype"] == "nf4",
        )
        if self.hparams["prompt_chunks"] > 1:
            backbone.lengthen(self.hparams["prompt_chunks"])
        backbone.frees_text = self.hparams["free_text_encoders"]
        backbone.frees_autoencoder = self.hparams["free_autoencoder"]
        backbone.weighting_scheme = self.hparams["weighting_scheme"]
        backbone.guidance = self.hparams["train_guidance"]
        backbone.true_cfg_scale = self.hparams["true_cfg_scale"]
        return backbone
