"""What every score promises: pytest tests/membership/test_contracts.py"""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from shortcut_lightning import membership
from shortcut_lightning.audit.default_scores import dataset_scores, default_scores
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import (
    CLiD,
    CLiDThreshold,
    Engine,
    Score,
    SecMI,
    SecMINNs,
    SimA,
    picture,
)
from shortcut_lightning.membership.engine import measuring, settings
from shortcut_lightning.membership.mask import influence, kept
from shortcut_lightning.membership.model import Model
from shortcut_lightning.membership.probe import Chunk, Probe
from shortcut_lightning.membership.reducers import (
    GaussianNoise,
    ImportantWords,
    NullOnly,
    Reducer,
    SimpleClipping,
)


def every_score() -> Iterator[type[Score]]:
    """All concrete scores of the package, found by walking it."""
    for module in pkgutil.walk_packages(membership.__path__, f"{membership.__name__}."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if (
                issubclass(kind, Score)
                and not inspect.isabstract(kind)
                and kind.__module__ == module.name
            ):
                yield kind


SCORES = sorted(set(every_score()), key=lambda kind: kind.__name__)


def probe_of(model: Backbone, images: Tensor, captions: list[str], **changes: object) -> Probe:
    pictures = [
        picture(str(i), c, image, model.resolution)
        for i, (c, image) in enumerate(zip(captions, images, strict=True))
    ]
    wrapped = Model(model)
    chunk = Chunk(pictures, torch.device("cpu"), 0)
    return Probe(chunk, wrapped, {}, wrapped, **changes)  # type: ignore[arg-type]


def test_all_scores_of_the_issue_are_found() -> None:
    names = {kind.__name__ for kind in SCORES}
    assert names == {
        "CLiD", "CLiDThreshold", "CLiDTrees", "ComplexityCalibrated", "GSA", "GradientMasking",
        "Loss", "LossPeak", "LossProfile", "MonteCarlo", "NoiseOptimization", "PFAMI", "PFAMINN",
        "PIA", "ReDiffuse", "SecMI", "SecMINNs", "SimA",
    }  # fmt: skip


@pytest.mark.parametrize("kind", SCORES)
def test_a_score_keeps_its_promises(
    kind: type[Score], epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    score = kind()
    assert score.access in ("black-box", "grey-box", "white-box")
    assert isinstance(score.needs_captions, bool)
    weights = {name: value.clone() for name, value in epsilon_model.state_dict().items()}
    epsilon_model.train()
    random_state = torch.get_rng_state()
    with torch.inference_mode():  # as in a callback's test
        features = score(images[:1], captions[:1], epsilon_model)
    assert epsilon_model.training, "the model came back in another mode"
    epsilon_model.eval()
    assert torch.equal(random_state, torch.get_rng_state()), "global randomness was used"
    assert all(torch.equal(v, weights[n]) for n, v in epsilon_model.state_dict().items())
    assert all(p.grad is None for p in epsilon_model.parameters())

    assert features.dtype == torch.float64
    assert features.isfinite().all()
    if score.columns:
        assert features.shape[1] == len(score.columns)
    # An image's features do not depend on its neighbours, nor on the batch.
    count = 2 if score.queries <= 20 else 1
    probe = probe_of(epsilon_model, images[:count], captions[:count], share=False, batch_size=30)
    with torch.no_grad():
        beside = score.measure(probe).double()
    torch.testing.assert_close(beside[:1], features, rtol=2e-4, atol=2e-6)
    if score.access != "white-box":  # which counts backward passes too
        assert probe.calls / count == score.queries
    if score.queries <= 20:
        other = score(images[:1], captions[:1], epsilon_model, seed=1)
        assert not torch.equal(other, features)  # at least the posterior draw changes
    # Settings are plain data that name the class: they key files.
    assert settings(score)["class"].endswith(f".{kind.__name__}")


@pytest.mark.parametrize(
    "kind", [kind for kind in SCORES if kind.__name__[-2:] not in ("NN", "Ns")]
)
def test_a_rule_says_high_for_members(kind: type[Score]) -> None:
    """Whatever the features look like, a fitted rule puts shadow members above hold-outs."""
    score = kind()
    rng = np.random.default_rng(0)
    width = len(score.columns) or 6
    if issubclass(kind, CLiD):
        inside = np.concatenate([rng.normal(0.08, 0.01, (60, 1)), rng.normal(2, 1, (60, 4))], 1)
        outside = np.concatenate([rng.normal(0.1, 0.01, (60, 1)), rng.normal(0, 1, (60, 4))], 1)
    else:
        inside, outside = rng.normal(1, 1, (60, width)), rng.normal(-1, 1, (60, width))
    rule = score.fit(inside, outside, seed=0)
    assert rule(inside).mean() > rule(outside).mean()
    assert (score.oriented(inside).mean(0) > score.oriented(outside).mean(0)).all()
    assert np.array_equal(rule(inside), score.fit(inside, outside, seed=0)(inside))


def test_queries_are_those_of_the_papers() -> None:
    assert CLiD().queries == 15
    assert CLiD(NullOnly()).queries == 6
    assert CLiD(n_t=1).queries == 5
    assert SecMI(100).queries == 11
    assert SecMI(150).queries == 16
    told = {name: score.queries for name, score in dataset_scores().items()}
    assert told == {
        "CDI loss": 5, "CDI losses": 10, "CDI SecMI": 12, "CDI PIA": 2, "CDI PIAN": 2
    }  # fmt: skip
    expected = {"Loss": 1, "SimA": 1, "PIA": 2, "MonteCarlo": 3, "PFAMI": 20, "PFAMINN": 110}
    found = {kind.__name__: kind().queries for kind in SCORES}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("kind", SCORES)
def test_works_where_the_model_is(
    kind: type[Score],
    epsilon_model: Backbone,
    images: Tensor,
    captions: list[str],
    gpu: torch.device,
) -> None:
    """On a device of its own, and to the same numbers; L-BFGS blows up the rounding."""
    there = kind()(images[:1], captions[:1], deepcopy(epsilon_model).to(gpu))
    with sdpa_kernel(SDPBackend.MATH):  # the form that an unknown device takes
        here = kind()(images[:1], captions[:1], epsilon_model)
    times = 10 if gpu.type == "cuda" else 1  # whose sums run in another order
    torch.testing.assert_close(there, here, rtol=times * 1e-4, atol=times * 1e-6)


def test_forms_that_ask_the_same_share_their_queries(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    probe = probe_of(epsilon_model, images, captions)
    membership.MonteCarlo().measure(probe)
    membership.Loss().measure(probe)  # t = 450 is known
    assert probe.calls == 3 * 4
    CLiD(NullOnly()).measure(probe)  # the captions' losses are known
    assert probe.calls == 6 * 4


def test_what_only_a_fit_uses_asks_for_nothing_new(
    epsilon_model: Backbone, images: Tensor, captions: list[str], tmp_path: Path
) -> None:
    pictures = [picture(str(i), captions[i], images[i], 32) for i in range(2)]
    scores = {
        "threshold": CLiDThreshold(NullOnly()),
        "ratio": CLiDThreshold(NullOnly(), discrepancy="log_ratio", alphas=[0.5]),
        "trees": membership.CLiDTrees(NullOnly()),
        "plain": CLiD(NullOnly()),
        "more": CLiD(NullOnly(), n_t=1),
    }
    engine = Engine({"m": epsilon_model}, folder=tmp_path, progress=False)
    found = engine.measure(pictures, scores, ["m"])
    assert len(list(tmp_path.glob("CLiD-*.tsv"))) == 2
    same = [found[name]["m"] for name in ("threshold", "ratio", "trees", "plain")]
    assert all(rows is same[0] for rows in same)
    assert found["more"]["m"] is not same[0]
    for first, second in (
        (membership.GSA(trees=3), membership.GSA()),
        (SecMINNs(epochs=1, learning_rate=0.1, batch_size=2), SecMINNs()),
        (membership.PFAMINN(epochs=1, learning_rate=0.1), membership.PFAMINN()),
    ):
        assert measuring(first) == measuring(second)
    assert measuring(SecMI(150)) != measuring(SecMI())
    assert measuring(SecMINNs()) != measuring(SecMI())  # they measure different things


def test_the_code_of_a_users_own_class_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    base, own = tmp_path / "score_of_others.py", tmp_path / "own_score.py"
    base.write_text(
        "from shortcut_lightning.membership import CLiD\n"
        "from shortcut_lightning.membership.reducers import NullOnly\n"
        "class Less(NullOnly): ...\n"
        "class Other(CLiD): ...\n"
    )
    own.write_text("from score_of_others import Other\nclass Own(Other): ...\n")
    others, mine = (importlib.import_module(file.stem) for file in (base, own))
    for score, file in ((mine.Own(), own), (mine.Own(), base), (CLiD(others.Less()), base)):
        before = measuring(score)
        assert measuring(score) == before
        file.write_text(file.read_text() + "# changed\n")
        assert measuring(score) != before
    kept = [settings(value) for value in (*default_scores().values(), *dataset_scores().values())]
    assert "code" not in json.dumps(kept)  # rows of the package's own stay


def test_null_only_is_equation_13_and_equal_captions_give_nothing(
    epsilon_model: Backbone, images: Tensor
) -> None:
    silent = CLiD()(images, ["x"] * 4, epsilon_model)  # every third of one letter is "", "" or "x"
    assert torch.equal(silent[:, 3], torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(silent[:, 1], silent[:, 4], rtol=0, atol=1e-6)
    words = ["a photo", "the dog", "a noisy beach", "sks"]
    full, null = (CLiD(r)(images, words, epsilon_model) for r in (SimpleClipping(), NullOnly()))
    torch.testing.assert_close(null, full[:, [0, 4]], rtol=0, atol=1e-6)
    monte_carlo = membership.MonteCarlo()(images, words, epsilon_model)
    torch.testing.assert_close(null[:, 0], -monte_carlo[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "reducer",
    [SimpleClipping(), GaussianNoise(), NullOnly(), ImportantWords(num_inference_steps=2)],
)
def test_reducers_give_what_they_name(
    reducer: Reducer, epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    features = CLiD(reducer)(images, captions, epsilon_model)
    assert features.shape == (4, 2 + len(reducer.names))
    again = CLiD(reducer)(images, captions, epsilon_model)
    torch.testing.assert_close(features, again, rtol=0, atol=0)


def test_word_weights_are_read_off_the_cross_attention(
    epsilon_model: Backbone, captions: list[str]
) -> None:
    """Against the probabilities that diffusers' own attention computes."""
    from diffusers.models.attention_processor import AttnProcessor

    from shortcut_lightning.membership.attention import recorded, word_weights

    layer = next(m for n, m in epsilon_model.denoiser.named_modules() if n.endswith("attn2"))
    hidden, text = torch.randn(3, 16, layer.to_q.in_features), torch.randn(3, 77, 32)
    single = torch.nn.ModuleDict({"attn2": layer})
    processor = layer.processor
    with recorded(single, 2) as total:
        layer(hidden, encoder_hidden_states=text)
    layer.set_processor(AttnProcessor())
    query, key = layer.to_q(hidden[1:]), layer.to_k(text[1:])
    scores = layer.get_attention_scores(
        layer.head_to_batch_dim(query), layer.head_to_batch_dim(key)
    )
    layer.set_processor(processor)
    expected = scores.view(2, layer.heads, 16, 77).mean((1, 2))
    torch.testing.assert_close(total["share"], expected, rtol=1e-4, atol=1e-6)
    weights = word_weights(
        epsilon_model, [captions[0], "dog !"], seed=0, num_inference_steps=1, guidance_scale=7.5
    )
    assert [len(each) for each in weights] == [9, 2]
    assert weights[1][1] == 0.0  # punctuation
    assert 0 < sum(weights[0]) < 10


def test_masked_dimensions_are_those_the_decoder_hardly_shows(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    probe = probe_of(epsilon_model, images[:1], captions[:1])
    nudges = 1e-3 * torch.eye(256).view(256, 4, 8, 8)
    with torch.no_grad():
        columns = epsilon_model.decode(probe.latents + nudges)
        columns = (columns - epsilon_model.decode(probe.latents - nudges)) / 2e-3
    exact = columns.flatten(1).square().sum(1)
    estimate = influence(probe, vectors=32).flatten()
    assert torch.corrcoef(torch.stack([exact, estimate]))[0, 1] > 0.8
    assert kept(probe, 0.6).sum() == round(0.6 * probe.latents.numel())
    whole = SimA()(images[:1], captions[:1], epsilon_model)
    part = SimA(keep=0.6)(images[:1], captions[:1], epsilon_model)
    assert whole[0, 0] < part[0, 0] < 0
    with pytest.raises(ValueError, match=r"keep is 0\.0"):
        kept(probe, 0.0)


def test_the_denoiser_never_sees_more_rows_than_allowed(
    epsilon_model: Backbone, images: Tensor, captions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a chunk hold more images: so memory does not grow with their number."""
    sizes: list[int] = []
    chunks: list[int] = []
    predict, measure = type(epsilon_model).predict, CLiD.measure

    def watched(self, noisy, timesteps, conditioning):  # type: ignore[no-untyped-def]
        sizes.append(len(noisy))
        return predict(self, noisy, timesteps, conditioning)

    def chunked(self, probe):  # type: ignore[no-untyped-def]
        chunks.append(len(probe))
        return measure(self, probe)

    monkeypatch.setattr(type(epsilon_model), "predict", watched)
    monkeypatch.setattr(CLiD, "measure", chunked)
    pictures = [picture(str(i), captions[i % 4], images[i % 4].roll(i, -1), 32) for i in range(11)]
    engine = Engine({"m": epsilon_model}, batch_size=16, images_per_chunk=4, progress=False)
    engine.measure(pictures, {"CLiD": CLiD()}, ["m"])
    assert chunks == [4, 4, 3]
    assert sizes == [16, 16, 16, 12] * 2 + [16, 16, 13]


def test_models_that_share_encoders_share_what_comes_from_them(
    epsilon_model: Backbone, images: Tensor, captions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, other = deepcopy(epsilon_model), deepcopy(epsilon_model)
    with torch.no_grad():
        next(tuned.denoiser.parameters()).add_(0.1)
        next(other.text_encoders.parameters()).add_(0.1)
    encoded: list[int] = []
    embedded: list[int] = []
    kind = type(epsilon_model)
    encode, embed = kind.encode, kind.embed
    monkeypatch.setattr(kind, "encode", lambda s, x: (encoded.append(len(x)), encode(s, x))[1])
    monkeypatch.setattr(kind, "embed", lambda s, x: (embedded.append(len(x)), embed(s, x))[1])
    pictures = [
        picture(str(i), c, x, 32) for i, (c, x) in enumerate(zip(captions, images, strict=True))
    ]
    engine = Engine({"target": tuned, "base": epsilon_model}, progress=False)
    engine.measure(pictures, {"CLiD": CLiDThreshold(NullOnly())}, ["target", "base"])
    assert encoded == [4]
    assert embedded == [4, 1]  # the captions, and the empty one
    Engine({"a": tuned, "b": other}, progress=False).measure(
        pictures, {"CLiD": CLiDThreshold(NullOnly())}, ["a", "b"]
    )
    assert encoded == [4, 4]
    assert sum(embedded) == 5 + 10  # another text encoder has its own


def test_a_schedule_and_a_scale_are_part_of_a_models_name(
    epsilon_model: Backbone, images: Tensor, captions: list[str]
) -> None:
    """Neither is among the weights; a corrected scheduler_config.json changes the numbers."""
    slower, velocity, scaled = (deepcopy(epsilon_model) for _ in range(3))
    slower.alphas = slower.alphas.sqrt()
    velocity.prediction_type = "v_prediction"
    scaled.latent_scale = 0.3
    plain = Model(epsilon_model)
    assert Model(deepcopy(epsilon_model)).name == plain.name
    assert len({plain.name, Model(slower).name, Model(velocity).name}) == 3
    assert Model(slower).image_encoder == plain.image_encoder
    pictures = [picture(str(i), captions[i], images[i], 32) for i in range(2)]
    chunk = Chunk(pictures, torch.device("cpu"), 0)
    first, second = (Probe(chunk, each, {}, plain) for each in (plain, Model(slower)))
    latents, noise = first.latents, first.noise_at(450)
    torch.testing.assert_close(first.noisy(450), first.add_noise(latents, noise, 450))
    torch.testing.assert_close(second.noisy(450), second.add_noise(latents, noise, 450))
    assert Model(scaled).image_encoder != plain.image_encoder


def test_a_compiled_denoiser_says_the_same(
    epsilon_model: Backbone, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and guarded as on a GPU, but run as it is: compiling for a CPU takes minutes."""
    traced = Mock(side_effect=partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch, "compile", traced)
    pictures = [picture(str(i), "a photo of sks dog", x, 32) for i, x in enumerate(images)]
    found = []
    for wanted in (False, True):
        words = ImportantWords(num_inference_steps=1)
        scores = {"CLiD": CLiD(), "words": CLiD(reducer=words)}
        engine = Engine(
            {"m": epsilon_model},
            folder=tmp_path,
            images_per_chunk=1,  # words are weighed after blocks were compiled, too
            compile_denoiser=wanted,
            progress=False,
        )
        rows = engine.measure(pictures, scores, ["m"])
        found.append([np.stack([rows[n]["m"][p.row] for p in pictures]) for n in scores])
        assert traced.called is wanted
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert all(each._compiled_call_impl is None for each in epsilon_model.modules())


def test_bf16_keeps_the_ranking(epsilon_model: Backbone, images: Tensor) -> None:
    many = torch.cat([images.roll(shift, -1) for shift in range(6)])
    captions = ["a photo of sks dog"] * len(many)
    pictures = [
        picture(str(i), c, x, 32) for i, (c, x) in enumerate(zip(captions, many, strict=True))
    ]
    scores = {**default_scores(), "ReDiffuse": membership.ReDiffuse()}
    found = []
    for bf16 in (False, True):
        engine = Engine({"m": epsilon_model}, bf16=bf16, progress=False)
        rows = engine.measure(pictures, scores, ["m"])
        found.append({n: np.stack([rows[n]["m"][p.row] for p in pictures]) for n in scores})
    for name, score in scores.items():
        exact, rough = (each[name] for each in found)
        assert exact.dtype == rough.dtype == np.float64
        assert np.array_equal(exact, rough) == score.needs_float32
        for column in range(exact.shape[1]):
            order = spearmanr(exact[:, column], rough[:, column]).statistic
            assert order > 0.95, (name, score.columns[column], order)
