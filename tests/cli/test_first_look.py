"""What is answered before torch is imported: `pytest tests/cli/test_first_look.py`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shortcut_lightning import __version__
from shortcut_lightning.cli import main
from shortcut_lightning.cli.old_names import OLD_NAMES, new_name
from shortcut_lightning.cli.verbs import VERBS


def test_version_and_overview(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert __version__ in capsys.readouterr().out
    main(["--help"])
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ([], ["no verb", "fit", "test"]),
        (["fitt"], ["no verb 'fitt'", "did you mean 'fit'?"]),
        (["--config", "c.yaml", "fit"], ["verb comes before --config"]),
        (["fit", "--max_train_steps", "400"], ["--max_train_steps", "--trainer.max_steps"]),
        (["fit", "--mixed-precision=bf16"], ["--mixed-precision", "--trainer.precision"]),
        (["fit", "--network_dim", "8"], ["--network_dim", "--model.rank"]),
        (["fit", "--pgd_eps", "11"], ["--data.attack.epsilon", "/255"]),
        (["fit", "--config", "smal.yaml"], ["no file 'smal.yaml'", "did you mean 'small.yaml'?"]),
        (["fit", "--config=broken.yaml"], ["'broken.yaml', line 2 column 1 is not YAML"]),
        (["fit", "-c", "list.yaml"], ["'list.yaml' must hold `key: value` pairs"]),
    ],
)
def test_mistakes(args: list[str], parts: list[str], mistake: Callable[..., str]) -> None:
    Path("small.yaml").write_text("model: X\n")
    Path("broken.yaml").write_text("model: [a\n")
    Path("list.yaml").write_text("- a\n")
    message = mistake(*args)
    for part in parts:
        assert part in message


def test_they_do_not_wait_for_imports() -> None:
    code = (
        "import sys\nfrom shortcut_lightning.cli import main\n"
        "try: main(['fit', '--network_dim', '8'])\n"
        "except SystemExit as end: code = end.code\n"
        "assert code == 2 and 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_new_names_are_not_old_names() -> None:
    assert all("--" in new or new.startswith("nothing") for new in OLD_NAMES.values())
    assert new_name("--trainer.max_steps=5") == ""
    assert new_name("rank") == ""
