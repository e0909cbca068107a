"""What the rectified flows share: a transformer as the denoiser, the schedule of its noise, the
draw of training's timesteps, new words in every text encoder, and the files of all that.

CLIP text encoders may learn, as in Stable Diffusion. T5 and language models stay as they are in
every published script, and here: new words have rows in their tables too, which learn alone.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from shortcut_lightning.backbones import flow_lora, lora, token_files
from shortcut_lightning.backbones.adapter_kinds import Kind
from shortcut_lightning.backbones.base import Posterior
from shortcut_lightning.backbones.paths import Path as NoisePath
from shortcut_lightning.backbones.paths import RectifiedFlow
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion
from shortcut_lightning.backbones.tokens import all_vectors, load_rows

log = logging.getLogger(__name__)
OWN_FILE = "shortcut_lightning.json"
MODE_SCALE = 1.29  # of the weighting scheme `mode`, as in the examples of diffusers


class FlowTransformer(StableDiffusion):
    """A latent rectified flow with a transformer.

    Facts that diffusers' folders do not hold, the length of a prompt and the side of a native
    picture, may stand in a folder's own file `shortcut_lightning.json`, which diffusers passes
    over; what is saved here has it wherever they are not the published ones.
    """

    sigmas: Tensor
    part = "transformer"
    pipeline_options: Mapping[str, Any] = {}
    lora_settings = lora.JOINT
    convolutions: Sequence[str] = ()
    adapters: Sequence[Kind] = ("lora",)  # LyCORIS' keys are not settled for these
    max_sequence_length = 512  # tokens of the T5 or the language model, of the stock pipeline
    native_size = 128  # side of the latents of a native picture
    token_keys: Sequence[str] = ()  # what files call the text encoders, where there are several
    learning_encoders: Sequence[str] = ()  # those that are CLIP's
    thinking: bool | None = None  # how a language model's chat template is filled in
    source = ""  # folder or hub id
    facts: Sequence[str] = ("max_sequence_length", "native_size")
    reads_clip_alone = False
    takes_chunks = False  # whether the transformer reads CLIP's states
    takes_true_cfg = False  # whether `guidance_scale` is not yet guidance by two calls
    takes_guidance = False  # whether the strength of guidance is an input of the network
    counterpart = "pocket"

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._said: set[str] = set()
        self.latent_shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        self._measure()

    def _prompt_length(self) -> int:
        return self._room(self.tokenizer)

    def _measure(self) -> None:
        """What follows from the facts of a folder."""
        self.resolution = self._native_size() * self.downsampling
        self.prompt_length = self._prompt_length()

    @property
    def step(self) -> int:
        """A token is a patch of 2 x 2 latents."""
        return self.downsampling * 2

    @property
    def multiple(self) -> int:
        """Nothing is padded."""
        return self.step

    def _native_size(self) -> int:
        return self.native_size

    def _read_schedule(self) -> None:
        schedule = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        # Rising, so that a later timestep is a noisier one, as everywhere.
        self.register_buffer("sigmas", schedule.sigmas.flip(0).float(), persistent=False)
        self.num_train_timesteps = len(self.sigmas)
        self.prediction_type = "flow"

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        revision: str | None = None,
        variant: str | None = None,
        dtype: torch.dtype = torch.float32,
        key: str = "model.pretrained_model_name_or_path",
        nf4: bool = False,
    ) -> Self:
        model = super().from_pretrained(path, revision, variant, dtype, key, nf4)
        facts = read_facts(path, OWN_FILE)
        for name in cls.facts:
            setattr(model, name, int(facts.get(name, getattr(cls, name))))
        model.source = str(path)
        model._measure()
        return model

    @property
    def path(self) -> NoisePath:
        return RectifiedFlow(self.sigmas)

    @property
    def refused(self) -> Mapping[str, str]:
        """See `Backbone`."""
        reasons = {
            "snr_gamma": "Min-SNR weighs the steps of a variance-preserving model, and this one is "
            "a rectified flow, which draws its steps where they count "
            "(model.weighting_scheme); set it to 0.",
            "noise_offset": "the path of a rectified flow ends in noise alone, so its brightness "
            "needs no offset; set it to 0.",
        }
        if not self.takes_guidance:
            reasons["train_guidance"] = "this transformer takes no guidance; set it to 1."
        if not self.takes_true_cfg:
            reasons["true_cfg_scale"] = (
                "model.sampling.guidance_scale is that of this family; set it to 1."
            )
        if not self.takes_chunks:
            reasons["prompt_chunks"] = (
                "this family's transformer does not read a CLIP's states word by word; set it to 1."
            )
        if not self.learning_encoders:
            reasons["train_text_encoder"] = (
                "the text encoder of this family is a language model, which stays as it is; set it "
                "to false, or name model.new_tokens, which learn."
            )
        return reasons

    def draw_timesteps(self, count: int, generator: torch.Generator, least: int = 0) -> Tensor:
        """An index into the schedule with its shift, as in diffusers' DreamBooth examples:
        logit-normal with mean 0 and deviation 1, or by another
        of `base.WeightingScheme`."""
        total, scheme = self.num_train_timesteps, self.weighting_scheme
        if scheme == "logit_normal":
            share = torch.randn(count, generator=generator).sigmoid()
        elif scheme == "u_shaped":
            # Few in the middle, where members are told best: the arcsine law, Beta(1/2, 1/2).
            share = (torch.rand(count, generator=generator) * torch.pi / 2).sin().square()
        else:
            # The examples count from the noisy end, and `mode` is not symmetric.
            share = 1 - compute_density_for_timestep_sampling(
                scheme, count, mode_scale=MODE_SCALE, generator=generator
            )
        return (share * total).long().clamp(least, total - 1)

    def loss_weights(self, timesteps: Tensor) -> Tensor | None:
        if self.weighting_scheme not in ("sigma_sqrt", "cosmap"):
            return None
        weights: Tensor = compute_loss_weighting_for_sd3(
            self.weighting_scheme, self.sigmas[timesteps]
        )
        return weights

    @property
    def learning_text_encoders(self) -> nn.ModuleList:
        return nn.ModuleList([self.networks[name] for name in self.learning_encoders])

    def encode(self, images: Tensor) -> Posterior:
        posterior = super().encode(images)
        shift = self.latent_shift * self.latent_scale
        return Posterior(posterior.mean - shift, posterior.std)

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents + self.latent_shift * self.latent_scale)

    def count_tokens(self, text: str) -> int:
        """As long as the encoder finds it that has the least room, in tokens of the first one."""
        return max(
            -(-self.prompt_length * self._tokens_in(text, tokenizer) // room)
            for tokenizer in self.tokenizers.values()
            if (room := self._room(tokenizer))
        )

    def _room(self, tokenizer: Any) -> int:
        """Tokens that a prompt may have in an encoder: without begin and end, or the template."""
        if isinstance(tokenizer, CLIPTokenizer):
            return (int(tokenizer.model_max_length) - 2) * self.prompt_chunks
        if self.thinking is None:
            return max(self.max_sequence_length - 1, 0)
        empty = tokenizer.apply_chat_template(
            [{"role": "user", "content": ""}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self.thinking,
        )
        return max(self.max_sequence_length - len(tokenizer(empty).input_ids), 1)

    def _tokens_in(self, text: str, tokenizer: Any) -> int:
        (text,) = all_vectors([text], tokenizer)
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def say_once(self, sentence: str) -> None:
        """A warning, the first time."""
        if sentence not in self._said:
            log.warning(sentence)
            self._said.add(sentence)

    @property
    def samplers(self) -> Sequence[str]:
        return sorted(
            {type(self.scheduler).__name__, *(k.__name__ for k in self.scheduler.compatibles)}
        )

    def _changed_networks(self) -> dict[str, nn.Module]:
        """Encoders that only lend rows to new words take gigabytes: they are copied for these, or
        where they are in halves, beside which stock diffusers would not take a float32 denoiser."""
        copied = {self.part, *self.learning_encoders}
        return {
            name: network
            for name, network in self.networks.items()
            if self.tokens or name in copied or next(network.parameters()).dtype != torch.float32
        }

    def save(self, folder: Path) -> None:
        super().save(folder)
        facts = {name: getattr(self, name) for name in self.facts}
        own = {name: value for name, value in facts.items() if value != getattr(type(self), name)}
        if own:
            (folder / OWN_FILE).write_text(json.dumps(own) + "\n", "utf-8")

    def lora_in_its_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return flow_lora.converted(self.pipeline_class, tensors)

    def save_lora(self, folder: Path) -> None:
        """Diffusers' keys alone, which ComfyUI reads as well, of each family here."""
        lora.save_diffusers(self, folder, scaled=True)

    def load_tokens(self, paths: Sequence[str]) -> None:
        for path in paths:
            word = token_files.read(path)
            its = [
                vocabulary
                for key, vocabulary in zip(self.token_keys or [""], self.vocabularies, strict=False)
                # A T5 without vectors of its own reads the letters, as other programs have it.
                if key in word.encoders or key != "t5xxl"
            ]
            widths = [encoder.get_input_embeddings().weight.shape[1] for _, encoder in its]
            token_files.check(word, widths, self.prompt_length, self.tokenizer.get_vocab(), path)
            for vectors, (tokenizer, encoder) in zip(word.vectors, its, strict=True):
                rows = vectors if vectors.dim() > 1 else vectors[None]
                names = [word.token, *(f"{word.token}_{n}" for n in range(1, len(rows)))]
                load_rows(tokenizer, encoder, names, rows)

    def save_token(self, path: Path, token: str, vectors: Sequence[Tensor]) -> None:
        """One word, by the names of the text encoders where there are several (ComfyUI's)."""
        if not self.token_keys:
            save_file({token: vectors[0]}, path)
            return
        save_file(dict(zip(self.token_keys, vectors, strict=False)), path, {"token": token})


def read_facts(path: str | Path, name: str) -> dict[str, Any]:
    """A file of settings in a folder; nothing of a hub id, or where there is none."""
    file = Path(path) / name
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
