"""The kinds of wrong inputs of `bad_input.py`: each function makes one in the working folder."""

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file


class Made(NamedTuple):
    """What is made once: good inputs, that the kinds spoil copies of."""

    folder: Path
    config: Path
    model: Path
    pictures: Path
    checkpoint: Path
    lora: Path


class Case(NamedTuple):
    """A command line, and whether it must be `refused`, `taken` or may be `either`."""

    what: str
    expected: str
    argv: list[str]


Kind = Callable[[random.Random, Made], Case]
PROMPT = "a photo of sks person"
FIT = ["--trainer.max_steps", "1"]


def make(folder: Path) -> Made:
    """A small model with random weights, pictures, a checkpoint and a LoRA."""
    from models import write_small_sd

    from shortcut_lightning import backbones
    from shortcut_lightning.cli import main

    model, pictures = write_small_sd(folder / "model"), folder / "pictures"
    pictures.mkdir()
    for number in range(2):
        picture(random.Random(number)).save(pictures / f"{number}.png")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings(model, pictures)))
    main(["fit", "--config", str(config), *FIT, "--output_dir", str(folder / "runs")])
    checkpoint = next((folder / "runs").rglob("*.ckpt"))
    lora = folder / "lora"
    backbone = backbones.load(str(model)).requires_grad_(False)
    backbone.add_lora(unet=True, text_encoder=True, rank=2, alpha=2, dropout=0.0, dora=False)
    backbone.save_lora(lora)
    return Made(folder, config, model, pictures, checkpoint, lora)


def settings(model: Path, pictures: Path) -> dict[str, Any]:
    return {
        "trainer": {
            "accelerator": "cpu", "logger": False,
            "enable_progress_bar": False, "enable_model_summary": False,
        },
        "model": {
            "class_path": "DreamBooth",
            "init_args": {
                "pretrained_model_name_or_path": str(model),
                "sampling": {"num_inference_steps": 1},
            },
        },
        "data": {
            "class_path": "PersonalizationDataModule",
            "init_args": {
                "instance_data_dir": str(pictures), "instance_prompt": PROMPT,
                "class_prompt": "a photo of a person", "train_batch_size": 1,
            },
        },
    }  # fmt: skip


def picture(rng: random.Random, side: int = 40) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32))
    return Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8))


def protect(made: Made, *more: str) -> list[str]:
    return [
        "protect", "--config", str(made.config), "--data.attack", "RandomNoise",
        "--data.instance_data_dir", "in", "--output", "out", *more,
    ]  # fmt: skip


def fit(made: Made, *more: str) -> list[str]:
    return ["fit", "--config", str(made.config), *FIT, *more]


def predict(made: Made, *more: str) -> list[str]:
    prompts = ["--data.evaluation.predict_prompts", json.dumps([PROMPT])]
    return ["predict", "--config", str(made.config), *prompts, *more]


def spoilt(rng: random.Random, data: bytes) -> tuple[str, str, bytes]:
    """A file's bytes, spoilt so that it cannot be read, or perhaps can."""
    middle = rng.randrange(1, max(2, len(data) * 9 // 10))
    other = bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 200)))
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 30)):
        changed[rng.randrange(len(data))] = rng.getrandbits(8)
    return rng.choice([
        (f"cut after {middle} bytes", "refused", data[:middle]),
        ("empty", "refused", b""),
        (f"{len(other)} random bytes", "refused", other),
        ("a page of HTML", "refused", b"<!DOCTYPE html><html><body>404</body></html>\n"),
        ("a pointer of git-lfs", "refused", b"version https://git-lfs.github.com/spec/v1\n"),
        ("zeros", "refused", bytes(len(data))),
        ("some bytes changed", "either", bytes(changed)),
        ("first half zeros", "refused", bytes(len(data) // 2) + data[len(data) // 2 :]),
    ])  # fmt: skip


# pictures


def of_picture(rng: random.Random, made: Made) -> Case:
    Path("in").mkdir()
    suffix = rng.choice(["png", "jpg", "webp", "bmp", "tiff", "gif"])
    path = Path("in") / f"a.{suffix}"
    picture(rng, rng.choice([33, 40, 64])).save(path)
    if rng.random() < 0.5:  # one that is good beside it must not hide it
        picture(rng).save("in/good.png")
    what, _, data = spoilt(rng, path.read_bytes())
    path.write_bytes(data)
    # Decoders forgive some of it, but not what has no beginning.
    expected = "refused" if what in ("empty", "zeros") or "HTML" in what else "either"
    return Case(f"{suffix}: {what}", expected, protect(made))


def of_mode(rng: random.Random, made: Made) -> Case:
    Path("in").mkdir()
    mode = rng.choice(["1", "L", "LA", "P", "PA", "RGBA", "I", "I;16", "F", "CMYK", "La", "RGBa"])
    suffix, image = rng.choice(["png", "tiff"]), picture(rng)
    if mode in ("La", "RGBa", "PA"):
        image = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode])
    elif mode in ("I", "I;16", "F"):
        image = image.convert("L").convert("F" if mode == "F" else "I")
        image = image.convert("I;16") if mode == "I;16" else image
    else:
        image = image.convert(mode)
    try:
        image.save(f"in/a.{suffix}")
    except OSError:
        image.convert("RGB").save(f"in/a.{suffix}")
    return Case(f"mode {mode} as {suffix}", "either", protect(made))


def of_size(rng: random.Random, made: Made) -> Case:
    Path("in").mkdir()
    side = rng.choice([1, 2, 3, 2**31 - 1, 60_000, 0])
    if side in (1, 2, 3):
        size = (side, rng.choice([1, 40, 300]))
        picture(rng, 40).resize(size).save("in/a.png")
        return Case(f"{size[0]} x {size[1]} pixels", "either", protect(made))
    picture(rng).save("in/a.png")
    data = bytearray(Path("in/a.png").read_bytes())
    data[16:24] = struct.pack(">II", side, rng.choice([side, 40]))
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    Path("in/a.png").write_bytes(bytes(data))
    return Case(f"a header of {side} pixels", "refused", protect(made))


# captions


def of_caption(rng: random.Random, made: Made) -> Case:
    shutil.copytree(made.pictures, "in")
    good = [{"file_name": f"{n}.png", "text": PROMPT} for n in range(2)]
    row = json.dumps(good[1])
    bad = rng.choice([
        '{"file_name": "0.png", "text": null}', '{"file_name": "0.png", "text": 3}',
        '{"file_name": "0.png", "text": ["a"]}', '{"file_name": 3, "text": "a"}',
        '{"file_name": null, "text": "a"}', '{"text": "a"}', '{"file_name": "0.png"}',
        "[1, 2]", "3", "null", '"text"', "{", '{"file_name": "0.png", "text": "a"', "\x00",
        '{"file_name": "0.png", "text": ""}', '{"file_name": "0.png", "text": "   "}',
        '{"file_name": "0.png", "text": NaN}', "[" * 5000, '{"a":' * 3000,
    ])  # fmt: skip
    text = "\n".join(rng.sample([bad, row], 2)) + "\n"
    encoding = rng.choice(["utf-8", "utf-8", "utf-8", "utf-16"])
    Path("in/metadata.jsonl").write_bytes(text.encode(encoding))
    argv = fit(made, "--data.instance_data_dir", "in", "--data.use_captions", "true")
    return Case(f"metadata.jsonl with {bad[:60]!r} in {encoding}", "refused", argv)


def of_sidecar(rng: random.Random, made: Made) -> Case:
    shutil.copytree(made.pictures, "in")
    what, data = rng.choice([
        ("empty", b""), ("blank", b" \n\t\n"), ("latin-1", b"a photo of sks caf\xe9"),
        ("utf-16", PROMPT.encode("utf-16")), ("binary", bytes(range(256))),
        ("too long", (PROMPT + " grass" * 300).encode()), ("missing", None),
        ("too long, the word last", ("grass " * 300 + PROMPT).encode()),
        ("a folder", None), ("a pipe", None),
    ])  # fmt: skip
    Path("in/1.txt").write_text(PROMPT)
    if data is not None:
        Path("in/0.txt").write_bytes(data)
    elif what == "a folder":
        Path("in/0.txt").mkdir()
    elif what == "a pipe":
        os.mkfifo("in/0.txt")
    argv = fit(made, "--data.instance_data_dir", "in", "--data.use_captions", "true")
    return Case(f"a caption file: {what}", "either" if what == "too long" else "refused", argv)


# configs

_ODD = ["abc", "", [], {}, [1], {"a": 1}, True, None, -1, 1.5, "1e3", 10**30, float("nan")]
_TEXTS: list[tuple[str, str, bytes]] = [
    ("a tab", "refused", b"trainer:\n\tmax_steps: 1\n"),
    ("an open bracket", "refused", b"trainer: [1, 2\n"),
    ("an open quote", "refused", b"trainer: 'a\n"),
    ("a list", "refused", b"- trainer\n- model\n"),
    ("a number", "refused", b"3\n"),
    ("a word", "refused", b"trainer\n"),
    ("zero bytes", "refused", b"trainer:\x00 3\n"),
    ("latin-1", "either", "# caf\u00e9\n".encode("latin-1")),
    ("utf-16", "either", "seed_everything: 1\n".encode("utf-16")),
    ("random bytes", "refused", bytes(range(128, 256))),
    ("a key twice", "refused", b"seed_everything: 1\nseed_everything: 2\n"),
    ("an anchor within itself", "refused", b"trainer: &a\n  callbacks: [*a]\n"),
    ("an unknown anchor", "refused", b"trainer: *nobody\n"),
    ("a Python object", "refused", b"trainer: !!python/object/apply:os.getcwd []\n"),
    ("an unknown tag", "refused", b"trainer: !mine 3\n"),
    ("two documents", "refused", b"seed_everything: 1\n---\nseed_everything: 2\n"),
    ("nested 3000 deep", "refused", b"trainer: " + b"[" * 3000 + b"]" * 3000 + b"\n"),
    ("a loop of references", "refused",
     b"seed_everything: ${output_dir}\noutput_dir: ${seed_everything}\n"),
    ("an unknown reference", "refused", b"output_dir: ${nothing.there}\n"),
    ("an open reference", "refused", b"output_dir: ${nothing\n"),
    ("a key that is a number", "refused", b"3: 4\n"),
    ("a key that is null", "refused", b"null: 4\n"),
    ("a key that is a list", "refused", b"? [1, 2]\n: 3\n"),
    ("many anchors", "refused", b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 104))),
    ("empty", "either", b""),
    ("a comment", "either", b"# nothing\n"),
    ("a merge of a number", "refused", b"trainer:\n  <<: 3\n"),
    ("JSON cut", "refused", b'{"trainer": {"max_steps": '),
]  # fmt: skip


def of_yaml(rng: random.Random, made: Made) -> Case:
    what, expected, data = rng.choice(_TEXTS)
    Path("more.yaml").write_bytes(data)
    return Case(f"config: {what}", expected, fit(made, "--config", "more.yaml"))


def of_type(rng: random.Random, made: Made) -> Case:
    """A good config with one value of another type, or one key misspelt."""
    config = yaml.safe_load(made.config.read_text())
    places = [
        (config, "trainer"), (config, "model"), (config, "data"), (config["model"], "init_args"),
        (config["data"], "init_args"), (config["model"], "class_path"),
        (config["data"], "class_path"), (config["trainer"], "logger"),
        (config["trainer"], "accelerator"),
        *((config[part]["init_args"], key) for part in ("model", "data")
          for key in config[part]["init_args"]),
    ]  # fmt: skip
    place, key = rng.choice(places)
    if rng.random() < 0.3:
        other = key[:-1] + rng.choice("xyz")
        place[other] = place.pop(key)
        what, expected = f"{key} misspelt as {other}", "refused"
    else:
        place[key] = rng.choice(_ODD)
        what, expected = f"{key}: {place[key]!r}", "either"
    Path("other.yaml").write_text(yaml.safe_dump(config))
    return Case(f"config: {what}", expected, ["fit", "--config", "other.yaml", *FIT])


_NUMBERS = {
    "model.learning_rate": ["-1", "0", ".nan", ".inf", "abc", "[]", "null"],
    "model.rank": ["0", "-3", "1.5", ".nan", "abc"],
    "model.prior_loss_weight": ["-1", ".nan", "abc"],
    "model.snr_gamma": ["-1", ".nan", ".inf"],
    "model.adam.beta1": ["-0.1", "1", "2", ".nan"],
    "model.adam.epsilon": ["0", "-1", ".nan"],
    "model.adam.weight_decay": ["-1", ".nan"],
    "model.adapter.dropout": ["-1", "1", "1.5", ".nan"],
    "model.sampling.num_inference_steps": ["0", "-1", "1.5", "1001", "abc"],
    "model.sampling.guidance_scale": [".nan", ".inf", "abc"],
    "model.lr_warmup_steps": ["-1", "1.5"],
    "data.train_batch_size": ["0", "-1", "1.5", "abc"],
    "data.evaluation.images_per_prompt": ["0", "-1", "1.5"],
    "data.resolution": ["-1", "1.5", "33", "abc"],
    "data.training.repeats": ["0", "-1"],
    "data.num_class_images": ["0", "-1", "abc"],
    "data.evaluation.seed": ["-1", "abc", "1.5"],
    "data.training.num_workers": ["-1", "1.5"],
    "data.noisy_class_images.transplant_limit": ["-1", "0", "256", ".nan"],
    "trainer.max_steps": ["-2", "1.5", "abc", ".nan"],
    "trainer.accumulate_grad_batches": ["0", "-1", "abc"],
    "trainer.devices": ["0", "-7", "abc"],
    "trainer.gradient_clip_val": ["abc", "-1", ".nan"],
    "seed_everything": ["-1", "abc", "99999999999999"],
}
_BUDGETS = ["0.5", "-1", "256", ".nan", ".inf", "abc", "8/255"]


def of_number(rng: random.Random, made: Made) -> Case:
    key = rng.choice([*_NUMBERS, "data.attack.epsilon"])
    if key == "data.attack.epsilon":
        value = rng.choice(_BUDGETS)
        shutil.copytree(made.pictures, "in")
        return Case(f"{key} {value}", "refused", protect(made, f"--{key}", value))
    value = rng.choice(_NUMBERS[key])
    more = ["--model.method", "lora"] if key in ("model.rank", "model.adapter.dropout") else []
    return Case(f"{key} {value}", "refused", fit(made, *more, f"--{key}", value))


# checkpoints and weights


class Touch:
    """Unpickled, it would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("PWNED"),)


def of_checkpoint(rng: random.Random, made: Made) -> Case:
    path, verb = Path("a.ckpt"), rng.choice([predict, fit])
    state = torch.load(made.checkpoint, weights_only=True, map_location="cpu")
    weights = state["state_dict"]
    some = rng.choice(sorted(weights))
    form = rng.choice(["bytes", "bytes", "pickle", "foreign", "part", "shape", "nan", "missing"])
    what, expected = form, "refused"
    if form == "bytes":
        what, expected, data = spoilt(rng, made.checkpoint.read_bytes())
        path.write_bytes(data)
    elif form == "pickle":
        torch.save({**state, "state_dict": Touch()}, path)
    elif form == "foreign":
        foreign: Any = rng.choice(
            [{}, [], 3, {"model": weights}, {"state_dict": {}}, torch.ones(2)]
        )
        torch.save(foreign, path)
        what = f"holds {str(foreign)[:40] if not isinstance(foreign, dict) else sorted(foreign)}"
    elif form == "missing":
        path = Path("nowhere.ckpt")
    else:
        tensor = weights.pop(some)
        if form == "shape":
            weights[some] = torch.cat([tensor.flatten(), tensor.flatten()[:1]])
        elif form == "nan":
            weights[some] = torch.full_like(tensor, float("nan"))
        what = f"{form}: {some}"
        torch.save(state, path)
    return Case(f"checkpoint: {what}", expected, verb(made, "--ckpt_path", str(path)))


def of_model(rng: random.Random, made: Made) -> Case:
    shutil.copytree(made.model, "model")
    parts = ["unet", "vae", "text_encoder"]
    part, expected = Path("model") / rng.choice([*parts, "tokenizer", "scheduler"]), "refused"
    form = rng.choice(["gone", "renamed", "empty", "json", "value", "index", "extra", "weights"])
    what = f"{part.name} {form}"
    file = next(part.glob("*config.json"))
    if form == "gone":
        shutil.rmtree(part)
    elif form == "renamed":
        part.rename(part.with_name(part.name + "_old"))
    elif form == "empty":
        shutil.rmtree(part)
        part.mkdir()
    elif form == "json":
        how, _, data = spoilt(rng, file.read_bytes())
        what, expected = f"{part.name}: {file.name} {how}", "either"
        if how != "some bytes changed" and part.name != "tokenizer":
            expected = "refused"
        file.write_bytes(data)
    elif form == "value":
        content = json.loads(file.read_text())
        key = rng.choice(sorted(content))
        content[key] = rng.choice([None, "abc", -1, 0, [], {}, 10**6, 7.5])
        what, expected = f"{part.name}: {key} = {content[key]!r}", "either"
        file.write_text(json.dumps(content))
    elif form == "index":
        index = Path("model/model_index.json")
        content = json.loads(index.read_text())
        changed = rng.choice([
            {}, [], 3, {**content, part.name: ["os", "system"]}, {**content, part.name: None},
            {**content, part.name: [None, None]}, {**content, part.name: 3},
            {k: v for k, v in content.items() if k != part.name},
            {**content, "_class_name": "Nothing"}, {**content, "_class_name": "FluxPipeline"},
        ])  # fmt: skip
        what, expected = f"model_index.json {json.dumps(changed)[:60]} ({part.name})", "either"
        index.write_text(json.dumps(changed))
    elif form == "extra":
        (Path("model") / "extra").mkdir()
        (Path("model") / "extra" / "config.json").write_text("{")
        what, expected = "a folder more", "taken"
    else:
        part = Path("model") / rng.choice(parts)
        what, expected = weights_of(rng, next(part.glob("*.safetensors")))
        what = f"{part.name}: {what}"
    verb = rng.choice([fit, predict])
    return Case(
        f"model: {what}", expected, verb(made, "--model.pretrained_model_name_or_path", "model")
    )


def weights_of(rng: random.Random, file: Path) -> tuple[str, str]:
    """Spoils a safetensors file in place."""
    form = rng.choice(["bytes", "part", "shape", "nan", "inf", "name", "header"])
    if form == "bytes":
        what, expected, data = spoilt(rng, file.read_bytes())
        file.write_bytes(data)
        return what, expected
    if form == "header":
        file.write_bytes(struct.pack("<Q", rng.choice([2**62, 10**9])) + file.read_bytes()[8:])
        return "a header of many bytes", "refused"
    state = load_file(file)
    some = rng.choice(sorted(key for key in state if state[key].is_floating_point()))
    tensor = state.pop(some).clone()
    if form == "shape":
        state[some] = torch.zeros(*tensor.shape, 2)
    elif form in ("nan", "inf"):
        tensor.flatten()[0] = float(form)
        state[some] = tensor
    elif form == "name":
        state[some.replace("e", "x") + "y"] = tensor
    save_file(state, file, {"format": "pt"})
    return f"{form}: {some}", "refused"


def of_lora(rng: random.Random, made: Made) -> Case:
    name = rng.choice(["pytorch_lora_weights.safetensors", "kohya_lora.safetensors"])
    path = Path("a.safetensors")
    shutil.copy(made.lora / name, path)
    form = rng.choice(["weights", "weights", "lokr", "flux", "prefix", "pickle", "missing", "none"])
    what, expected = form, "refused"
    state = load_file(path)
    if form == "weights":
        what, expected = weights_of(rng, path)
        if ".alpha" in what and what.startswith("part"):
            expected = "either"  # its strength is then the rank's
    elif form == "lokr":
        save_file({f"lora_unet_a{n}.lokr_w{n}": torch.ones(2, 2) for n in (1, 2)}, path)
    elif form == "flux":
        stem = "transformer.single_transformer_blocks.0.attn.to_q"
        down, up = torch.ones(2, 8), torch.ones(8, 2)
        save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, path)
    elif form == "prefix":
        save_file({f"other.{key}": each for key, each in state.items()}, path)
    elif form == "pickle":
        path = Path("a.pt")
        torch.save({"state_dict": Touch()}, path)
    elif form == "missing":
        path = Path("nowhere.safetensors")
    else:
        save_file({}, path)
    return Case(
        f"LoRA {name.split('_')[0]}: {what}", expected, predict(made, "--model.lora", str(path))
    )


def of_embedding(rng: random.Random, made: Made) -> Case:
    path = Path(rng.choice(["<new>.safetensors", "new.pt", "new.bin"]))
    wide = torch.randn(2, 32)
    what, expected, content = rng.choice([
        ("two encoders", "refused", {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}),
        ("768 wide", "refused", {"emb_params": torch.ones(1, 768)}),
        ("no width", "refused", {"emb_params": torch.tensor(1.0)}),
        ("three dimensions", "refused", {"emb_params": torch.ones(1, 2, 32)}),
        ("no vectors", "refused", {"emb_params": torch.ones(0, 32)}),
        ("whole numbers", "refused", {"emb_params": torch.ones(1, 32).long()}),
        ("not finite", "refused", {"emb_params": wide * float("nan")}),
        ("two words", "refused", {"<a>": wide, "<b>": wide.clone()}),
        ("nothing", "refused", {}),
        ("200 vectors", "refused", {"<a>": torch.ones(200, 32)}),
        ("a known word", "either", {"photo": wide}),
        ("a word with a space", "either", {"two words": wide}),
        ("bytes", "refused", {"<a>": wide}),
        ("good", "taken", {"<a>": wide}),
    ])  # fmt: skip
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    if what == "bytes":
        how, expected, data = spoilt(rng, path.read_bytes())
        what = how
        path.write_bytes(data)
    elif path.suffix != ".safetensors" and rng.random() < 0.2:
        what, expected = "a pickle", "refused"
        path.write_bytes(pickle.dumps({"<a>": Touch()}))
    argv = predict(made, "--model.embeddings", json.dumps([str(path)]))
    return Case(f"embedding {path.suffix}: {what}", expected, argv)


# texts


def of_boxes(rng: random.Random, made: Made) -> Case:
    head, good = "file_name,label,x0,y0,x1,y1,score", "1.png,code,0.1,0.1,0.5,0.5,1"
    bad = rng.choice([
        "0.png,code,0.5,0.1,0.1,0.5,1", "0.png,code,0.1,0.5,0.5,0.1,1", "0.png,code,nan,0,1,1,1",
        "0.png,code,0,0,inf,1,1", "0.png,code,10,10,90,90,1", "0.png,code,a,b,c,d,1",
        "0.png,code,0.1,0.1", "0.png,code,,,,,", ",code,0,0,1,1,1", "0.png,,0,0,1,1,1",
        "0.png,code,-1,-1,0.5,0.5,1", "0.png,code,0,0,1,1,2", "0.png,code,0,0,1,1,-1",
        "0.png,code,0,0,1,1,nan", '0.png,"code,0,0,1,1,1', "0.png,code,0.2,0.2,0.2,0.4,1", "\x00",
    ])  # fmt: skip
    rows = {
        "csv": f"{head}\n{good}\n{bad}\n",
        "jsonl": rng.choice([
            '{"file_name": "0.png"}', '{"file_name": "0.png", "boxes": 3}', "{", "3", "null", "[]",
            '{"file_name": "0.png", "boxes": [{"label": "a", "score": 1, "xyxy": [1, 0, 0, 1]}]}',
            '{"file_name": "0.png", "boxes": [{"label": "a", "score": 1, "xyxy": [0, 0, 1]}]}',
            '{"file_name": "0.png", "boxes": [{"label": "a", "score": 1, "xyxy": [0, 0, 9, 9]}]}',
            '{"file_name": "0.png", "boxes": [{"label": "a", "score": NaN, "xyxy": [0, 0, 1, 1]}]}',
            '{"file_name": "0.png", "boxes": [{"label": 3, "score": 1, "xyxy": [0, 0, 1, 1]}]}',
            '{"file_name": 3, "boxes": []}', '{"boxes": []}',
        ]),
        "json": rng.choice([
            "{}", "[]", "3", "{", '{"images": 3, "annotations": [], "categories": []}',
            '{"images": [], "annotations": [{"image_id": 1}], "categories": []}',
            '{"images": [{"id": 1, "file_name": "0.png", "width": 0, "height": 0}], "annotations": '
            '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}], "categories": '
            '[{"id": 1, "name": "a"}]}',
            '{"images": [{"id": 1, "file_name": "0.png", "width": 40, "height": 40}], '
            '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, -5, 4]}], '
            '"categories": [{"id": 1, "name": "a"}]}',
        ]),
    }  # fmt: skip
    suffix = rng.choice(list(rows))
    Path(f"boxes.{suffix}").write_text(rows[suffix])
    name = {"csv": "CsvBoxes", "jsonl": "PrecomputedBoxes", "json": "CocoBoxes"}[suffix]
    argv = [
        "detect", "--config", str(made.config), "--data.detector", name,
        "--data.detector.path", f"boxes.{suffix}", "--output", "out",
    ]  # fmt: skip
    return Case(
        f"boxes.{suffix}: {(bad if suffix == 'csv' else rows[suffix])[:80]!r}", "refused", argv
    )


def of_prompts(rng: random.Random, made: Made) -> Case:
    what, expected, data = rng.choice([
        ("empty", "refused", b""), ("blank", "refused", b"\n \n\t\n"),
        ("latin-1", "refused", b"caf\xe9\n"), ("utf-16", "either", PROMPT.encode("utf-16")),
        ("random bytes", "refused", bytes(range(128, 256))), ("zero bytes", "either", bytes(20)),
        ("very long", "either", b"grass " * 2000),
        ("braces", "either", b"{instance} {nothing} {\n"),
        ("a byte-order mark", "taken", b"\xef\xbb\xbf" + PROMPT.encode()),
        ("Windows line ends", "taken", PROMPT.encode() + b"\r\n"),
        ("missing", "refused", b""), ("a folder", "refused", b""), ("a pipe", "refused", b""),
    ])  # fmt: skip
    path = Path("prompts.txt")
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what != "missing":
        path.write_bytes(data)
    argv = [
        "predict",
        "--config",
        str(made.config),
        "--data.evaluation.predict_prompts_file",
        str(path),
    ]
    return Case(f"prompts file: {what}", expected, argv)


def of_name(rng: random.Random, made: Made) -> Case:
    """Good pictures under odd names, and odd paths."""
    Path("in").mkdir()
    name = rng.choice([
        b"caf\xe9.png", b"a b.png", b"-x.png", b"'\".png", b"a\nb.png", b"<script>.png",
        b"%s{}.png",
        b"\xf0\x9f\x98\x80.png", b"a" * 200 + b".png", b"..png", b"$HOME.png", b"\xff\xfe.png",
        "e\u0301.png".encode(), b"*.png", b"a.PNG", b"a.png.png", b"[1].png", b"#.png",
    ])  # fmt: skip
    picture(rng).save("in/plain.png")
    os.rename(b"in/plain.png", b"in/" + name)
    place = rng.choice(
        ["in", "in", "in", "nowhere", "in/x.png", "", "\x00", "x" * 300, "~nobody/a"]
    )
    argv = protect(made)
    argv[argv.index("in")] = place
    return Case(f"{name!r} in {place[:20]!r}", "either" if place == "in" else "refused", argv)


def of_words(rng: random.Random, made: Made) -> Case:
    """Command lines that ask for what is not there."""
    argv = rng.choice([
        ["fitt"], ["fit", "--config", "nowhere.yaml"], ["fit", "--config", "."],
        ["fit", "--config"],
        fit(made, "--model", "Nothing"), fit(made, "--data", "DreamBooth"), fit(made, "extra"),
        fit(made, "--model.learning_rat", "1"), fit(made, "--data.attack", "Nothing"),
        fit(made, "--data.attack", "os.system"), fit(made, "--data.attack", "DreamBooth"),
        fit(made, "--data.instance_prompt", ""), fit(made, "--ckpt_path", "."),
        fit(made, "--trainer.callbacks+", "Nothing"), fit(made, "--trainer.precision", "17"),
        fit(made, "--trainer.accelerator", "quantum"), fit(made, "--model.lr_scheduler", "none"),
        fit(made, "--model.new_tokens", "[sks, sks]"), fit(made, "--model.new_tokens", "[1, 2]"),
        fit(made, "--model.variant", "fp99"), fit(made, "--data.instance_data_dir", "pocket:x"),
        fit(made, "--data.instance_data_dir", "pocket:-1"),
        predict(made, "--data.evaluation.predict_prompts", "{"),
        fit(made, "--trainer.strategy", "nothing"),
        fit(made, "--model.compute.frozen_dtype", "int4"),
        fit(made, "--output_dir", "/dev/null/x"), fit(made, "--data.cache_dir", "/dev/null/x"),
        ["audit", "--config", str(made.config)], ["bench", "--config", str(made.config)],
        ["results", "nowhere"], ["audit", "--audit.members", "nowhere"],
        fit(made, "--data.with_prior_preservation", "true",
            "--data.class_data_dir", str(made.pictures)),
    ])  # fmt: skip
    shown = " ".join(each for each in argv if str(made.folder) not in each)
    return Case(shown[:120], "refused", argv)


KINDS: dict[str, Kind] = {
    "picture": of_picture,
    "mode": of_mode,
    "size": of_size,
    "caption": of_caption,
    "sidecar": of_sidecar,
    "yaml": of_yaml,
    "type": of_type,
    "number": of_number,
    "checkpoint": of_checkpoint,
    "model": of_model,
    "lora": of_lora,
    "embedding": of_embedding,
    "boxes": of_boxes,
    "prompts": of_prompts,
    "name": of_name,
    "words": of_words,
}
