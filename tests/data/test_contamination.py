"""Pasting a concept into photographs: python -m pytest tests/data/test_contamination.py"""

import torch

from shortcut_lightning.batch import Example
from shortcut_lightning.concepts.generators import Text
from shortcut_lightning.data.contamination import contaminate

EXAMPLES = [Example(torch.full((3, 64, 64), 0.5), "a photo", f"{i}.png") for i in range(12)]


def test_a_share_is_marked_and_the_seed_says_which() -> None:
    shown, boxes = contaminate(EXAMPLES, Text(share=0.5), 3)
    again, _ = contaminate(EXAMPLES, Text(share=0.5), 3)
    other, elsewhere = contaminate(EXAMPLES, Text(share=0.5), 4)
    changed = [not torch.equal(a.image, b.image) for a, b in zip(shown, EXAMPLES, strict=True)]
    assert changed == [bool(found) for found in boxes]
    assert 0 < sum(changed) < 12
    assert all(torch.equal(a.image, b.image) for a, b in zip(shown, again, strict=True))
    assert boxes != elsewhere
    assert [e.name for e in other] == [e.name for e in EXAMPLES]


def test_nothing_is_pasted_without_a_concept() -> None:
    shown, boxes = contaminate(EXAMPLES, None, 0)
    assert all(a.image is b.image for a, b in zip(shown, EXAMPLES, strict=True))
    assert boxes == [[]] * 12
