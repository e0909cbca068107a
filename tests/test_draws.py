"""Counter-based randomness: pytest tests/test_draws.py"""

import torch

from shortcut_lightning import draws


def test_a_row_depends_on_its_own_draw_alone() -> None:
    together = draws.normal((4, 8, 8), 0, "noise", torch.tensor([5, 9, -1]))
    alone = draws.normal((4, 8, 8), 0, "noise", torch.tensor([9]))
    assert torch.equal(together[1], alone[0])


def test_seed_stage_and_draw_each_change_the_numbers() -> None:
    def first(seed: int, stage: str, draw: int) -> float:
        return float(torch.rand((), generator=draws.generator(seed, stage, draw)))

    triples = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", -1), (0, "a\0001", 0)]
    assert len({first(*triple) for triple in triples}) == len(triples)
    assert first(3, "crop", 7) == first(3, "crop", 7)


def test_the_numbers_do_not_change_between_versions() -> None:
    """Resuming an old checkpoint relies on it; change this number only with a major version."""
    assert draws.generator(0, "noise", 0).initial_seed() == 1048033729779554771


def test_normal_is_standard_and_timesteps_are_uniform() -> None:
    many = torch.arange(4000)
    noise = draws.normal((16,), 0, "noise", many)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    steps = draws.timesteps(10, 0, "timestep", many)
    assert steps.dtype == torch.int64
    counts = torch.bincount(steps, minlength=10)
    assert len(counts) == 10
    assert counts.min() > 320
    assert counts.max() < 480


def test_torch_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    draws.normal((3,), 0, "noise", torch.arange(4))
    assert torch.equal(before, torch.get_rng_state())
