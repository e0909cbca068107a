"""Captions, shares and repeats as they are typed: python -m pytest tests/cli"""

from collections.abc import Callable

import pytest
import torch

from shortcut_lightning.cli import main

ARGS = (
    "--data.captions.template", "{caption}, in light", "--data.captions.shuffle", "true",
    "--data.captions.keep_first", "1", "--data.captions.dropout", "0.2",
    "--data.training.picture_repeats", '{"*.png": 2}', "--data.attack", "RandomNoise",
    "--data.attack_share", "0.5", "--model.prompt_chunks", "2",
)  # fmt: skip


def test_they_are_of_the_run_and_kept_in_its_config(recipe: str) -> None:
    main(["fit", "--config", recipe, *ARGS])
    main(["fit", "--config", "runs/small/version_0/config.yaml", "--name", "small"])
    one, two = (
        torch.load(f"runs/small/version_{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for n in range(2)
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--data.captions.dropout=1.5"], "data.captions.dropout is 1.5; it must be from 0 to 1"),
        (["--data.captions.keep_first=-1"], "keep_first is -1; it must be at least 0"),
        (["--data.captions.template= "], "data.captions.template is empty"),
        (["--data.captions.shufle=true"], "did you mean 'shuffle'?"),
        (["--data.attack_share=2"], "data.attack_share is 2; it must be from 0 to 1"),
        (
            ["--data.training.picture_repeats", '{"no.png": 2}'],
            "data.training.picture_repeats: no picture is",
        ),
        (["--model.prompt_chunks=0"], "model.prompt_chunks is 0; it must be from 1 to 8"),
        (
            ["--data.captions.dropout=0.1", "--model.compute.cache_text_embeddings=true"],
            "model.compute.cache_text_embeddings embeds each prompt once, but "
            "data.captions.dropout",
        ),
    ],
)
def test_mistakes_cost_a_line(
    args: list[str], part: str, recipe: str, mistake: Callable[..., str]
) -> None:
    assert part in mistake("fit", "--config", recipe, *args)


def test_other_captions_are_another_run(recipe: str, mistake: Callable[..., str]) -> None:
    main(["fit", "--config", recipe, *ARGS, "--trainer.max_steps", "2"])
    other = ["--data.captions.dropout", "0.5", "--ckpt_path", "last"]
    assert "data.captions" in mistake("fit", "--config", recipe, *ARGS, *other)
