"""How much memory a training takes, told before anything large is downloaded or loaded.

From a model's configurations alone: its networks are built without their weights and counted.
Weights, gradients and optimiser are exact; activations are an estimate. In a transformer they are
34 bytes for each token and channel of a block in 16 bits (arXiv 2205.05198, eq. 2, without the
attention matrix, which fused kernels do not store), with gradient checkpointing a block's input,
and one block at a time the rest; in a U-Net they are counted (`unet_memory.py`). Weights of 32 bits
are cast to 16 where training computes in these, which counts with the activations. What libraries,
kernels and fragments take comes on top, 1 to 2 GiB on a GPU, and so does what the autoencoder takes
while it encodes a picture.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from shortcut_lightning.backbones import lora, pipelines, unet_memory
from shortcut_lightning.backbones.adapter_kinds import Adapter
from shortcut_lightning.backbones.blocks import at_once, blocks, choose, count, is_chosen
from shortcut_lightning.weights import one_line

GIB = 2**30
_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "nf4": 2.0}  # of what nf4 leaves alone
# 4 bits, and for each 64 of them a scale of 8 bits, and for each 256 scales one of 32.
_NF4 = 4 / 8 + 1 / 64 + 4 / (64 * 256)
_SAVED, _INPUT = 34, 2  # bytes that a block keeps for a token and channel, and of its input


@dataclass(frozen=True)
class Training:
    """What of a run decides its memory; names as in `DreamBooth` and the data module."""

    method: str = "lora"
    rank: int = 4
    train_text_encoder: bool = False
    frozen_dtype: str = "fp32"
    gradient_checkpointing: bool = False
    checkpointed_blocks: Sequence[str] = ()
    use_8bit_adam: bool = False
    free_text_encoders: bool = False
    free_autoencoder: bool = False
    train_batch_size: int = 1
    with_prior_preservation: bool = False
    resolution: int = 0
    prompt_chunks: int = 1
    half: bool = True  # whether activations are of 16 bits (trainer.precision)
    processes: int = 1  # that share one denoiser (FullySharded)
    offload: bool = False  # whether their parts stay in the host's memory


@dataclass(frozen=True)
class Budget:
    """GiB by what they are for."""

    download: float  # of the files, in 16 bits
    parameters: float  # of the denoiser, in billions
    denoiser: float
    text_encoders: float
    largest_text_encoder: float
    autoencoder: float
    trained: float  # what learns, in 32 bits
    gradients: float
    optimiser: float
    activations: float
    freed: bool  # text encoders
    freed_autoencoder: bool = False
    visiting: float = 0.0  # weights and gradients of blocks that are not always on the device
    host: float = 0.0  # of weights, gradients and moments that stay in the host's memory

    @property
    def peak(self) -> float:
        """GiB on a device."""
        at_times = [self.gradients + self.activations + self.visiting]
        always = self.denoiser + self.trained + self.optimiser
        if self.freed:
            at_times.append(self.largest_text_encoder)
        else:
            always += self.text_encoders
        if self.freed_autoencoder:
            at_times.append(self.autoencoder)
        else:
            always += self.autoencoder
        return always + max(at_times)

    def __str__(self) -> str:
        come = "come and go" if self.freed else "stay"
        comes = " (comes and goes)" if self.freed_autoencoder else ""
        visit = f", blocks while they compute {self.visiting:.1f}" if self.visiting else ""
        host = f"; the host holds {self.host:.1f} GiB" if self.host else ""
        return (
            f"about {self.peak:.1f} GiB on the device: {self.parameters:.1f} billion weights of "
            f"the denoiser {self.denoiser:.1f}, text encoders {self.text_encoders:.1f} ({come}), "
            f"autoencoder {self.autoencoder:.1f}{comes}, what learns {self.trained:.1f}, its "
            f"gradients {self.gradients:.1f}, the optimiser {self.optimiser:.1f}, activations "
            f"{self.activations:.1f} (estimated){visit}{host}; the files in 16 bits are "
            f"{self.download:.1f} GiB"
        )


def budget(path: str, training: Training, revision: str | None = None) -> Budget | None:
    """Of a diffusers folder or hub id, of which only `config.json` files are fetched.

    None for what is no transformer of a family known here.

    Raises ValueError or OSError where a configuration cannot be read.
    """
    from shortcut_lightning.backbones import families

    index = pipelines.index(_file(path, "model_index.json", revision))
    family: Any = families().get(str(index["_class_name"]))
    if family is None:
        return None
    # A folder that lacks parts, or whose settings fit no network, fails here in any way.
    with one_line():
        return _budget(path, index, family, training, revision)


def _budget(
    path: str, index: Mapping[str, Any], family: Any, training: Training, revision: str | None
) -> Budget:
    networks = {
        part: _empty(path, part, entry, revision)
        for part, entry in index.items()
        if part in (family.part, "vae") or part.startswith("text_encoder")
        if isinstance(entry, list) and all(entry)
    }
    denoiser = networks.pop(family.part)
    vae = networks.pop("vae")
    learning = getattr(family, "learning_encoders", networks)  # a U-Net's all learn
    encoders = {name: each for name, each in networks.items() if name in learning}
    in_all = [denoiser, vae, *networks.values()]
    learns_itself = encoders if training.method == "full" and training.train_text_encoder else {}
    sizes = {
        name: 0.0 if name in learns_itself else _stored(each, training.frozen_dtype)
        for name, each in networks.items()
    }
    own, trained = _denoiser(denoiser, family, training)
    if training.train_text_encoder:
        trained += sum(_trained(e, lora.TEXT_ENCODER, training) for e in encoders.values())
    kept = _activations(denoiser, vae, family, training)
    found = Budget(
        download=sum(count(each) for each in in_all) * 2 / GIB,
        parameters=count(denoiser) / 1e9,
        denoiser=own / GIB,
        text_encoders=sum(sizes.values()) / GIB,
        largest_text_encoder=max(sizes.values()) / GIB,
        autoencoder=count(vae) * 4 / GIB,
        trained=trained * 4 / GIB,
        gradients=trained * 4 / GIB,
        optimiser=trained * (2 if training.use_8bit_adam else 8) / GIB,
        activations=kept / GIB,
        freed=training.free_text_encoders,
        freed_autoencoder=training.free_autoencoder,
    )
    return _in_parts(found, denoiser, training)


def _in_parts(whole: Budget, denoiser: nn.Module, training: Training) -> Budget:
    """Of a process, where several share the denoiser, or it stays in the host's memory."""
    if training.processes == 1 and not training.offload:
        return whole
    in_all = {
        name: getattr(whole, name) for name in ("denoiser", "trained", "gradients", "optimiser")
    }
    share = 0.0 if training.offload else 1 / training.processes
    parts: dict[str, Any] = {name: size * share for name, size in in_all.items()}
    # Of a block in one piece: its weights, and the gradients of those that learn.
    in_one = whole.denoiser + whole.trained + whole.gradients
    return replace(
        whole,
        **parts,
        visiting=in_one * at_once(denoiser) / count(denoiser),
        host=sum(in_all.values()) if training.offload else 0.0,
    )


def _file(path: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    local = Path(path) / name
    return local if Path(path).is_dir() else Path(hf_hub_download(path, name, revision=revision))


def _empty(path: str, part: str, entry: list[str], revision: str | None) -> Any:
    """A network of the layout of a part, without memory."""
    settings = json.loads(_file(path, f"{part}/config.json", revision).read_text("utf-8"))
    kind = getattr({"diffusers": diffusers, "transformers": transformers}[entry[0]], entry[1])
    with torch.device("meta"):
        if entry[0] == "diffusers":
            return kind.from_config(settings)
        return kind(kind.config_class.from_dict(settings))


def _stored(network: nn.Module, dtype: str) -> float:
    """Bytes of a network that does not learn; text encoders stay at 16 bits beside nf4."""
    return count(network) * _BYTES[dtype]


def _denoiser(denoiser: Any, family: Any, training: Training) -> tuple[float, int]:
    """Bytes of its frozen weights, and the number of those that learn."""
    if training.method == "full":
        return 0.0, count(denoiser)
    linear = sum(m.weight.numel() for m in denoiser.modules() if isinstance(m, nn.Linear))
    frozen = count(denoiser) * _BYTES[training.frozen_dtype]
    if training.frozen_dtype == "nf4":
        frozen += linear * (_NF4 - _BYTES["nf4"])
    return frozen, _trained(denoiser, family.lora_settings_for(denoiser), training)


def _trained(network: Any, settings: Mapping[str, Any], training: Training) -> int:
    if training.method == "full":
        return count(network)
    network.requires_grad_(False)
    lora.insert(network, Adapter(training.rank, training.rank).config(settings))
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


def _activations(denoiser: Any, vae: Any, family: Any, training: Training) -> float:
    """Bytes."""
    rows = training.train_batch_size * (2 if training.with_prior_preservation else 1)
    cast = training.half and (training.method == "full" or training.frozen_dtype == "fp32")
    casts = 2 * count(denoiser) if cast else 0
    if family.part == "transformer":
        tokens = _tokens(denoiser, vae, family, training)
        return casts + rows * tokens * _per_token(denoiser, training)
    downsampling = int(family.downsampling_of(vae))
    side = training.resolution // downsampling or denoiser.config.sample_size
    words = 77 * training.prompt_chunks
    again = _computed_again(denoiser, training)
    return casts + unet_memory.kept(denoiser, rows, side, words, training.half, again)


def _computed_again(denoiser: nn.Module, training: Training) -> Callable[[nn.Module], bool]:
    """Which blocks gradient checkpointing is for."""
    choose(denoiser, training.checkpointed_blocks)
    every = training.gradient_checkpointing and not training.checkpointed_blocks
    return lambda block: every or (training.gradient_checkpointing and is_chosen(block))


def _tokens(denoiser: Any, vae: Any, family: Any, training: Training) -> int:
    """Of a picture and its prompt."""
    side = int(family.downsampling_of(vae)) * 2  # pixels of a token
    resolution = training.resolution or family.native_size * side // 2
    return (resolution // side) ** 2 + int(family.max_sequence_length)


def _per_token(denoiser: Any, training: Training) -> float:
    """Bytes of activations for a token."""
    all_blocks = list(blocks(denoiser))
    first = all_blocks[0].named_modules()
    queries: list[Any] = [m for name, m in first if name.split(".")[-1] == "to_q"]
    width: int = queries[0].in_features
    saved = _SAVED * (1 if training.half else 2)
    kept = _INPUT * (1 if training.half else 2)
    again = sum(map(_computed_again(denoiser, training), all_blocks))
    one = saved if again else 0  # at a time
    return float(width * (saved * (len(all_blocks) - again) + kept * again + one))
