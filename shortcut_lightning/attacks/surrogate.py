"""The model a protector fine-tunes, guessing what the other side will do with the images.

DreamBooth with prior preservation (arXiv 2208.12242, eq. 2) on a copy of the model; the lent one is
never touched. Weights that do not learn are shared with it, so a LoRA surrogate costs its adapters.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from shortcut_lightning.attacks.denoising import denoise_latents
from shortcut_lightning.attacks.pictures import read_folder
from shortcut_lightning.attacks.progress import Kept, Progress
from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior
from shortcut_lightning.backbones.lora import take_off
from shortcut_lightning.finite import NotFinite, all_finite
from shortcut_lightning.freezing import copy_sharing
from shortcut_lightning.losses import DreamBoothLoss
from shortcut_lightning.ranges import CountOrNone, NotNegative, Positive, Rank, ranged

Weights = list[Tensor]


@ranged
@dataclass(frozen=True)
class SurrogateTraining:
    """How a surrogate is trained.

    Args:
        method: `full` trains the weights themselves, `lora` adapters on the attention layers.
        rank: Rank of the adapters; their alpha is the same.
        train_text_encoder: Whether the text encoder learns too; T5 and language models stay as they
            are, as in training.
        learning_rate: Of AdamW; published as 5e-7, at which `full` learns slowly.
        adam_weight_decay: Its decoupled weight decay.
        max_grad_norm: Gradients are clipped to this norm. (Published code means to, and does not.)
        prior_loss_weight: Weight of the class images' loss.
        class_prompt: What class images show.
        num_class_images: How many the model makes of them; 0 trains without prior preservation.
        clean_data_dir: Images of the subject that stay private, on which a surrogate learns what is
            clean; empty for the protected images as they are before.
        dtype: `bf16_ref` keeps the learning weights in bfloat16 as the published ASPL does, where
            the learning rate is below half a unit of most weights, so that they hardly move.
        order: `ref` begins each call with the first image, as the published ASPL does; then images
            past the number of steps in a call are never trained on.
    """

    method: Literal["full", "lora"] = "full"
    rank: Rank = 4
    train_text_encoder: bool = True
    learning_rate: Positive = 5e-7
    adam_weight_decay: NotNegative = 1e-2
    max_grad_norm: Positive = 1.0
    prior_loss_weight: NotNegative = 1.0
    class_prompt: str = "a photo of person"
    num_class_images: CountOrNone = 16
    clean_data_dir: str = ""
    dtype: Literal["fp32", "bf16_ref"] = "fp32"
    order: Literal["shuffled", "ref"] = "shuffled"

    def __post_init__(self) -> None:
        if self.dtype == "bf16_ref" and self.method == "lora":
            raise ValueError(
                "data.attack.training.dtype 'bf16_ref' reproduces a defect of full fine-tuning; "
                "with method 'lora' leave it at 'fp32'."
            )

    def clean_images(self, images: Tensor) -> Tensor:
        """What a surrogate may know: (M, 3, H, W) for `images`, (N, 3, H, W)."""
        return read_folder(self.clean_data_dir, images) if self.clean_data_dir else images


class Surrogate:
    """A copy of a model that learns in between and is frozen otherwise.

    Attributes:
        model: The copy, in eval mode.
        learners: Its weights that learn.
    """

    def __init__(
        self,
        model: Backbone,
        training: SurrogateTraining,
        prompts: list[str],
        like: Tensor,
        generator: torch.Generator,
        progress: Progress = Progress(),  # noqa: B008
    ) -> None:
        """`prompts` are the captions of the N images, `like` a tensor of their shape and device.
        `progress` is told of class images, which take the model a while to make.

        Draws seeds of class images and of adapters from the generator.
        """
        self.training = training
        self.prompts = prompts
        self.generator = generator
        self.priors = self._class_images(model, like, progress)
        self.model = self._copy(model)
        self.learners = self._learners()
        for parameter in self.learners:  # of a model that is kept in halves too
            parameter.data = parameter.data.to(
                torch.bfloat16 if training.dtype == "bf16_ref" else torch.float32
            )
        self.loss = DreamBoothLoss(training.prior_loss_weight)
        self._still: dict[str, Conditioning] = {}
        self._orders: dict[str, list[int]] = {}  # what is left of a pass over something

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images to learn from; the encoder does not learn, so once is enough."""
        with torch.no_grad():
            return self.model.encode(images)

    def embed(self, prompts: list[str]) -> Conditioning:
        """Conditioning as the surrogate has it now, without gradients."""
        with torch.no_grad():
            return self.model.embed(prompts)

    def weights(self, device: torch.device | str = "") -> Weights:
        """A copy of what has been learned, for `load`."""
        return [each.detach().to(device or each.device, copy=True) for each in self.learners]

    def load(self, weights: Weights) -> None:
        """Goes back to what `weights` returned."""
        with torch.no_grad():
            for parameter, value in zip(self.learners, weights, strict=True):
                parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """See `progress.Stateful`."""
        return {"weights": self.weights(), "orders": self._orders}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `progress.Stateful`."""
        self.load(state_dict["weights"])
        self._orders = state_dict["orders"]

    def train(
        self,
        instances: Posterior,
        steps: int,
        batch_size: int = 1,
        keep: Collection[int] = (),
        progress: Progress = Progress(),  # noqa: B008
    ) -> list[Weights]:
        """`steps` DreamBooth steps with a new AdamW on M instance images, (M, C, h, w).

        Each step sees `batch_size` of them and as many class images. Returns the weights after the
        steps numbered in `keep`, counted from 0, on the CPU. `progress` is for trainings that are
        no part of another loop.
        """
        recipe = self.training
        rows = self._rows(len(instances.mean), steps * batch_size)
        optimizer = torch.optim.AdamW(
            self.learners, lr=recipe.learning_rate, weight_decay=recipe.adam_weight_decay
        )
        kept: Kept[list[Weights]] = Kept([])
        for parameter in self.learners:
            parameter.requires_grad_(True)
        # A bar for long trainings; those of three steps lie inside another.
        bar = tqdm(total=steps, desc="Surrogate", unit="step", disable=steps < 20)
        losses: list[Tensor] = []
        for step in progress.loop(steps, self.generator, self, optimizer, kept):
            chosen = rows[step * batch_size : (step + 1) * batch_size]
            loss = self._backward(instances, chosen)
            losses.append(loss)
            if not bar.disable:
                _refuse(losses, step, recipe)  # shown, so that the device is waited for anyway
                losses.clear()
                bar.set_postfix(loss=f"{loss.item():.4g}", refresh=False)
                bar.update(step + 1 - bar.n)
            nn.utils.clip_grad_norm_(self.learners, recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            if step in keep:
                kept.value.append(self.weights("cpu"))
        bar.close()
        _refuse([*losses, *(each.detach() for each in self.learners)], steps - 1, recipe)
        for parameter in self.learners:
            parameter.requires_grad_(False)
        return kept.value

    def _backward(self, instances: Posterior, chosen: list[tuple[int, int]]) -> Tensor:
        """One loss and its gradients: the chosen (instance, class) pairs, instances first."""
        of_instances = [instance for instance, _ in chosen]
        mean, std = instances.mean[of_instances], instances.std[of_instances]
        # A folder of clean images may hold more of them than there are captions.
        prompts = [self.prompts[i % len(self.prompts)] for i in of_instances]
        if self.priors:
            of_class = [number for _, number in chosen]
            mean = torch.cat([mean, self.priors.mean[of_class]])
            std = torch.cat([std, self.priors.std[of_class]])
            prompts += [self.training.class_prompt] * len(of_class)
        noise = torch.randn(mean.shape, generator=self.generator).to(mean.device)
        latents = Posterior(mean, std).sample(noise)
        conditioning = self._conditioning(prompts)
        made = denoise_latents(self.model, latents, conditioning, self.generator)
        is_prior = torch.arange(len(mean), device=mean.device) >= len(chosen)
        snr = self.model.snr(made.timesteps)
        loss = self.loss(made.prediction, made.target, snr, is_prior)["loss"]
        loss.backward()
        return loss.detach()

    def _conditioning(self, prompts: list[str]) -> Conditioning:
        """With gradients where the text encoder learns, else embedded once."""
        if self.training.train_text_encoder:
            return self.model.embed(prompts)
        for prompt in prompts:
            if prompt not in self._still:
                self._still[prompt] = self.embed([prompt])
        return Conditioning.stack([self._still[prompt] for prompt in prompts])

    def _rows(self, instances: int, count: int) -> list[tuple[int, int]]:
        """(instance, class image) for `count` draws."""
        classes = len(self.priors.mean) if self.priors else 1
        if self.training.order == "ref":
            return [(number % instances, number % classes) for number in range(count)]
        name = f"instances {instances}"
        return [
            (self._next(name, instances), self._next("class", classes) if self.priors else 0)
            for _ in range(count)
        ]

    def _next(self, name: str, count: int) -> int:
        """Pass after pass over `count` things, each in a new order."""
        if not self._orders.get(name):
            self._orders[name] = torch.randperm(count, generator=self.generator).tolist()
        return self._orders[name].pop(0)

    def _class_images(self, model: Backbone, like: Tensor, progress: Progress) -> Posterior | None:
        """Posterior of class images the model makes, four at a time, at the size of `like`."""
        count, parts = self.training.num_class_images, Kept[list[tuple[Tensor, Tensor]]]([])
        seeds = torch.randint(2**31, (count,), generator=self.generator).tolist()
        with torch.no_grad():
            for number in progress.loop(-(-count // 4), self.generator, parts):
                some = seeds[4 * number : 4 * number + 4]
                made = model.sample([self.training.class_prompt] * len(some), seeds=some)
                if made.shape[-2:] != like.shape[-2:]:
                    made = functional.interpolate(
                        made, like.shape[-2:], mode="bilinear", antialias=True
                    )
                posterior = model.encode(made.to(like))
                parts.value.append((posterior.mean, posterior.std))
        if not parts.value:
            return None
        means, stds = zip(*parts.value, strict=True)
        return Posterior(torch.cat(means), torch.cat(stds))

    def _networks(self, model: Backbone) -> list[nn.Module]:
        text = list(model.learning_text_encoders) if self.training.train_text_encoder else []
        return [model.denoiser, *text]

    def _copy(self, model: Backbone) -> Backbone:
        """A copy with its own networks to learn in; whatever else stands in it is shared.

        The lent one's adapters are left behind: what a protector guesses knows nothing of them.
        """
        lora = self.training.method == "lora"
        full = [p for network in self._networks(model) for p in network.parameters()]
        copied = copy_sharing(model, [] if lora else full)
        for network in (copied.denoiser, *copied.text_encoders):
            take_off(network)
        if lora:
            rank, text = self.training.rank, self.training.train_text_encoder
            with torch.random.fork_rng(devices=[]):  # adapters draw from torch's global state
                torch.manual_seed(int(torch.randint(2**31, (), generator=self.generator)))
                copied.add_lora(
                    unet=True, text_encoder=text, rank=rank, alpha=rank, dropout=0.0, dora=False
                )
        return copied.requires_grad_(False).eval()

    def _learners(self) -> list[nn.Parameter]:
        lora = self.training.method == "lora"
        return [
            parameter
            for network in self._networks(self.model)
            for name, parameter in network.named_parameters()
            if ("lora_" in name) == lora
        ]


def _refuse(numbers: Sequence[Tensor], step: int, recipe: SurrogateTraining) -> None:
    """Raises NotFinite where losses or weights of a surrogate are not numbers."""
    if not all_finite(numbers):
        raise NotFinite(
            f"The surrogate's loss or weights are NaN or infinite by its step {step + 1}, at "
            f"data.attack.training.learning_rate {recipe.learning_rate:g}; try a lower one. "
            "Nothing was protected."
        )
