"""What happens to photographs on their way to a model that learns them, and the matrix of it.

The arms are the photographs (clean, with noise, protected) times the routes. One arm beside them is
the untouched model, asked for the same pictures: below what it makes nothing can be lowered.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from shortcut_lightning.bench.paths import located
from shortcut_lightning.verify.photographs import NOISE, PROTECTED
from shortcut_lightning.verify.recipe import Recipe

Effort = Literal["quick", "default", "full"]
SEEDS: Mapping[str, int] = {"quick": 1, "default": 1, "full": 3}  # trainings of each arm

CLEAN, UNTOUCHED = "clean", "untouched"
COLUMNS = (CLEAN, NOISE, PROTECTED)
AS_GIVEN = "as given"
PURIFIERS = "purifiers.yaml"  # beside the matrix: those of the recipe
LEARNER = "model.pretrained_model_name_or_path"
_OTHER_POCKET = {"pocket": "pocket-flow", "pocket-flow": "pocket"}


class Route(NamedTuple):
    """A level of the matrix."""

    name: str  # as a row of the page is called
    after: str  # as a sentence has it
    settings: dict[str, Any]  # options of the command line

    @property
    def learner(self) -> str:
        """The model that learns, where it is another one than the recipe's; else empty."""
        return str(self.settings.get(LEARNER, ""))


class Matrix(NamedTuple):
    """The matrix of a verification, as `bench` reads it, and what its levels are called."""

    routes: list[Route]
    left_out: list[str]  # what could not be tried, each with what it takes
    seeds: int
    settings: dict[str, Any]  # the file

    @property
    def trainings(self) -> int:
        """How many models are trained."""
        return len(self.routes) * len(COLUMNS) * self.seeds


def matrix(
    recipe: Recipe, root: Path, effort: Effort, restoration: str = "", family: str = ""
) -> Matrix:
    """The matrix in the folder `root`.

    Args:
        recipe: What is asked for.
        root: The folder of the matrix's file, of the photographs and of the runs.
        effort: How many of the routes, and how often.
        restoration: A preset or file of purifiers; empty for the pocket's own, and elsewhere none.
        family: Another model, by which photographs are drawn anew and which learns them; empty for
            the other built-in one, and elsewhere none.
    """
    routes, left_out = _routes(recipe, restoration, family)
    if effort == "quick":
        left_out += [f"{route.name} (with --effort default)" for route in routes[2:]]
        routes = routes[:2]
    photographs = root / "photographs"
    seeds = [recipe.config["seed_everything"] + number for number in range(SEEDS[effort])]
    settings = {
        "base": ["recipe.yaml"],
        "subjects": ["photographs"],
        "seeds": seeds,
        "factors": {
            "photographs": {
                PROTECTED: {"data.instance_data_dir": str(photographs / PROTECTED)},
                CLEAN: {},
                NOISE: {"data.instance_data_dir": str(photographs / NOISE)},
                UNTOUCHED: {"trainer.max_steps": 0},
            },
            "route": {route.name: route.settings for route in routes},
        },
        "arms": {f"{UNTOUCHED}/{AS_GIVEN}": 0, **{f"{name}/*": 0 for name in COLUMNS}},
        "against": [f"{CLEAN}/*", f"{NOISE}/*"],
        "output_dir": str(root / "runs"),
    }
    return Matrix(routes, left_out, len(seeds), settings)


def _routes(recipe: Recipe, restoration: str, family: str) -> tuple[list[Route], list[str]]:
    """The routes, those of `quick` first, and what cannot be tried."""
    built_in = recipe.model in _OTHER_POCKET
    if family and _place(family) == _place(recipe.model):
        raise ValueError(
            f"--family is '{family}', the model that the protection is made against "
            "(model.pretrained_model_name_or_path); name another one, or leave it out."
        )
    family = family or _OTHER_POCKET.get(recipe.model, "")
    restoration = restoration or ("code_sr_pocket" if built_in else "")
    routes = [
        Route(AS_GIVEN, "as they are", {}),
        _purified("JPEG and half size", "after a platform's JPEG and resizing", "jpeg_resize"),
        _purified("JPEG", "after JPEG alone", "jpeg"),
    ]
    left_out = []
    if Path(restoration).is_file():
        restoration = str(Path(restoration).resolve())
    if restoration:
        routes.append(_purified("restored", "after restoration", restoration))
    else:
        left_out.append("restoration (name one: --restoration code_sr)")
    if family:
        preset = "img2img_pocket" if family in _OTHER_POCKET else "img2img"
        by, name = {"data.purifiers.backbone": family}, Path(family).name
        routes += [
            _purified(f"drawn anew by {name}", f"after image-to-image by {name}", preset, by),
            _purified(
                f"autoencoder of {name}", f"after the autoencoder of {name}", _AUTOENCODER, by
            ),
            Route(f"learnt by {name}", f"when {name} learns them", {LEARNER: family}),
        ]
    else:
        left_out.append("another family, as purifier and as learner (name one: --family MODEL)")
    if recipe.purifiers:
        routes.append(_purified("your purifiers", "after your purifiers", PURIFIERS))
    return routes, left_out


_AUTOENCODER = "other_autoencoder"


def _place(name: str) -> str:
    """A model's folder, whichever way it is written, or its name."""
    return name if name in _OTHER_POCKET else located(name, Path())


def _purified(name: str, after: str, preset: str, more: Mapping[str, Any] | None = None) -> Route:
    return Route(name, after, {"data.purifiers": preset, **(more or {})})
