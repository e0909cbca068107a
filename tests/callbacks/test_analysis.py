"""The shortcut's measures: python -m pytest tests/callbacks/test_analysis.py"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_run import Colours, SmallData, SmallModule, paint, small_trainer
from torch import Tensor, nn

from shortcut_lightning.attacks import RandomNoise
from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks import (
    ConceptExtraction,
    Evaluation,
    HighFrequency,
    Misalignment,
    PaperScores,
    Quality,
    ReportWriter,
    StageFidelity,
    TextureLevel,
)
from shortcut_lightning.callbacks.misalignment import states
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.metrics.fidelity import fidelity
from shortcut_lightning.metrics.high_frequency import high_frequency_share
from shortcut_lightning.metrics.paper_scores import (
    plain_identity,
    quality,
    thresholded_identity,
)
from shortcut_lightning.metrics.texture import texture_level
from shortcut_lightning.metrics.two_prompts import cosine, lead_of_second, share_of_second
from shortcut_lightning.prompts import Prompts
from shortcut_lightning.purifiers import Gaussian

GREY = torch.full((1, 3, 32, 32), 0.5)


class Noisiness(Colours):
    """A CLIP of two axes: how smooth a picture is, and how noisy. Noise has the second."""

    name = "noisiness"

    def images(self, images: Tensor) -> Tensor:
        noise = images.diff(dim=-1).abs().mean(dim=(1, 2, 3))
        return torch.stack([torch.full_like(noise, 0.1), noise], dim=1)

    def texts(self, prompts: Any, device: torch.device) -> Tensor:
        noisy = [[0.0, 1.0] if "nois" in prompt else [1.0, 0.0] for prompt in prompts]
        return torch.tensor(noisy, device=device)


class Judge(nn.Module):
    """An attribute classifier that finds every picture clean."""

    def quality(self, images: Tensor) -> Tensor:
        return torch.tensor([[9.0, 0.0, 0.0]]).softmax(-1).repeat(len(images), 1)


class ProtectedData(SmallData):
    """Photographs with noise on them, and a purifier that took it away."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.attack = RandomNoise(64, sign=True)
        chance = torch.Generator().manual_seed(0)
        self.perturbed = [
            e._replace(
                image=self.attack(e.image[None], nn.Linear(1, 1), [""], generator=chance)[0]  # type: ignore[arg-type]
            )
            for e in self.given
        ]
        self.purifiers = [Gaussian(1.0)]
        self.warnings = ["Three steps are too few."]
        self.trained_on = [e._replace(image=(e.image * 255).round() / 255) for e in self.given]


class Sampler(SmallModule):
    """Also samples when asked by a callback."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[str] = []

    def sample(self, batch: Any) -> Tensor:
        self.prompts += batch.prompts
        grain = 0.3 if "person" not in batch.prompts[0] else 0.0
        return torch.stack(
            [paint(torch.ones(3) / 2, s) * (1 - grain) for s in batch.seeds.tolist()]
        )


def test_two_sentences_are_a_softmax_of_a_hundred_cosines() -> None:
    images, texts = torch.randn(4, 5), torch.randn(2, 5)
    expected = []
    for image in images.numpy():
        cosines = [image @ t / np.linalg.norm(image) / np.linalg.norm(t) for t in texts.numpy()]
        powers = np.exp(100 * (np.array(cosines) - max(cosines)))
        expected.append(powers[1] / powers.sum())
    got = share_of_second(images, texts)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert cosine(texts, texts[0])[0] == pytest.approx(1)
    lead = lead_of_second(images, texts)
    np.testing.assert_allclose((100 * lead).sigmoid().numpy(), expected, atol=1e-4)


def test_texture_is_what_lies_above_the_cutoff() -> None:
    columns = torch.arange(32)
    for period, high in ((16, False), (2, True)):
        wave = 0.5 + 0.2 * torch.cos(2 * torch.pi * columns / period)
        share = high_frequency_share(wave.expand(1, 3, 32, 32))
        assert (share > 0.95) if high else (share < 0.05)
    assert high_frequency_share(GREY) == 0
    # White noise spreads evenly: the share is that of the plane outside the circle.
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outside = 1 - np.pi / 4 * 0.25
    assert high_frequency_share(noise).mean() == pytest.approx(outside, abs=0.03)


def test_texture_level_is_the_strength_of_noise_between_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.full((4, 3, 128, 128), 0.3)
    picture[:, :, :, 64:] = 0.8  # an edge, a ramp and a spot do not count
    picture += torch.linspace(0, 0.1, 128)[:, None]
    picture[:, :, 40:50, 20:30] = 1.0
    assert texture_level(picture).max() < 1e-5
    noise = 0.05 * torch.randn(4, 1, 128, 128, generator=generator)
    # Grey noise; each halving averages four pixels.
    for octave, expected in ((0, 0.05), (1, 0.025)):
        assert texture_level(picture + noise, octave).mean() == pytest.approx(expected, rel=0.05)
    with pytest.raises(ValueError, match="8x8 pixels are too small for octave 2"):
        texture_level(torch.zeros(1, 3, 8, 8), 2)


def test_identity_by_the_published_rule_and_plainly() -> None:
    references = torch.eye(3)
    images = torch.tensor([[1.0, 0.2, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 0.0]])
    plain, rule = [], []
    for image in images:
        cosines = [float(image @ r / image.norm()) for r in references]
        near = [1 - c for c in cosines if 1 - c <= 0.4]
        plain.append(sum(cosines) / 3)
        rule.append(1 - sum(near) / len(near) if near else -1.0)
    assert plain_identity(images, references).tolist() == pytest.approx(plain)
    assert thresholded_identity(images, references).tolist() == pytest.approx(rule)
    assert rule[1:] == [-1.0, -1.0]
    one = torch.ones(1)
    assert quality(one, -one) == 0


def test_fidelity_of_a_known_change() -> None:
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    got = fidelity(image + 8 / 255, image)
    assert got.linf_255 == pytest.approx(8, abs=1e-3)
    assert got.psnr == pytest.approx(-20 * np.log10(8 / 255), abs=1e-3)
    assert 0.9 < got.ssim < 1
    assert fidelity(image, image)[1:] == (float("inf"), pytest.approx(1))


def test_states_are_those_the_run_has() -> None:
    data = ProtectedData()
    found = states(data)
    assert list(found) == ["clean", "random", "perturbed", "purified"]
    noise = (found["random"][0] - found["clean"][0]).abs().max() * 255
    assert 32 < noise <= 64.5
    assert list(states(SimpleNamespace(given=data.given))) == ["clean"]
    assert states(SimpleNamespace()) == {}


def test_noise_and_attack_are_compared_on_the_protected_photographs_alone() -> None:
    data: Any = ProtectedData()
    whole = states(data)
    data.protected = [1, 4]
    part = states(data)
    assert [len(images) for images in part.values()] == [6, 2, 2, 6]
    for state in ("random", "perturbed"):
        assert all(torch.equal(part[state][k], whole[state][n]) for k, n in enumerate((1, 4)))
    data.protected = []
    assert list(states(data)) == ["clean", "purified"]


def test_each_subject_is_shown_as_what_it_is_seen(tmp_path: Path) -> None:
    data: Any = ProtectedData()
    data.subjects = {"dog": ProtectedData(), "cat": ProtectedData()}
    data.sampled_ids = {"dog": range(5), "cat": range(5, 12)}
    evaluation = Evaluation()
    trainer = small_trainer(tmp_path, [evaluation, Misalignment(Noisiness())])
    trainer.test(Sampler(), data, verbose=False)
    title = "What the training images are seen as"
    assert [each.title for each in evaluation.sections] == [f"{title} @dog", f"{title} @cat"]


def test_each_subjects_own_identifier_is_sampled(tmp_path: Path) -> None:
    data: Any = ProtectedData()
    data.subjects = {name: ProtectedData() for name in ("dog", "cat")}
    data.subjects["dog"].prompts = Prompts("a photo of sks dog", "a photo of a dog")
    data.subjects["cat"].prompts = Prompts("a drawing of bhj cat", "a drawing of a cat")
    data.sampled_ids = {"dog": range(5), "cat": range(5, 12)}
    evaluation, module = Evaluation(), Sampler()
    trainer = small_trainer(tmp_path, [evaluation, ConceptExtraction(Noisiness(), seeds=[0])])
    trainer.test(module, data, verbose=False)
    cat = ["a photo of bhj", "a drawing of bhj cat"]
    assert module.prompts == ["a photo of sks", "a photo of sks dog", *cat]
    assert [each.title for each in evaluation.sections] == [
        "Extracted: 'a photo of sks' @dog",
        "Extracted: 'a photo of sks dog' @dog",
        "Extracted: 'a photo of bhj' @cat",
        "Extracted: 'a drawing of bhj cat' @cat",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Sampler, Path]:
    evaluation, module = Evaluation(), Sampler()
    quality_of, paper = Quality(), PaperScores(Colours(), Noisiness())
    quality_of.network, paper.classifier = Judge(), Judge()  # instead of the pocket's weights
    folder = tmp_path_factory.mktemp("analysis")
    trainer = small_trainer(
        folder,
        [
            evaluation,
            Misalignment(Noisiness(), projection="tsne"),
            ConceptExtraction(Noisiness(), seeds=[0, 1, 2]),
            StageFidelity(),
            HighFrequency(),
            TextureLevel(),
            quality_of,
            paper,
            ReportWriter(),
        ],
    )
    data = ProtectedData()
    data.instance_data_dir = "photos"  # type: ignore[attr-defined]
    trainer.test(module, data, verbose=False)
    return evaluation, module, folder / "run" / "v"


def test_misalignment_orders_what_was_done(run: tuple[Evaluation, Sampler, Path]) -> None:
    numbers = {name: e.value for name, e in run[0].estimates.items()}
    for score in ("p_noise", "p_pattern"):
        clean, purified, perturbed = (
            numbers[f"eval/{score}_{state}"] for state in ("clean", "purified", "perturbed")
        )
        assert clean == pytest.approx(purified, abs=0.02)
        assert perturbed > clean + 0.5
        assert clean < numbers[f"eval/{score}_random"] <= perturbed
    assert numbers["eval/lead_noise_perturbed"] > numbers["eval/lead_noise_clean"]
    assert numbers["eval/cos_concept_perturbed"] < numbers["eval/cos_concept_clean"]
    assert not any(name.startswith("base/p_noise") for name in numbers)


def test_extraction_asks_without_suffixes(run: tuple[Evaluation, Sampler, Path]) -> None:
    evaluation, module, _ = run
    assert module.prompts == ["a photo of sks"] * 3 + ["a photo of sks person"] * 3
    assert {
        "eval/extracted_noise_alone",
        "eval/extracted_lead_alone",
        "eval/extracted_texture_with_class",
    } <= set(evaluation.estimates)
    assert evaluation.estimates["eval/extracted_noise_alone"].n == 3


def test_other_numbers(run: tuple[Evaluation, Sampler, Path]) -> None:
    numbers = run[0].estimates
    assert numbers["eval/protect_linf_255"].value == pytest.approx(64, abs=0.6)
    assert numbers["eval/purified_linf_255"].value < 1
    assert numbers["eval/quality_pocket"].value > 0.99
    assert numbers["eval/high_frequency"].n == 12
    assert numbers["eval/texture"].n == 12
    assert numbers["eval/texture_references"].value >= 0
    iqac, q = numbers["eval/clip_iqac"].value, numbers["eval/q_pocket"].value
    judged = 2 * float(torch.tensor([9.0, 0, 0]).softmax(0)[0]) - 1
    assert q == pytest.approx((judged + iqac) / 2, abs=1e-5)
    plain = numbers["eval/ims_cos_colours"].value
    assert numbers["eval/avg_pocket"].value == pytest.approx((plain + q) / 2, abs=1e-5)
    assert "eval/ims_ref_colours" in numbers
    assert any("not of its drawn world" in sentence for sentence in run[0].warnings)


def test_the_report_shows_them(run: tuple[Evaluation, Sampler, Path]) -> None:
    page = (run[2] / "report.html").read_text()
    assert "What the training images are seen as" in page
    assert "Embeddings by noisiness, tsne" in page
    assert "Extracted: &#39;a photo of sks&#39;" in page


def test_warnings_about_the_attack_reach_the_report(run: tuple[Evaluation, Sampler, Path]) -> None:
    told = json.loads((run[2] / "report.json").read_text())["warnings"]
    assert told[0] == "Three steps are too few."
    assert "Three steps are too few." in (run[2] / "report.html").read_text()


def test_dropped_images_have_no_fidelity() -> None:
    samples = Samples("tuned", GREY, ["a"], [""], [0], [0], torch.device("cpu"))
    data = SimpleNamespace(given=[Example(GREY[0], "", "a")] * 2, perturbed=[], purifiers=())
    assert StageFidelity().measure(samples, data) == {}  # type: ignore[arg-type]


def test_unchanged_images_are_left_out_of_fidelity() -> None:
    samples = Samples("tuned", GREY, ["a"], [""], [0], [0], torch.device("cpu"))
    given = [Example(GREY[0], "", str(n)) for n in range(3)]
    moved = [one._replace(image=one.image + n / 255) for n, one in enumerate(given)]
    data = SimpleNamespace(given=given, perturbed=moved, purifiers=())
    numbers = StageFidelity().measure(samples, data)  # type: ignore[arg-type]
    psnr, linf = numbers["protect_psnr"], numbers["protect_linf_255"]
    assert (psnr.n, linf.n) == (2, 2)
    assert linf.value == pytest.approx(1.5, abs=1e-3)
    # One and two levels: 20 log10 255, and 20 log10 2 less.
    assert psnr.value == pytest.approx(48.13 - 3.01, abs=0.01)
    assert psnr.low == pytest.approx(42.11, abs=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConceptExtraction(seeds=[]), r"ConceptExtraction\.seeds is empty"),
        (lambda: HighFrequency(1.5), r"HighFrequency\.cutoff is 1\.5"),
        (lambda: TextureLevel(-1), r"TextureLevel\.octave is -1"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
