"""More kinds of wrong inputs of `bad_input.py`: files of scores, optimisers and schedules by class,
the verb `verify`, looks while it trains."""

import random
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_kinds import Case, Kind, Made, fit, spoilt


def of_scores(rng: random.Random, made: Made) -> Case:
    """Two files of scores, one of them wrong."""
    chance = np.random.default_rng(rng.getrandbits(32))
    np.save("good.npy", chance.normal(size=30))
    rows = [f"{value:.4f}" for value in chance.normal(size=30)]
    place = rng.randrange(2, 30)
    arrays: dict[str, Any] = {
        "three dimensions": np.zeros((30, 2, 2)), "complex": np.ones(30) * 1j,
        "words": np.array(["a"] * 30), "no rows": np.zeros((0, 1)), "true": np.ones(30, dtype=bool),
        "objects": np.array([{}] * 30, dtype=object), "one number": np.array(3.0),
        "two columns": chance.normal(size=(30, 2)), "NaN": np.full(30, np.nan),
    }  # fmt: skip
    lines = {
        bad: [*rows[:place], bad, *rows[place:]]
        for bad in ("nan", "inf", "abc", "1,2", "", "-inf", "1e999", '"')
    } | {"a header alone": [], "three rows": rows[:3], "twice": ["loss", *rows]}
    form = rng.choice(["array", "text", "text", "bytes", "good"])
    path, expected = Path("bad.npy"), "refused"
    if form == "array":
        what = rng.choice(list(arrays))
        np.save(path, arrays[what], allow_pickle=True)
    elif form == "text":
        path, what = Path("bad.csv"), rng.choice(list(lines))
        path.write_text("\n".join(["loss", *lines[what]]) + "\n")
        expected = "either" if what == "" else "refused"
    else:
        np.save(path, chance.normal(size=30))
        what, expected = "good", "taken"
        if form == "bytes":
            what, expected, data = spoilt(rng, path.read_bytes())
            path.write_bytes(data)
    both = [str(path), "good.npy"]
    rng.shuffle(both)
    argv = [
        "audit", "--audit.member_scores", both[0], "--audit.nonmember_scores", both[1],
        "--audit.direction", "low",
    ]  # fmt: skip
    return Case(f"scores {path.suffix}: {what!r}", expected, argv)


def of_learning(rng: random.Random, made: Made) -> Case:
    """What learning is done with, and looks at it."""
    key, name, setting, value = rng.choice([
        ("optimizer", "Nothing", "", ""), ("optimizer", "os.system", "", ""),
        ("optimizer", "torch.optim.SparseAdam", "", ""), ("optimizer", "SGD", "nesterov", "true"),
        ("optimizer", "torch.optim.Muon", "", ""), ("optimizer", "SGD", "momentum", "-1"),
        ("optimizer", "SGD", "momentum", ".nan"), ("optimizer", "SGD", "lr", "1"),
        ("optimizer", "SGD", "weight_decay", ".inf"), ("optimizer", "AdamW", "betas", "[2, 3]"),
        ("optimizer", "AdamW", "eps", ".nan"), ("lr_scheduler", "StepLR", "", ""),
        ("lr_scheduler", "StepLR", "step_size", "0"), ("lr_scheduler", "cosine", "", ""),
        ("lr_scheduler", "ExponentialLR", "gamma", "-1"),
        ("lr_scheduler", "ExponentialLR", "gamma", ".nan"),
        ("trainer.callbacks+", "Look", "every_n_steps", "-1"),
        ("trainer.callbacks+", "Look", "columns", "0"),
        ("trainer.callbacks+", "Look", "best", "identity"),
        ("trainer.callbacks+", "Look", "patience", "3"),
    ])  # fmt: skip
    more = [f"--{key.removesuffix('+')}.{setting}", value] if setting else []
    return Case(" ".join([key, name, *more]), "refused", fit(made, f"--{key}", name, *more))


def of_verify(rng: random.Random, made: Made) -> Case:
    attack = ["--data.attack", "RandomNoise"]
    option = rng.choice([
        ["--effort", "fast"], ["--workers", "-1"], ["--family", "/no/such"], ["--name", "x"],
        ["--restoration", "nothing"], ["--data.attack.epsilon", "0.05"], ["--ckpt_path", "last"],
        ["--data.attack_share", "0.5"], ["--trainer.max_steps", "0"], ["--model.rank", "0"],
        ["--data.instance_data_dir", "nowhere"], ["--data.attack", "NoAttack"], ["--output"],
    ])  # fmt: skip
    seen = ["--trainer.callbacks", "[Evaluation, IdentityMatch]", "--dry_run=true"]
    argv = ["verify", "--config", str(made.config), *attack, "--trainer.max_steps=1", *seen]
    return Case(f"verify {' '.join(option)}", "refused", [*argv, *option])


KINDS: dict[str, Kind] = {"scores": of_scores, "learning": of_learning, "verify": of_verify}
