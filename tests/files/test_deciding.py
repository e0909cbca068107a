"""Which code and weights decide a result: python -m pytest tests/files/test_deciding.py"""

import sys
from pathlib import Path

import pytest
import torch

from shortcut_lightning.attacks import Adaptive, AdvDM
from shortcut_lightning.files.code import (
    PACKAGE,
    code_behind,
    deciding_weights,
    kinds_in,
    reached,
    tensors_alone,
)
from shortcut_lightning.pocket import BUILT_IN
from shortcut_lightning.purifiers import Gaussian, PocketRestoration

MODULES = {
    "__init__.py": "",
    "room/__init__.py": "from pack.room.a import A as Known\nfrom pack.room.b import B\n",
    "room/a.py": "import torch\n\nclass A:\n    def f(self):\n        from pack.deep import x\n",
    "room/b.py": "from pack import loose\n",
    "deep.py": "import pack.room.c\n",
    "room/c.py": "try:\n    from pack.deep import x\nexcept ImportError:\n    pass\n",
    "loose.py": "",
    "user.py": "from pack.room import Known\n",
}


def test_what_a_module_imports_is_followed_to_where_it_is_written(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    (package / "room").mkdir(parents=True)
    for name, text in MODULES.items():
        (package / name).write_text(text)
    found = {str(file.relative_to(package)) for file in reached([package / "user.py"], package)}
    assert found == {"user.py", "room/a.py", "deep.py", "room/c.py"}
    found = {str(file.relative_to(package)) for file in reached([package / "room/b.py"], package)}
    assert found == {"room/b.py", "loose.py"}


def names_of(*kinds: type) -> set[str]:
    files = {Path(sys.modules[kind.__module__].__file__ or "") for kind in kinds}
    return {str(file.relative_to(PACKAGE)) for file in reached(files)}


def test_a_stage_rests_on_its_own_code_alone() -> None:
    restores, blurs = names_of(PocketRestoration), names_of(Gaussian)
    assert {"purifiers/pocket_restoration.py", "purifiers/base.py"} <= restores
    assert "purifiers/pocket_restoration.py" not in blurs
    assert "purifiers/gaussian.py" not in restores
    hashes = [code_behind([kind]) for kind in (PocketRestoration, Gaussian, AdvDM)]
    assert len(set(hashes)) == 3
    assert code_behind([Gaussian]) == hashes[1]


def test_objects_that_a_stage_is_made_of_count() -> None:
    attack = Adaptive(purifiers=[Gaussian(), PocketRestoration()])
    assert {Adaptive, Gaussian, PocketRestoration} <= set(kinds_in(attack))


def test_a_class_of_the_user_s_counts_by_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = "from shortcut_lightning.purifiers import Gaussian\nclass Mine:\n    pass\n"
    (tmp_path / "mine_that_blurs.py").write_text(text)
    (tmp_path / "mine_alone.py").write_text("class Mine:\n    pass\n")
    import mine_alone
    import mine_that_blurs

    assert code_behind([mine_that_blurs.Mine]) == code_behind([Gaussian])
    typed_in = type("Typed", (torch.nn.Module,), {"__module__": "nowhere"})
    assert code_behind([mine_alone.Mine]) == code_behind([typed_in]) == code_behind([])


def test_every_file_of_the_built_in_models_counts(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    for folder in BUILT_IN.values():
        there = package / folder.relative_to(PACKAGE)
        (there / "scheduler").mkdir(parents=True)
        (there / "model.safetensors").write_bytes(b"weights")
        (there / "scheduler" / "scheduler_config.json").write_text("{}")

    def hashes() -> tuple[str, str]:
        deciding_weights.cache_clear()
        tensors_alone.cache_clear()
        return deciding_weights(package), tensors_alone(package)

    every, tensors = hashes()
    (there / "README.md").write_text("It tells of them.")
    assert hashes() == (every, tensors)
    (there / "scheduler" / "scheduler_config.json").write_text('{"steps": 2}')
    other, same = hashes()
    assert (other != every, same) == (True, tensors)
    (there / "model.safetensors").write_bytes(b"others")
    assert hashes()[1] != tensors
    deciding_weights.cache_clear()
    tensors_alone.cache_clear()
