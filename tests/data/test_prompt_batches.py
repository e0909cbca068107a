"""Shares of the sampling work: python -m pytest tests/data/test_prompt_batches.py"""

from pathlib import Path

import pytest

from shortcut_lightning.data.evaluation import prompt_batches, split
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.prompts import Prompts

PROMPTS = Prompts("a photo of sks dog", negative_prompt="blurry")


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 16, 33])
def test_all_is_done_once_and_ranks_keep_step(count: int, batch_size: int, world: int) -> None:
    shares = [split(count, batch_size, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    done = [item for share in shares for batch in share for item in batch]
    assert set(done) == set(range(count))
    assert all(1 <= len(batch) <= batch_size for share in shares for batch in share)
    repeated = len(done) - count
    assert repeated <= world - 1 if batch_size == 1 or count < world else repeated == 0


def test_one_process_without_waste() -> None:
    assert split(7, 3) == [[0, 1], [2, 3], [4, 5, 6]]


def test_prompts_of_a_file_follow_the_subject_too(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("{instance} in the snow\n\nas it is\n")
    sampled = Sampled(
        predict_prompts=["{instance} at night"], predict_prompts_file=str(tmp_path / "prompts.txt")
    )
    said = "a photo of sks dog"
    assert sampled.predicted(PROMPTS) == [f"{said} at night", f"{said} in the snow", "as it is"]


def batches(**changes: object) -> list:
    options = {"first_seed": 100, "batch_size": 4, "arms": ("tuned", "base")} | changes
    return prompt_batches(["a", "b"], 3, PROMPTS, **options)  # type: ignore[arg-type]


def test_arms_differ_in_nothing_but_the_model() -> None:
    got = batches()
    tuned, base = ([batch for batch in got if batch.arm == arm] for arm in ("tuned", "base"))
    assert got == tuned + base
    for one, other in zip(tuned, base, strict=True):
        assert one.prompts == other.prompts
        assert one.seeds.tolist() == other.seeds.tolist()
        assert one.ids.tolist() == other.ids.tolist()


def test_prompts_seeds_and_ids_belong_together() -> None:
    rows = [
        (prompt, negative, seed, number)
        for batch in batches(arms=("tuned",))
        for prompt, negative, seed, number in zip(
            batch.prompts,
            batch.negative_prompts,
            batch.seeds.tolist(),
            batch.ids.tolist(),
            strict=True,
        )
    ]
    assert rows == [("aaabbb"[i], "blurry", 100 + i, i) for i in range(6)]


def test_an_image_has_the_same_seed_on_any_rank() -> None:
    alone = {
        number: seed
        for batch in batches(arms=("tuned",))
        for number, seed in zip(batch.ids.tolist(), batch.seeds.tolist(), strict=True)
    }
    for rank in range(4):
        for batch in batches(arms=("tuned",), rank=rank, world_size=4, batch_size=1):
            assert [alone[number] for number in batch.ids.tolist()] == batch.seeds.tolist()
