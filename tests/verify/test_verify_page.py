"""The page of a verification in a real browser: python -m pytest tests/verify"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))  # the browser's module
from browser import asked, needs_browser

from shortcut_lightning.files.images import save_image
from shortcut_lightning.verify import effects, page
from shortcut_lightning.verify.recipe import Recipe
from shortcut_lightning.verify.routes import COLUMNS, matrix

EVIL = "<script>document.title = 'broken'</script>"
CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_steps": 300},
    "model": {"init_args": {"pretrained_model_name_or_path": "pocket"}},
    "data": {
        "init_args": {
            **{"evaluation": {"images_per_prompt": 2, "prompts": ["a", "b"]}, "resolution": 0},
            **{"use_captions": False, "cache_dir": ""},
        }
    },
}


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)), path)


@pytest.fixture
def answer(tmp_path: Path) -> page.Answer:
    """A verification of three routes, on which less and less is left."""
    attack = {"class_path": f"x.{EVIL}", "init_args": {"epsilon": 16.0}}
    recipe = Recipe(CONFIG, attack, [], f"{EVIL}/me", "", False)
    made = matrix(recipe, tmp_path, "default")
    left = {"as given": 0.4, "JPEG": 0.05, "JPEG and half size": 0.0}
    values: dict = {"eval/identity": {}, "eval/quality_pocket": {}}
    runs = {}
    for number, route in enumerate(left):
        for column in COLUMNS:
            chance = np.random.default_rng(number)
            lower = left[route] if column == "protected" else 0.0
            drawn = chance.normal(0.9 - lower, 0.02, 32) + chance.normal(0, 0.005, 32)
            of_arm = {f"0/{n}": float(v) for n, v in enumerate(drawn)}
            for by_arm in values.values():
                by_arm[f"{column}/{route}"] = of_arm
            runs[f"{column}/{route}"] = folder = tmp_path / column / str(number)
            for image in range(4):
                picture(folder / "samples" / "tuned" / f"{image:05d}.png", image)
    for name in ("instance", "noise", "protected"):
        for number in range(2):
            picture(tmp_path / "photographs" / name / f"{number}.png", number)
    measured = effects.Measured(values)
    return page.Answer(
        recipe=recipe,
        matrix=made,
        measured=measured,
        findings=effects.findings(measured, made.routes),
        judges=["pocket-identity", "pocket-attributes"],
        models=["pocket"],
        runs=runs,
        damage={"protected": {"largest, /255": 16.0, "PSNR, dB": 30.1, "LPIPS": None}},
        finished=(9, 22),
        seconds=1234.0,
        command=f"shortcut-lightning verify {EVIL} " + "x" * 200,
        unfinished=[f"protected/{EVIL}, photographs, seed 0"],
    )


READ = """
    const texts = selector => [...document.querySelectorAll(selector)]
        .map(each => each.textContent.replace(/\\s+/g, ' ').trim());
    return {
        title: document.querySelector('h1').textContent,
        tab: document.title,
        verdict: document.querySelector('section p').textContent,
        routes: texts('.routes h3'), grades: texts('.routes .grade'),
        columns: texts('.triple figcaption').slice(0, 3),
        drawn: texts('.prompt > p'),
        photographs: document.querySelectorAll('.quadruple').length,
        broken: [...document.images].filter(each => !each.naturalWidth).length,
        unnamed: [...document.images].filter(each => !each.alt).length,
        limits: texts('.cautions li'),
    };
"""


@needs_browser
def test_the_worst_case_is_read_first(answer: page.Answer, tmp_path: Path) -> None:
    said = asked(page.page(answer, tmp_path), READ, tmp_path)
    assert said["title"] == "In the worst case the protection has no effect that could be shown"
    assert said["tab"] == said["title"]
    assert said["verdict"].startswith(
        "Worst case: after a platform's JPEG and resizing your protection lowers identity by "
    )
    assert "Judged by pocket-identity and pocket-attributes." in said["verdict"]
    assert said["routes"] == ["JPEG and half size", "JPEG", "as given"]
    assert said["grades"] == ["no effect shown", "a slight effect", "an effect is shown"]
    assert said["columns"] == ["clean", "noise", "protected"]
    assert said["drawn"] == said["routes"]
    assert said["photographs"] == 2
    assert said["broken"] == said["unnamed"] == 0
    assert said["limits"][0].startswith("This is a rehearsal: the photographs are not of the drawn")


@needs_browser
def test_nothing_finished_is_said(answer: page.Answer, tmp_path: Path) -> None:
    empty = replace(
        answer, findings=[], measured=effects.Measured({}), runs={}, judges=[], models=[]
    )
    said = asked(page.page(empty, tmp_path), READ, tmp_path)
    assert said["title"] == "Nothing was compared yet"
    assert said["routes"] == said["drawn"] == []
    page.write(empty, tmp_path)
    assert (tmp_path / "verify.json").is_file()


LAYOUT = """
    const light = text => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
            .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = light(window.getComputedStyle(document.body).backgroundColor);
    const contrast = selector => {
        const x = light(window.getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(x, paper) + 0.05) / (Math.min(x, paper) + 0.05);
    };
    const box = selector => document.querySelector(selector).getBoundingClientRect();
    return {paper, ink: contrast('h1'), quiet: contrast('.lead'),
            width: document.documentElement.scrollWidth,
            widest: Math.max(...[...document.querySelectorAll('body *')]
                .map(each => each.getBoundingClientRect().right)),
            overlap: [...document.querySelectorAll('.routes .whisker')].some(row => {
                const [a, b] = [row.querySelector('.label'), row.querySelector('strong')]
                    .map(each => each.getBoundingClientRect());
                return a.right > b.left && a.bottom > b.top && b.bottom > a.top;
            }),
            requests: window.performance.getEntriesByType('resource').map(each => each.name)};
"""


@needs_browser
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_readable_on_a_phone_and_in_the_dark(
    answer: page.Answer, width: int, dark: bool, tmp_path: Path
) -> None:
    said = asked(page.page(answer, tmp_path), LAYOUT, tmp_path, width=width, dark=dark)
    assert (said["paper"] < 0.2) is dark
    assert said["ink"] > 7
    assert said["quiet"] > 4.5
    assert said["width"] <= width
    assert said["widest"] <= width
    assert not said["overlap"]
    assert said["requests"] == []
