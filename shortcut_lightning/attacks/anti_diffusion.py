"""Anti-Diffusion (arXiv 2503.05595): against a prompt tuned to the pictures, and a model tuned to
them as well; away from what the model knows, and with its attention to the text at nothing."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from shortcut_lightning.attacks.base import SoundnessWarning
from shortcut_lightning.attacks.denoising import denoise_latents
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import Watch, sign_pgd
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.backbones.base import Backbone, Conditioning
from shortcut_lightning.backbones.text_attention import text_attention
from shortcut_lightning.freezing import copy_sharing
from shortcut_lightning.ranges import Budget, Count, CountOrNone, NotNegative, Positive, StepSize

Prompt = Callable[[int], Conditioning]  # for so many pictures
GAIN = 100.0  # of attention before it is cut at one


class AntiDiffusion(GradientAttack):
    """Each round: the embedding of a prompt, the empty one at first, learns to describe the
    pictures as they are now; then (but for the first round) a copy of the denoiser learns them
    with it; then the pictures climb

        denoising error - attention_weight * mean((min(1, 100 A))^2)

    with A the attention of the picture to the words, averaged over heads and layers. The published
    code cuts each round's change to a ball around where the round began, so that six rounds of 5
    go up to 30; here all of them stay in one ball.

    Takes what `GradientAttack` takes, and:

    Args:
        epsilon: Budget in /255, of all rounds together; published as 0.05 of images in [-1, 1] a
            round, which is 6.375.
        step_size: Size of a step in /255; published as 0.002 of images in [-1, 1].
        rounds: Rounds after the first.
        steps: Steps of the images in a round.
        prompt_steps: AdamW's steps of the prompt in a round.
        prompt_rate: Their rate.
        surrogate_steps: AdamW's steps of the denoiser in a round.
        learning_rate: Their rate.
        attention_weight: Of the attention's part; 0 leaves it out. Above 0 the steps of the images
            keep all activations of the denoiser, `gradient_checkpointing` or not.
        map_side: Side of the attention maps that count, in places: the layers nearest to it.
    """

    whole_set = True
    learns = True
    version = 1  # raise whenever other pixels come out for the same arguments

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.255,
        rounds: CountOrNone = 5,
        steps: Count = 10,
        prompt_steps: CountOrNone = 30,
        prompt_rate: Positive = 1e-3,
        surrogate_steps: CountOrNone = 20,
        learning_rate: Positive = 5e-7,
        attention_weight: NotNegative = 1.0,
        map_side: Count = 16,
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        self.rounds = rounds
        self.prompt_steps = prompt_steps
        self.prompt_rate = prompt_rate
        self.surrogate_steps = surrogate_steps
        self.learning_rate = learning_rate
        self.attention_weight = attention_weight
        self.map_side = map_side

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`. The captions are not used: the prompt is found."""
        victim = copy_sharing(model, list(model.denoiser.parameters()))
        learners = nn.ParameterList(p for _, p in victim.denoiser.named_parameters())
        for parameter in learners:
            parameter.data = parameter.data.float()
        empty = model.embed([""])
        at, text = Kept(images), nn.ParameterList(parts(empty))
        text.requires_grad_(False)

        def said(count: int) -> Conditioning:
            return shared(text, empty.mask, count)

        total = (self.rounds + 1) * self.steps
        with Watch("Anti-Diffusion", total) as watch:
            for number in self.progress.loop(self.rounds + 1, generator, at, text, learners, watch):
                self._learn(victim, text, self.prompt_steps, self.prompt_rate, at, said, generator)
                if number > 0:
                    steps, rate = self.surrogate_steps, self.learning_rate
                    self._learn(victim, learners, steps, rate, at, said, generator)
                at.value = sign_pgd(
                    images,
                    lambda changed: self._loss(victim, changed, said, generator),
                    epsilon=self.epsilon,
                    step_sizes=[self.step_size] * self.steps,
                    ascending=True,
                    start=at.value,
                    generator=generator,
                    watch=watch,
                )
        return at.value

    def _learn(
        self,
        victim: Backbone,
        learners: nn.ParameterList,
        steps: int,
        rate: float,
        at: Kept[Tensor],
        said: Prompt,
        generator: torch.Generator,
    ) -> None:
        """Steps of a new AdamW down the denoising error of the pictures as they are. (Published
        code means to clip the denoiser's gradients, and does not.)"""
        with torch.no_grad():
            posterior = victim.encode(at.value)
        learners.requires_grad_(True)
        optimizer = torch.optim.AdamW(learners.parameters(), lr=rate)
        for _ in range(steps):
            draw = torch.randn(posterior.mean.shape, generator=generator).to(at.value.device)
            latents = posterior.sample(draw)
            made = denoise_latents(victim, latents, said(len(latents)), generator)
            optimizer.zero_grad()
            made.losses.mean().backward()
            optimizer.step()
        learners.requires_grad_(False)
        for parameter in learners:
            parameter.grad = None

    def _loss(
        self, victim: Backbone, changed: Tensor, said: Prompt, generator: torch.Generator
    ) -> Tensor:
        posterior = victim.encode(changed)
        draw = torch.randn(posterior.mean.shape, generator=generator).to(changed.device)
        latents = posterior.sample(draw)
        conditioning = said(len(latents))
        if self.attention_weight == 0:
            return denoise_latents(victim, latents, conditioning, generator).losses.mean()
        with text_attention(victim.denoiser) as maps:
            made = denoise_latents(victim, latents, conditioning, generator)
        error = made.losses.mean()
        if not maps:
            warnings.warn(
                "AntiDiffusion: no attention to text can be read off this denoiser, so that part "
                "of the loss is missing.",
                SoundnessWarning,
                stacklevel=2,
            )
            return error
        return error - self.attention_weight * attended(maps, self.map_side)


def attended(maps: list[Tensor], side: int) -> Tensor:
    """The mean of (min(1, 100 A))^2 for maps (B, heads, P, L), those of P nearest to side^2, A
    their mean over layers and heads."""
    places = min({each.shape[2] for each in maps}, key=lambda count: (abs(count - side**2), count))
    chosen = torch.cat([each for each in maps if each.shape[2] == places], dim=1)
    return (GAIN * chosen.mean(dim=1)).clamp(0, 1).square().mean()


def parts(conditioning: Conditioning) -> list[nn.Parameter]:
    """What a prompt is to the denoiser, as things to learn."""
    given = (conditioning.hidden, conditioning.pooled)
    return [nn.Parameter(each.detach().float().clone()) for each in given if each is not None]


def shared(text: nn.ParameterList, mask: Tensor | None, count: int) -> Conditioning:
    """The same prompt for so many pictures, its padding left out where the model leaves it out."""
    hidden, *pooled = (each.expand(count, *each.shape[1:]) for each in text)
    mask = None if mask is None else mask.expand(count, -1)
    return Conditioning(hidden, pooled[0] if pooled else None, mask)
