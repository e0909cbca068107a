"""Captions with concepts, within the text encoder's length.

python -m pytest tests/concepts/test_captions.py
"""

from pathlib import Path

import pytest

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts import Captioner, Erasing, Grid
from shortcut_lightning.prompts import Prompts, location_token

TOP_LEFT = ConceptBox("mark", 1.0, (0.0, 0.0, 0.2, 0.2))
WIDE = ConceptBox("QR code", 1.0, (0.0, 0.3, 0.5, 0.5))
FULL = ConceptBox("mark", 1.0, (0.0, 0.0, 1.0, 1.0))


def count(text: str) -> int:
    """Words, commas, and each `<l..>` as one."""
    return len(text.replace(",", " , ").replace("<", " <").split())


def captioner(room: int = 75, negative_prompt: str = "", **settings: object) -> Captioner:
    erasing = Erasing(**{"caption": "geometry", "grid_size": 4, **settings})  # type: ignore[arg-type]
    unknown = location_token(erasing.grid_size**2)
    return Captioner(
        erasing,
        Prompts("", negative_prompt=negative_prompt),
        lambda text: count(text) + (text == unknown),
        room,
    )


def test_the_template() -> None:
    found = captioner().instance("a red robin", [TOP_LEFT, WIDE])
    assert found == "a red robin, QR code<l4><l5> mark<l0>"


def test_no_concept_no_change() -> None:
    assert captioner().instance("a red robin", []) == "a red robin"
    assert captioner(caption="none").instance("a red robin", [WIDE]) == "a red robin"


def test_the_name_alone() -> None:
    assert captioner(caption="name").instance("a robin", [WIDE, WIDE]) == "a robin, QR code"
    unplaced = [ConceptBox("mark", 1.0, None)]
    assert captioner().instance("a robin", unplaced) == "a robin, mark"


def test_names_replace_labels_and_unite_them() -> None:
    writer = captioner(names={"mark": "zqx", "QR code": "zqx"})
    assert writer.instance("a robin", [TOP_LEFT, WIDE]) == "a robin, zqx<l0><l4><l5>"


@pytest.mark.parametrize("room", [20, 25, 40, 75])
def test_the_caption_is_shortened_and_never_the_concepts(room: int) -> None:
    writer = captioner(room)
    caption = " ".join(f"word{number}" for number in range(80))
    prompt = writer.instance(caption, [FULL])
    assert prompt.endswith("mark" + "".join(Grid(4).tokens))
    assert count(prompt) <= room
    kept = prompt.rpartition(", ")[0].split()
    assert kept == caption.split()[: len(kept)]
    assert len(kept) == room - 18
    assert writer.usage["captions shortened"] == 1


def test_concepts_that_do_not_fit_share_the_room() -> None:
    writer = captioner(grid_size=8)
    other = FULL._replace(label="text")
    prompt = writer.instance("a robin", [FULL, other])
    assert count(prompt) <= 75
    tails = prompt.rpartition("mark")[2].split(" text")
    assert [tail.count("<") for tail in tails] == [36, 36]
    assert writer.usage["crowded out"] == 2


def test_a_cap_keeps_the_most_covered_bins() -> None:
    writer = captioner(max_bins=2)
    box = ConceptBox("mark", 1.0, (0.2, 0.0, 0.76, 0.25))  # 0.2 of the first, 0.04 of the last
    assert writer.instance("", [box]) == "mark<l1><l2>"
    assert writer.usage["capped"] == 1


def test_negative_prompts_of_each_mode() -> None:
    images = [[TOP_LEFT], [TOP_LEFT, ConceptBox("mark", 1.0, (0.5, 0.0, 0.7, 0.2))], []]
    written = {
        mode: captioner(negative_prompt="ugly", negative=mode, top_k=1).negative(["mark"], images)
        for mode in ("none", "name", "name+all", "name+top-k")
    }
    assert written == {
        "none": "ugly",
        "name": "mark, ugly",
        "name+all": "mark" + "".join(Grid(4).tokens) + ", ugly",
        "name+top-k": "mark<l0>, ugly",
    }


@pytest.mark.parametrize(("encoding", "bins"), [("corners", (5, 15)), ("bins", (5, 6))])
def test_frequent_bins_are_those_that_captions_name(encoding: str, bins: tuple[int, int]) -> None:
    writer = captioner(negative="name+top-k", top_k=2, encoding=encoding)
    square = ConceptBox("mark", 1.0, (0.25, 0.25, 1.0, 1.0))
    words = "".join(f"<l{bin}>" for bin in bins)
    assert writer.negative(["mark"], [[square]]) == f"mark{words}"


def test_all_bins_fit_up_to_a_grid_of_eight() -> None:
    writer = captioner(grid_size=8, negative="name+all")
    assert writer.negative(["QR code"]) == "QR code" + "".join(Grid(8).tokens)
    assert writer.fits(writer.negative(["QR code"]))
    crowded = captioner(grid_size=9, negative="name+all")
    assert crowded.fits(crowded.negative(["QR code"]))
    assert crowded.usage["crowded out"] == 1


def test_bins_leave_room_for_what_else_is_not_wanted() -> None:
    words = " ".join(f"word{number}" for number in range(20))
    writer = captioner(grid_size=8, negative="name+all", negative_prompt=words)
    written = writer.negative(["mark"])
    assert writer.fits(written)
    assert written.endswith(f"<l50><l51>, {words}")
    assert writer.usage["crowded out"] == 1


def test_a_model_of_smaller_bins_is_refused() -> None:
    for settings in ({"caption": "geometry"}, {"negative": "name+all"}):
        erasing = Erasing(grid_size=4, **settings)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"data\.erasing\.grid_size is 4, .* knows <l16>"):
            Captioner(erasing, Prompts(""), count, 75)
    Captioner(Erasing(grid_size=4, caption="name"), Prompts(""), count, 75)


def test_a_model_without_words_for_bins_is_refused() -> None:
    def pieces(text: str) -> int:
        return len(text)

    for settings in ({"caption": "geometry"}, {"negative": "name+all"}):
        with pytest.raises(ValueError, match="use the model GeometryErasure"):
            Captioner(Erasing(**settings), Prompts(""), pieces, 75)  # type: ignore[arg-type]
    Captioner(Erasing(caption="name"), Prompts(""), pieces, 75)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"caption_drop": 1.5}, r"Erasing\.caption_drop is 1\.5"),
        ({"max_bins": -1}, r"Erasing\.max_bins is -1"),
        ({"top_k": 0}, r"Erasing\.top_k is 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Erasing(**settings)  # type: ignore[arg-type]


def test_words_of_bins_are_atoms_of_a_real_vocabulary(small_sd: Path) -> None:
    """Also right after a name and right before other text, and known text stays as it was."""
    from shortcut_lightning import backbones

    backbone = backbones.load(str(small_sd))
    plain = "a photo of sks dog on the beach"
    before = backbone.count_tokens(plain)
    grid = Grid(8)
    backbone.add_tokens(grid.tokens)
    assert backbone.count_tokens(plain) == before
    assert [backbone.count_tokens(token) for token in grid.tokens] == [1] * 64
    writer = Captioner(
        Erasing(caption="geometry"), Prompts(""), backbone.count_tokens, backbone.prompt_length
    )
    prompt = writer.instance(" ".join([plain] * 12), [FULL._replace(label="dog")])
    ids = backbone.tokenizer(prompt, truncation=True, max_length=77).input_ids  # type: ignore
    assert backbone.tokenizer.convert_ids_to_tokens(ids[-65:-1]) == grid.tokens  # type: ignore
