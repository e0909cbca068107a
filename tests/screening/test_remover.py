"""The regression of perturbations beside purifiers: python -m pytest tests/screening"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shortcut_lightning import backbones
from shortcut_lightning.files import csv_rows
from shortcut_lightning.files.images import round_to_8_bits
from shortcut_lightning.screening import remover
from shortcut_lightning.screening.pictures import Made, drawn
from shortcut_lightning.screening.remover import Pairs, Removals, Removed, judged, main, train


def stripes(epsilon: float) -> torch.Tensor:
    """What a small network soon knows."""
    return (torch.arange(64) % 2 * 2 - 1).float() * epsilon / 255


def striped(epsilon: int, people: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """People, and the same with stripes."""
    clean = drawn(seed, people, 64)
    return clean, round_to_8_bits((clean + stripes(epsilon)).clamp(0, 1))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remover, "_POOL", 8)
    monkeypatch.setattr(remover, "_HELD_OUT", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `screening.pictures` would have written of two attacks that add stripes."""
    wanted = [("pocket", "advdm"), ("pocket", "mist"), ("pocket-flow", "advdm")]
    for number, (family, attack) in enumerate(wanted):
        clean, protected = striped(16, 4, number)
        made = Made(0, "world", 64, family, attack, 16)
        levels = {"clean": clean, "protected": protected}
        save_file(
            {name: (image * 255).round().to(torch.uint8) for name, image in levels.items()},
            tmp_path / made.name,
            metadata={"made": json.dumps(made._asdict() | {"seconds": 1})},
        )
    return tmp_path


def test_a_network_learns_to_take_off_what_it_has_seen() -> None:
    clean, protected = striped(16, 4, 3)
    network = train([Pairs("advdm", 16, clean, protected)], steps=30, seed=0)
    others, spoilt = striped(16, 4, 4)
    with torch.no_grad():
        after = (network(spoilt) - others).square().mean()
    assert after < 0.3 * (spoilt - others).square().mean()


def test_trainings_are_the_same_by_their_seed() -> None:
    pairs = [Pairs("advdm", 16, *striped(16, 2, 3))]
    first, again, other = (train(pairs, 2, seed).leave[1].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_left_is_a_share_of_what_was_added() -> None:
    clean, protected = striped(16, 2, 3)
    half = {"nothing": torch.Tensor.clone, "half": lambda images: images - stripes(8)}
    pocket = {name: backbones.load("pocket") for name in ("pocket", "pocket-flow")}
    rows = list(judged("encoder", half, [Pairs("mist", 16, clean, protected)], pocket))
    assert [(row.attack, row.purifier) for row in rows[:2]] == [("mist", name) for name in half]
    assert rows[0].pixels == rows[0].pocket == rows[0].pocket_flow == 1
    assert rows[1].pixels == pytest.approx(0.25, abs=0.02)
    assert 0 < rows[1].pocket < 1
    assert rows[2].pocket == 0 < rows[3].pocket < 1  # clean pictures are left alone, or harmed


def test_each_family_of_attacks_is_judged_by_who_has_not_seen_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    def short(pairs: list[Pairs], steps: int, seed: int) -> object:
        seen.append({each.attack for each in pairs})
        return train(pairs, steps, seed)

    monkeypatch.setattr(remover, "train", short)
    monkeypatch.setattr(remover, "PURIFIERS", ("jpeg_resize",))
    for _ in range(2):  # rows of a family are replaced
        main(str(folder), str(tmp_path / "rows"), steps=1, groups=["pretrained denoiser"])
    main(str(folder), str(tmp_path / "rows"), steps=1, groups=["encoder", "sampling"])
    assert seen == [{"mist"}, {"mist"}, {"advdm"}]
    kept = csv_rows.read(tmp_path / "rows" / remover.REMOVED, Removed)
    assert [(row.left_out, row.attack, row.purifier) for row in kept] == [
        (group, attack, purifier)
        for group, one in (("pretrained denoiser", "advdm"), ("encoder", "mist"))
        for attack in (one, "")
        for purifier in ("regression", "jpeg_resize")
    ]
    with pytest.raises(ValueError, match=r"groups has \['nothing'\]; there are \['adaptive'"):
        main(str(folder), groups=["nothing"])
    assert [pairs.attack for pairs in remover.read(str(folder))] == ["advdm", "mist"]
    with pytest.raises(ValueError, match="No protected pictures"):
        main(str(tmp_path / "rows"))


def test_the_page_compares_attack_by_attack(tmp_path: Path) -> None:
    def row(attack: str, purifier: str, left: float) -> Removed:
        return Removed("encoder", attack, 16, purifier, 4, left, left, left)

    rows = [row("mist", "a", 0.4), row("glaze", "a", 0.8), row("", "a", 0.01)]
    rows += [row("mist", "b", 0.5), row("glaze", "b", 1.0), row("", "b", 0.02)]
    csv_rows.write(tmp_path / remover.REMOVED, rows)
    page = Removals(tmp_path)
    assert page.purifiers == ["a", "b"]
    assert page.left("a", "pocket").value == pytest.approx(0.6)
    assert page.left("a", "pocket", attack="mist").value == pytest.approx(0.4)
    assert page.beside("a", "b", "pocket").value == pytest.approx(0.15)
    # Another round of pictures has rows of its own.
    csv_rows.write(
        tmp_path / remover.REMOVED, [*rows, row("mist", "a", 0.6), row("mist", "b", 0.9)]
    )
    assert Removals(tmp_path).beside("a", "b", "pocket").value == pytest.approx(0.2)
    assert page.harm("b", "pixels") == pytest.approx(0.02)
    assert Removals(tmp_path / "nowhere").rows == []
