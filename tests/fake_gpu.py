"""A machine with an accelerator, for machines that have none.

Tensors of the device `fake_gpu` are computed on the CPU, and refuse what a GPU refuses: to meet a
CPU tensor in an operation, to be read by numpy, to be drawn from a CPU generator. So everything
that is in the wrong place shows itself.

    python tests/fake_gpu.py fit --config configs/quickstart.yaml --trainer.max_steps 3
    python -m pytest tests/test_fake_gpu.py

Built on torch's Python backends (`torch.utils.backend_registration`) and a wrapper subclass; for
the same reason slow, as Python is asked before each operation.
"""

import sys
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

aten: Any = torch.ops.aten

# What a GPU takes CPU tensors for: the other end of a copy, and indices.
COPIES = {aten.copy_.default, aten._foreach_copy_.default, aten._to_copy.default}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# Made by growing an empty tensor, which a wrapper cannot follow; and `torch.tensor`'s way to a
# device, on which wrappers are not asked.
FACTORIES = (
    *("arange", "arange.start", "arange.start_step", "linspace", "eye", "eye.m", "randperm"),
    "_to_copy",
)


class Elsewhere(torch.Tensor):
    """A tensor of the device `fake_gpu`, around the CPU tensor that holds its values."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> Self:
        with torch.inference_mode(False):  # torch cannot make views of its wrappers under it
            made: Self = torch.Tensor._make_wrapper_subclass(
                cls,
                raw.shape,
                strides=raw.stride(),
                storage_offset=raw.storage_offset(),
                dtype=raw.dtype,
                device=DEVICE,
                requires_grad=raw.requires_grad,
            )
        made.raw = raw
        return made

    def __repr__(self, **_: Any) -> str:
        return f"{self.raw} (fake_gpu)"

    def tolist(self) -> list:
        return self.raw.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.raw.__reduce_ex__(protocol)  # files know no device

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(operation, *args, **(kwargs or {}))


def compute(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """What the operation makes of the values behind its arguments, put where it belongs."""
    leaves = tree_leaves((args, kwargs))
    bound = tree_leaves((args[0], args[2:])) if operation in INDEXING else leaves
    tensors = [leaf for leaf in bound if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim]
    if here and operation is aten._has_compatible_shallow_copy_type.default:
        return False  # `Module.to` then makes new parameters
    if here and operation not in COPIES:
        shapes = [tuple(tensor.shape) for tensor in here]
        raise RuntimeError(f"{operation}: CPU tensors of shape {shapes} among tensors of the GPU")
    devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    to_cpu = any(device.type == "cpu" for device in devices)
    if kwargs.get("generator") is not None and not to_cpu:
        raise RuntimeError(f"{operation}: a generator of the CPU for a tensor of the GPU")
    given, named = tree_map(_on_cpu, (args, kwargs))
    made = operation(*given, **named)
    written = [
        (args[at] if at < len(args) else kwargs[argument.name])
        for at, argument in enumerate(operation._schema.arguments)
        if argument.is_write and (at < len(args) or argument.name in kwargs)
    ]
    if written and isinstance(made, Tensor):
        return written[0]
    if written or to_cpu:
        return made
    return tree_map(lambda leaf: Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf, made)


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, Elsewhere):
        return leaf.raw
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


class Device(backend_registration._DummyBackendModule):
    """What torch asks of the module of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]  # accepted, and without effect

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)  # it draws from the CPU's

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass


class Machine(Accelerator):
    """One such device."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    def teardown(self) -> None:
        pass

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "fake_gpu"


class OneDevice(SingleDeviceStrategy):
    """Lightning's strategy for one device, which takes the CPU for kinds that it does not know."""

    def __init__(self, **options: Any) -> None:
        super().__init__(DEVICE, **options)


backend_registration._setup_privateuseone_for_python_backend("fake_gpu", Device())
DEVICE = torch.device("fake_gpu", 0)
_fallback = torch.library.Library("_", "IMPL")
_fallback.fallback(compute, "PrivateUse1")
_factories = torch.library.Library("aten", "IMPL")
for _name in FACTORIES:
    _packet, _, _overload = _name.partition(".")
    _operation = getattr(getattr(aten, _packet), _overload or "default")
    _factories.impl(
        _name, lambda *args, _of=_operation, **kwargs: compute(_of, *args, **kwargs), "PrivateUse1"
    )
AcceleratorRegistry.register("fake_gpu", Machine)
StrategyRegistry.register("fake_gpu", OneDevice)

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from shortcut_lightning.cli import main

    main([*sys.argv[1:], "--trainer.accelerator=fake_gpu", "--trainer.strategy=fake_gpu"])
