"""`torch.compile` for a while: what is asked many times at the same size."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

# Of one block: sizes, batches, precision, with gradients and without. torch gives up at 8.
FORMS = 64


@contextmanager
def compiled(network: nn.Module) -> Iterator[None]:
    """The network's repeated blocks compiled inside, each kind once (diffusers' regional
    compilation); all of a network that names none. Afterwards it runs as before.

    Kernels that are fused round otherwise: numbers agree but for their last digits.
    """
    names = getattr(network, "_repeated_blocks", None) or []
    parts = [each for each in network.modules() if type(each).__name__ in names] or [network]
    before = [part._compiled_call_impl for part in parts]
    for part in parts:
        part.compile()
    try:
        yield
    finally:
        for part, call in zip(parts, before, strict=True):
            part._compiled_call_impl = call


def many_forms() -> AbstractContextManager[object]:
    """Lets a compiled block have more forms than torch allows, in this thread."""
    return torch._dynamo.config.patch(cache_size_limit=FORMS)


def uncompiled() -> AbstractContextManager[object]:
    """Compiled blocks run as they are written, hooks and all."""
    return torch.compiler.set_stance("force_eager")
