"""YAML files that hide something cost a line, at once: python -m pytest tests/cli"""

import os
from collections.abc import Callable
from pathlib import Path

import cli_fakes
import pytest

Mistake = Callable[..., str]

ANCHORS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# caf\xe9\nname: x\n", "line 1: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"name: x\ntrainer:\n  a: 1\n  a: 2\n", "line 4: 'a' stands twice, first on line 3"),
        (b"trainer: {max_steps: 1}\nname: x\ntrainer: {}\n", "line 3: 'trainer' stands twice"),
        (ANCHORS.encode(), "its anchors unfold into more than 100000 values"),
        (b"a: &a [*a]\n", "line 1: an anchor holds itself"),
        (b"a: " + b"[" * 900 + b"]" * 900, "its values are nested too deep"),
        (b"name: !!python/object/apply:os.system [ls]\n", "is not YAML: could not determine"),
    ],
)
@pytest.mark.parametrize("where", ["recipe", "fragment", "fragment of a recipe", "matrix"])
def test_traps(content: bytes, said: str, where: str, mistake: Mistake, tmp_path: Path) -> None:
    Path("trap.yaml").write_bytes(content)
    args = {
        "recipe": ["fit", "--config=trap.yaml"],
        "fragment": ["fit", "--config=good.yaml", "--data.stage", "trap.yaml"],
        "fragment of a recipe": ["fit", "--config=names.yaml"],
        "matrix": ["bench", "--config", "trap.yaml"],
    }
    cli_fakes.write_config(tmp_path, "good.yaml")
    Path("names.yaml").write_text("data: {init_args: {stage: trap.yaml}}\n")
    assert said in mistake(*args[where])


def test_a_pipe_is_no_file(mistake: Mistake) -> None:
    """Nobody writes to it: whoever opened it would wait for ever."""
    os.mkfifo("pipe")
    os.mkfifo("pipe.yaml")
    Path("names.yaml").write_text("data: {init_args: {stage: pipe.yaml}}\n")
    for args in (
        ["--config=pipe"],
        ["--config", "pipe.yaml"],
        ["--data.stage", "pipe"],
        ["--config", "names.yaml"],
    ):
        assert "is a pipe or a device; save what it gives as a file" in mistake("fit", *args)


def test_a_folder_is_no_file(mistake: Mistake) -> None:
    Path("some").mkdir()
    assert "--config: 'some' is a folder; give a file in it" in mistake("fit", "--config=some")


def test_a_name_that_is_no_text(mistake: Mistake) -> None:
    name = os.fsdecode(b"caf\xe9.yaml")
    Path(name).write_text("name: x\n")
    said = mistake("fit", "-c", name)
    assert "-c: 'caf\\xe9.yaml' is not UTF-8, in which settings are kept; rename it" in said


@pytest.mark.parametrize("text", ["{a}, {a}", "a {photo}", "[", "*x &y"])
def test_sentences_that_are_no_yaml_are_sentences(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shortcut_lightning.cli import main

    config = cli_fakes.write_config(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", config, f"--data.prompt={text}", "--print_config"])
    assert end.value.code == 0
