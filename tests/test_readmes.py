"""Every README: short at the door, its commands exist, its snippets run.

    python -m pytest tests/test_readmes.py [-m slow]

A block of commands says in a comment above it how long it takes or what it needs: `run: seconds` is
run as it stands (slow), everything else is checked word by word: files, verbs and keys exist.
"""

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from shortcut_lightning.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]
READMES = sorted(
    path
    for path in ROOT.rglob("README.md")
    if not any(part.startswith(".") or part == "runs" for part in path.relative_to(ROOT).parts)
)
ROOMS = (
    *("attacks", "audit", "backbones", "bench", "cluster", "concepts", "data", "membership"),
    *("purifiers", "verify"),
)


class Block(NamedTuple):
    """A fenced block of a README."""

    where: str  # file and line
    language: str
    needs: str  # what the comment above it says
    text: str


def blocks(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    pattern = re.compile(r"(?:<!-- run: (.*?) -->\n)?```(\w+)\n(.*?)```", re.S)
    return [
        Block(
            f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}",
            match[2],
            match[1] or "",
            match[3],
        )
        for match in pattern.finditer(text)
    ]


ALL = [block for path in READMES for block in blocks(path)]
SNIPPETS = [block for block in ALL if block.language == "python"]
SHELLS = [block for block in ALL if block.language == "bash"]


def commands(block: Block) -> list[list[str]]:
    """Words of each command that calls the program; comments and what is optional left in."""
    joined = block.text.replace("\\\n", " ")
    lines = [line.split("&&")[-1] for line in joined.splitlines()]
    found = [re.search(r"train\.py (.*)|shortcut-lightning (.*)", line) for line in lines]
    said = [match[1] or match[2] for match in found if match]
    return [shlex.split(re.sub(r"\[--.*?\]", "", line), comments=True) for line in said]


def test_the_entrance_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 220
    assert len(text.encode()) <= 14_000


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#.*?)?\)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("block", SHELLS, ids=lambda block: block.where)
def test_commands_name_what_is_there(block: Block) -> None:
    for words in commands(block):
        assert words[0] in VERBS, words[0]
        for word in words:
            value = word.partition("=")[2] or word
            if value.startswith("configs/"):
                assert (ROOT / value).exists(), value
        for option, value in pairwise(words):
            if option == "--config" and value.endswith(".yaml") and not value.startswith("runs/"):
                assert (ROOT / value).is_file(), value


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_on_its_page(room: str) -> None:
    folder = ROOT / "shortcut_lightning" / room
    page = (folder / "README.md").read_text("utf-8")
    missing = [
        f.name for f in folder.glob("*.py") if f.name != "__init__.py" and f.stem not in page
    ]
    assert not missing, f"add a line for each to {room}/README.md"


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.where)
def test_snippets_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, block.where, "exec"), {"__name__": "snippet"})


def test_importing_the_package_is_free_and_an_attack_needs_no_trainer() -> None:
    script = (
        "import sys; import shortcut_lightning as sl; assert 'torch' not in sys.modules;"
        "sl.attacks.AdvDM; sl.backbones.load; sl.Photographs; assert 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_typed_package_says_so() -> None:
    assert (ROOT / "shortcut_lightning" / "py.typed").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [b for b in SHELLS if b.needs == "seconds"], ids=lambda block: block.where
)
def test_commands_run_as_typed(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for words in commands(block):
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
