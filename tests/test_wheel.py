"""The wheel alone, in an environment that has never seen a checkout: -m slow tests/test_wheel.py

Only this package is installed there. Its dependencies are those of the tests' environment, which
the new one finds through a path file without their start-up hooks (so an editable install of this
repository is not found): gigabytes need no second copy, and what is asked here is whether the wheel
has everything of *ours*.
"""

import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_MEGABYTES = 40  # 35 of it the weights of the two built-in families

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(pip, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, its dependencies borrowed."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with nothing that leads to the checkout."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(environment: Path, *words: str) -> str:
    command = [environment / "bin" / "shortcut-lightning", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"shortcut_lightning/{name}" for name in recipes} <= names
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "shortcut_lightning").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert package <= names
    assert "shortcut_lightning/py.typed" in names
    others = {name for name in names if not name.startswith("shortcut_lightning")}
    assert others == set()
    assert wheel.stat().st_size < MOST_MEGABYTES * 1e6


def test_it_works_alone(environment: Path, elsewhere: Path) -> None:
    code = "import shortcut_lightning; print(shortcut_lightning.__file__)"
    where = [environment / "bin" / "python", "-c", code]
    found = subprocess.run(where, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(environment)
    assert "--data.attack NAME\n  adaptive " in run(environment, "presets")
    few = [
        "--trainer.max_steps=2",
        "--data.num_class_images=2",
        "--data.evaluation.images_per_prompt=1",
    ]
    few += ["--model.sampling.num_inference_steps=2", "--data.cache_dir=cache"]
    stages = ["--data.attack=random_noise", "--data.purifiers=[jpeg]", "--data.decoupling=paper"]
    run(environment, "fit", "--config", "quickstart", *few, *stages)
    done = elsewhere / "runs" / "quickstart" / "version_0"
    assert "random" in (done / "report.html").read_text("utf-8").lower()
    assert (done / "export" / "model" / "model_index.json").is_file()
    run(environment, "bench", "--config=smoke", "--tables=only", "--subjects=[pocket:0]")
    assert sorted(os.listdir(elsewhere)) == ["cache", "runs"]
