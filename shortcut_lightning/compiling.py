"""`torch.compile` for a while: what is asked many times at the same size."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

FORMS = (
    64  # of one block: sizes, batches, precision, with gradients and without; torch gives up at 8
)


@contextmanager
def compiled(network: nn.Module) -> Iterator[None]:
    """The network's repeated blocks compiled inside, each kind once (diffusers' regional
    compilation); all of a network that names none. Afterwards it runs as before.

    Kernels that are fused round otherwise: numbers agree but for their last digits.
    """
    names = getattr(network, "_repeated_blocks", None) or []
    parts = [each for each in network.modules() if type(each).__name__ in names] or [network]
    for part in parts:
        part.compile()
    try:
        with torch._dynamo.config.patch(cache_size_limit=FORMS):
            yield
    finally:
        for part in parts:
            part._compiled_call_impl = None
