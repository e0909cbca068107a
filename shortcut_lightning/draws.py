"""Counter-based randomness: a number is drawn from (seed, stage, draw), never from a shared state.

Every example of a run has a number, its draw. Whoever needs something random about it (noise, a
timestep, a crop) asks here, naming its stage. So nothing depends on who drew before: a resumed
run, a run on more ranks and a run with one stage more see the same numbers.

torch's CPU engine keeps the low 32 bits of a seed, so among 100 000 draws about one pair of
examples shares its noise by chance; nothing here relies on the opposite.
"""

import hashlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, stage: str, draw: int) -> torch.Generator:
    """A CPU generator for one draw of one stage; the same triple gives the same numbers anywhere.

    `draw` may be negative. The triple is hashed, so neighbouring draws are unrelated.
    """
    digest = hashlib.sha256(f"{seed}\0{stage}\0{draw}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(shape: Sequence[int], seed: int, stage: str, draws: Tensor) -> Tensor:
    """Standard normal noise, (B, *shape) float32 on the device of `draws`, (B,) int64.

    Row i depends on `draws[i]` alone. The numbers are made on the CPU, where they do not depend on
    the kind of accelerator, and copied.
    """
    rows = [torch.randn(*shape, generator=generator(seed, stage, n)) for n in draws.tolist()]
    return torch.stack(rows).to(draws.device)


def timesteps(n: int, seed: int, stage: str, draws: Tensor) -> Tensor:
    """Uniform integers in [0, n), (B,) int64; row i by `draws[i]` alone."""
    rows = [torch.randint(n, (), generator=generator(seed, stage, d)) for d in draws.tolist()]
    return torch.stack(rows).to(draws.device)


def run_seed() -> int:
    """The seed of this run, as `seed_everything` left it for every process; 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
