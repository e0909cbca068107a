"""A model that does not fit one device: PyTorch's FSDP2 through Lightning's ModelParallelStrategy.

Each process holds a part of the denoiser's weights, gradients and moments, and all of a layer only
while it computes with it. Checkpoints are one file in the same format as without. When training has
ended, the weights come together again in every process, so that callbacks find the model as it
always is.

The hooks of diffusers and accelerate that offload blocks take weights away after the forward pass,
where autograd misses them; FSDP2 brings them back for the backward pass.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from shortcut_lightning.backbones.blocks import blocks
from shortcut_lightning.gathering import gathered


class FullySharded(ModelParallelStrategy):
    """`--trainer.strategy FullySharded`: all processes share one denoiser, each with its own
    pictures, as under DDP.

    Args:
        offload: Keeps the denoiser's weights, gradients and moments in the host's memory. A block
            visits the device while it computes, forward and backward, and the optimiser's step is
            the host's. For one device too, which then need not hold the model.

    Raises ValueError for settings of the model that cannot be divided.
    """

    def __init__(self, offload: bool = False) -> None:
        # Norms of gradients in the host's memory are summed there, which NCCL does not do.
        backend = "cpu:gloo,cuda:nccl" if offload and torch.cuda.is_available() else None
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
        )
        self.offload = offload
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
        if trainer.state.fn == TrainerFn.FITTING:
            module: Any = self.model
            _refuse(module)
            denoiser = module.backbone.denoiser
            self._whole = hollow(denoiser)
            # To the device block by block, and from there to where the parts stay.
            divide(denoiser, self.device_mesh["data_parallel"], self.offload)
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
            _refuse_optimizers(self.optimizers)
        self.setup_precision_plugin()

    def model_to_device(self) -> None:
        """All but a denoiser that stays in the host's memory."""
        if not (self.offload and self._whole is not None):
            return super().model_to_device()
        module: Any = self.model
        with _left_out(module.backbone, module.backbone.denoiser):
            super().model_to_device()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """With the weights, which hooks look at after they were loaded."""
        path = self.broadcast(checkpoint_path)
        loaded = super().load_checkpoint(path, weights_only)
        again = torch.load(path, mmap=True, map_location="cpu", weights_only=weights_only)
        return loaded | {"state_dict": again["state_dict"]}

    def on_train_end(self) -> None:
        """Every process has all weights from here on, in the host's memory until they are moved."""
        module: Any = self.model
        backbone, parts = module.backbone, module.backbone.denoiser
        assert self._whole is not None
        fill(self._whole, parts)
        setattr(backbone, _name(backbone, parts), self._whole)
        self._whole = None


def divide(network: nn.Module, mesh: DeviceMesh, offload: bool = False) -> None:
    """Parts the weights of a network of diffusers over a mesh: each of the blocks that its class
    wants kept together, inner ones first, then the rest. They stay in the host's memory with
    `offload`, else on the devices."""
    pinned = torch.cuda.is_available()
    policy = CPUOffloadPolicy(pin_memory=pinned) if offload else OffloadPolicy()
    for block in reversed(list(blocks(network))):
        fully_shard(block, mesh=mesh, offload_policy=policy)
    # The outermost would stay whole after a forward pass, and callbacks would find some of each.
    fully_shard(network, mesh=mesh, reshard_after_forward=True, offload_policy=policy)


@contextmanager
def _left_out(parent: nn.Module, child: nn.Module) -> Iterator[None]:
    """The parent without one of its children, for what is done to all of it."""
    name = _name(parent, child)
    children = parent._modules  # in their order, which names of parameters follow
    children[name] = None
    try:
        yield
    finally:
        children[name] = child


def _name(parent: nn.Module, child: nn.Module) -> str:
    return next(name for name, each in parent.named_children() if each is child)


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


def _refuse(module: Any) -> None:
    denoiser = module.backbone.denoiser
    own = {id(p) for p in denoiser.parameters()}
    why = ""
    if not all(p.is_floating_point() for p in denoiser.parameters()):
        why = "4-bit weights cannot be divided; give model.compute.frozen_dtype fp32, bf16 or fp16"
    elif any(p.requires_grad and id(p) not in own for p in module.parameters()):
        why = (
            "the denoiser alone is divided; set model.train_text_encoder to false and leave "
            "model.new_tokens empty"
        )
    elif getattr(denoiser, "_compiled_call_impl", None):
        why = "a compiled denoiser is not divided; set model.compute.compile_unet to false"
    if why:
        raise ValueError(f"trainer.strategy FullySharded: {why}.")


def _refuse_optimizers(optimizers: Sequence[Any]) -> None:
    for optimizer in optimizers:
        kind = type(optimizer)
        if not kind.__module__.startswith("torch."):
            raise ValueError(
                f"trainer.strategy FullySharded: {kind.__name__} keeps moments that are not known "
                "to be divided right; take AdamW or another of torch's (model.adam.eight_bit, "
                "optimizer)."
            )
