"""A model that does not fit one device: PyTorch's FSDP2 through Lightning's ModelParallelStrategy.

Each process holds a part of the denoiser's weights, gradients and moments, and all of a layer only
while it computes with it. Checkpoints are one file in the same format as without. When training has
ended, the weights come together again in every process, so that callbacks find the model as it
always is.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from shortcut_lightning.gathering import gathered

_REFUSED = {
    "frozen_dtype": ("nf4", "weights of 4 bits cannot be divided; give fp32, bf16 or fp16"),
    "use_8bit_adam": (True, "its moments cannot be divided; set it to false"),
    "train_text_encoder": (True, "the denoiser alone is divided; set it to false"),
    "compile_unet": (True, "what is compiled is not divided again; set it to false"),
}


class FullySharded(ModelParallelStrategy):
    """`--trainer.strategy FullySharded`: all processes share one denoiser, each with its own
    pictures, as under DDP.

    Raises ValueError for settings of the model that cannot be divided.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self._whole: nn.Module | None = None  # what the parts are put into in the end

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Divides the denoiser, then makes the optimiser of its parts."""
        assert self.model is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            _refuse(self.model)
            denoiser = self.model.backbone.denoiser
            self._whole = hollow(denoiser)
            divide(denoiser, self.device_mesh["data_parallel"])
            self.setup_optimizers(trainer)
        self.barrier()
        self.setup_precision_plugin()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """With the weights, which hooks look at after they were loaded."""
        path = self.broadcast(checkpoint_path)
        loaded = super().load_checkpoint(path, weights_only)
        again = torch.load(path, mmap=True, map_location="cpu", weights_only=weights_only)
        return loaded | {"state_dict": again["state_dict"]}

    def on_train_end(self) -> None:
        """Every process has all weights from here on, in memory of the host until they are moved."""
        assert self.model is not None
        backbone, parts = self.model.backbone, self.model.backbone.denoiser
        assert self._whole is not None
        fill(self._whole, parts)
        name = next(name for name, child in backbone.named_children() if child is parts)
        setattr(backbone, name, self._whole)
        self._whole = None


def divide(network: nn.Module, mesh: DeviceMesh) -> None:
    """Parts the weights of a network over a mesh: each block of a list for itself, inner ones
    first, then the rest."""
    for module in reversed(list(network.modules())):
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def hollow(network: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes, but no values and no memory."""
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in network.parameters()
    }
    return copy.deepcopy(network, dict(empty))


@torch.no_grad()
def fill(whole: nn.Module, parts: nn.Module) -> None:
    """Gives a hollow copy the values of the divided network; all processes have to."""
    values = {name: gathered(parameter) for name, parameter in parts.named_parameters()}
    whole.load_state_dict(values | dict(parts.named_buffers()), strict=False, assign=True)


def _refuse(module: nn.Module) -> None:
    own: Any = module.hparams
    for key, (value, why) in _REFUSED.items():
        if own[key] == value:
            raise ValueError(f"model.{key} is {value} with trainer.strategy FullySharded: {why}.")
    if own["new_tokens"]:
        raise ValueError(
            "model.new_tokens names words with trainer.strategy FullySharded: the denoiser alone "
            "is divided; leave it empty."
        )
