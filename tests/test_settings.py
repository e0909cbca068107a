"""Groups of settings refuse what numbers may not be: python -m pytest tests/test_settings.py"""

import re
from collections.abc import Callable

import pytest

from shortcut_lightning.audit.settings import Statistics
from shortcut_lightning.cli.old_names import MOVED
from shortcut_lightning.data.settings import NoisyClassImages, Passes
from shortcut_lightning.modules.settings import KEYS, AdapterShape, Compute, Sampling


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (lambda: Passes(picture_repeats={"0.png": 0}), "picture_repeats.0.png is 0; it must be at"),
        (lambda: NoisyClassImages(transplant_limit=0), "transplant_limit is 0; .* be above 0"),
        (lambda: NoisyClassImages(count=-1), r"NoisyClassImages.count is -1.* \(0 for all\)"),
        (lambda: AdapterShape(rank_pattern={"mid_block": 0}), "rank_pattern.mid_block is 0; it"),
        (lambda: Sampling(num_inference_steps=0), "steps is 0; it must be from 1 to 1000"),
        (lambda: Compute(free_text_encoders=True), "set model.compute.cache_text_embeddings to"),
        (
            lambda: Compute(checkpointed_blocks=("up_blocks",)),
            "set model.compute.gradient_checkpointing to true",
        ),
        (lambda: Statistics(resamples=5), "Statistics.resamples is 5; it must be at least 100"),
    ],
)
def test_numbers_that_may_not_be(group: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group()


def test_what_has_moved_is_told_as_hyperparameters_are_named() -> None:
    told = {old: new for old, new in MOVED.items() if old.startswith("model.")}
    assert told == {f"model.{name}": f"model.{key}" for name, key in KEYS.items()}
    assert all(re.fullmatch(r"(data|model|audit)(\.\w+){2}", new) for new in MOVED.values())
