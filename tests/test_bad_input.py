"""A short form of the campaign of malformed inputs: `pytest tests/test_bad_input.py`, and with
`-m slow` more of it."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bad_input

# Of each kind one, and those that were once answered by a traceback, by nothing, or by going on.
FEW = [
    ("picture", "0.0"), ("mode", "0.0"), ("size", "0.1"), ("caption", "0.0"), ("sidecar", "0.7"),
    ("yaml", "0.0"), ("type", "0.16"), ("number", "0.24"), ("checkpoint", "0.0"), ("model", "1.9"),
    ("lora", "0.14"), ("embedding", "0.1"), ("embedding", "0.12"), ("embedding", "0.29"),
    ("boxes", "0.1"), ("boxes", "0.8"), ("prompts", "0.0"), ("name", "0.15"), ("words", "0.12"),
    ("scores", "1.0"), ("learning", "1.0"), ("verify", "1.0"),
]  # fmt: skip


def answered(inputs: list[tuple[str, str]]) -> list[bad_input.Row]:
    rows = list(bad_input.campaign(inputs))
    assert [row[:2] for row in rows] == inputs
    return rows


def test_few_of_every_kind() -> None:
    assert {kind for kind, _ in FEW} == set(bad_input.KINDS)
    assert [row for row in answered(FEW) if row.outcome != "clean"] == []


@pytest.mark.slow
def test_more_of_them_at_random() -> None:
    inputs = bad_input.wanted(512, 0, list(bad_input.KINDS))
    some = random.Random(0).sample(inputs, 48)
    assert [row for row in answered(some) if row.outcome != "clean"] == []


def test_the_outcomes_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        bad_input.answer(["fitt"])[0],
        bad_input.outcome("done", "refused"),
        bad_input.outcome("refused", "taken"),
        bad_input.outcome("hang", "either"),
        bad_input.outcome("refused", "either"),
    ]
    assert answers == ["refused", "wrong", "strict", "hang", "clean"]
