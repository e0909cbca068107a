"""A chunk of images in front of a model: what every score asks for, computed once.

A `Chunk` holds what depends on images and captions alone and on the encoders: latents, noise, noisy
latents and text embeddings. Models that differ in their denoiser only (target, shadow and base of a
fine-tune) share it. A `Probe` is a chunk in front of one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.backbones.base import Conditioning, Posterior
from shortcut_lightning.membership.model import Model
from shortcut_lightning.membership.pictures import Picture

TEXT_BATCH = 32  # captions of one call of the text encoder, per 64 rows of the denoiser


@dataclass(frozen=True)
class Variant:
    """One conditioning for each image of the chunk. Equal labels mean equal conditionings."""

    label: str
    conditioning: Conditioning  # B rows


@dataclass
class Chunk:
    """Images, captions, and what is known about them so far."""

    pictures: Sequence[Picture]
    device: torch.device
    seed: int
    images: Tensor = field(init=False)  # (B, 3, R, R) in [0, 1]
    keys: Tensor = field(init=False)  # (B,) int64
    latents: dict[str, Tensor] = field(default_factory=dict)  # by image encoder and draw
    noisy: dict[tuple[str, str, int, int], Tensor] = field(default_factory=dict)
    noises: dict[str, Tensor] = field(default_factory=dict)
    texts: dict[tuple[str, str], Conditioning] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images = torch.stack([each.pixels() for each in self.pictures]).to(self.device)
        self.keys = torch.tensor([each.key for each in self.pictures], device=self.device)

    @property
    def captions(self) -> list[str]:
        return [each.caption for each in self.pictures]


class Probe:
    """One model asked about one chunk. All errors are in noise space, whatever the model predicts.

    Args:
        chunk: The images.
        model: The model.
        constants: Embeddings of captions that come back in every chunk, the empty one above all.
        anchor: The model whose attention decides which words of a caption matter, the same for
            all models of an audit.
        batch_size: Most rows of one call of the denoiser.
        share: Whether losses asked for twice are computed once.
    """

    def __init__(
        self,
        chunk: Chunk,
        model: Model,
        constants: dict[tuple[str, str], Conditioning],
        anchor: Model,
        batch_size: int = 64,
        share: bool = True,
    ) -> None:
        self.chunk = chunk
        self.model = model
        self.anchor = anchor
        self.batch_size = batch_size
        self.share = share
        self._constants = constants
        self._known: dict[tuple[str, int, int], Tensor] = {}
        self.calls = 0  # rows that went through the denoiser

    def __len__(self) -> int:
        return len(self.chunk.pictures)

    @property
    def images(self) -> Tensor:
        """(B, 3, R, R) in [0, 1]."""
        return self.chunk.images

    @property
    def latents(self) -> Tensor:
        """(B, C, h, w): one draw from the posterior of each image."""
        return self._cached_latents("image", lambda: self.images)

    def encode(self, images: Tensor, draw: str) -> Tensor:
        """(B, C, h, w) latents of changed versions of the chunk's images, drawn anew as `draw`."""
        return self._cached_latents(draw, lambda: images)

    def noise(self, draw: str) -> Tensor:
        """(B, C, h, w) standard normal noise, from the seed, each image's content and `draw`."""
        if draw not in self.chunk.noises:
            shape = self.latents.shape[1:]
            stage = f"membership {draw}"
            self.chunk.noises[draw] = draws.normal(shape, self.chunk.seed, stage, self.chunk.keys)
        return self.chunk.noises[draw]

    def noise_at(self, timestep: int, repeat: int = 0) -> Tensor:
        """The noise all scores share at a timestep, so that they can share predictions too."""
        return self.noise(f"noise t{timestep} #{repeat}")

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """x_t = a x + b noise at one published timestep for all rows.

        Raises ValueError for a timestep the model does not have.
        """
        return self.model.backbone.add_noise(latents, noise, self.steps(timestep, len(latents)))

    def steps(self, timestep: int, count: int) -> Tensor:
        """(count,) int64: the model's own timestep for a published one (`paths.translated`).

        Raises ValueError for one that the model does not have.
        """
        if not 0 <= timestep < self.model.backbone.num_train_timesteps:
            raise ValueError(
                f"Timestep {timestep} was asked for; this model has 0 to "
                f"{self.model.backbone.num_train_timesteps - 1} (the score's timesteps, t_centre, "
                "t_spacing or t_sec)."
            )
        own = self.model.backbone.path.translated(timestep)
        return torch.full((count,), own, device=self.chunk.images.device)

    def noisy(self, timestep: int, repeat: int = 0) -> Tensor:
        """(B, C, h, w) x_t of the chunk's latents with the shared noise."""
        where = (self.model.image_encoder, self.model.schedule, timestep, repeat)
        if where not in self.chunk.noisy:
            noise = self.noise_at(timestep, repeat)
            self.chunk.noisy[where] = self.add_noise(self.latents, noise, timestep)
        return self.chunk.noisy[where]

    @property
    def caption(self) -> Variant:
        """The images' own captions."""
        return self.text(self.chunk.captions)

    @property
    def null(self) -> Variant:
        """The empty caption through the model's own text encoder."""
        return self.text([""] * len(self))

    def text(self, captions: Sequence[str]) -> Variant:
        """One caption for each image; captions seen before are not embedded again."""
        missing = [text for text in dict.fromkeys(captions) if self._known_text(text) is None]
        step = max(1, self.batch_size * TEXT_BATCH // 64)
        for start in range(0, len(missing), step):
            texts = missing[start : start + step]
            embedded = self.model.embed(texts)
            for row, text in enumerate(texts):
                store = self._constants if text == "" else self.chunk.texts
                store[self.model.text_encoder, text] = embedded.rows(slice(row, row + 1))
        rows = [self._known_text(text) for text in captions]
        return Variant("\0".join(captions), Conditioning.stack([r for r in rows if r is not None]))

    def losses(
        self, timesteps: Sequence[int], variants: Sequence[Variant], repeats: int = 1
    ) -> Tensor:
        """(B, K, T, R) mean squared errors of the predicted noise, float32.

        K conditionings, T timesteps, R noises per timestep; the K conditionings of an image share
        timestep and noise. Everything unknown so far goes through the denoiser in as few calls as
        `batch_size` rows allow.
        """
        asked = [
            (variant, timestep, repeat)
            for variant in variants
            for timestep in timesteps
            for repeat in range(repeats)
        ]
        known = self._known if self.share else {}
        new = {(v.label, t, r): v for v, t, r in asked if (v.label, t, r) not in known}
        jobs = [(variant, t, r) for (_, t, r), variant in new.items()]
        size = len(self)
        parts: list[list[Tensor]] = [[] for _ in jobs]
        pending: list[tuple[int, slice]] = []
        for job in range(len(jobs)):
            start = 0
            while start < size:
                room = self.batch_size - sum(part.stop - part.start for _, part in pending)
                stop = min(size, start + room)
                pending.append((job, slice(start, stop)))
                start = stop
                if stop - pending[-1][1].start == room:
                    self._run(jobs, pending, parts)
                    pending = []
        self._run(jobs, pending, parts)
        for (variant, t, r), part in zip(jobs, parts, strict=True):
            known[variant.label, t, r] = torch.cat(part)
        found = [known[variant.label, t, r] for variant, t, r in asked]
        return torch.stack(found, 1).view(size, len(variants), len(timesteps), repeats)

    def epsilon(self, noisy: Tensor, timestep: int, variant: Variant) -> Tensor:
        """(B, C, h, w) predicted noise at one timestep, one row per image of the chunk."""
        parts = []
        for start in range(0, len(noisy), self.batch_size):
            rows = slice(start, min(len(noisy), start + self.batch_size))
            steps = self.steps(timestep, rows.stop - rows.start)
            parts.append(self._epsilon(noisy[rows], steps, variant.conditioning.rows(rows)))
        return torch.cat(parts)

    def _run(
        self,
        jobs: Sequence[tuple[Variant, int, int]],
        pending: Sequence[tuple[int, slice]],
        parts: list[list[Tensor]],
    ) -> None:
        """One call of the denoiser for the pending rows of all jobs."""
        if not pending:
            return
        noisy, noise, steps, texts = [], [], [], []
        for job, rows in pending:
            variant, timestep, repeat = jobs[job]
            noisy.append(self.noisy(timestep, repeat)[rows])
            noise.append(self.noise_at(timestep, repeat)[rows])
            steps.append(self.steps(timestep, rows.stop - rows.start))
            texts.append(variant.conditioning.rows(rows))
        predicted = self._epsilon(torch.cat(noisy), torch.cat(steps), Conditioning.stack(texts))
        errors = (predicted - torch.cat(noise)).square().flatten(1).mean(1)
        lengths = [rows.stop - rows.start for _, rows in pending]
        for (job, _), part in zip(pending, errors.split(lengths), strict=True):
            parts[job].append(part)

    def _epsilon(self, noisy: Tensor, steps: Tensor, texts: Conditioning) -> Tensor:
        self.calls += len(noisy)
        return self.model.epsilon(noisy, steps, texts)

    def _known_text(self, text: str) -> Conditioning | None:
        where = (self.model.text_encoder, text)
        return self._constants.get(where) or self.chunk.texts.get(where)

    def _cached_latents(self, draw: str, images: Callable[[], Tensor]) -> Tensor:
        where = f"{self.model.image_encoder} {draw}"
        if where not in self.chunk.latents:
            rows = images().split(self.batch_size)
            posteriors = [self.model.encode(part) for part in rows]
            mean, std = (
                torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "std")
            )
            stage = f"membership posterior {draw}"
            noise = draws.normal(mean.shape[1:], self.chunk.seed, stage, self.chunk.keys)
            self.chunk.latents[where] = Posterior(mean, std).sample(noise)
        return self.chunk.latents[where]
