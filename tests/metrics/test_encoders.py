"""Encoders. Run: pytest tests/metrics/test_encoders.py"""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcut_lightning import metrics
from shortcut_lightning.metrics.encoders import (
    ImageEncoder,
    ImageTextEncoder,
    image_features,
    text_features,
)
from shortcut_lightning.pocket import networks

CPU = torch.device("cpu")


class Counting(ImageTextEncoder):
    """Means of the channels; lengths of the words. Remembers how it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.read: list[str] = []

    def images(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images.mean(dim=(2, 3))

    def texts(self, prompts, device) -> Tensor:
        self.read += prompts
        return torch.tensor([[float(len(prompt))] for prompt in prompts])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A CLIP and a DINOv2 of transformers with random weights, as saved folders."""
    from models import small_tokenizer
    from transformers import (
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        Dinov2Config,
        Dinov2Model,
    )

    root = tmp_path_factory.mktemp("encoders")
    tokenizer = small_tokenizer()
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower["num_attention_heads"] = 2
    text = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision = {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    towers = {"text_config": {**tower, **text}, "vision_config": {**tower, **vision}}
    clip = CLIPModel(CLIPConfig(**towers, projection_dim=8))
    dino = Dinov2Model(Dinov2Config(**{**tower, **vision}))
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    for name, parts in {"my-clip": [clip, tokenizer], "my-dino": [dino]}.items():
        for part in [*parts, CLIPImageProcessorPil(**sizes)]:
            part.save_pretrained(root / name)
    return {"clip": root / "my-clip", "dino": root / "my-dino"}


def test_images_go_in_batches() -> None:
    encoder, images = Counting(), torch.rand(7, 3, 4, 4)
    features = image_features(encoder, images, CPU, batch_size=3)
    assert encoder.sizes == [3, 3, 1]
    assert torch.allclose(features, images.mean(dim=(2, 3)))


def test_each_prompt_is_read_once_and_rows_keep_their_order() -> None:
    encoder = Counting()
    features = text_features(encoder, ["bb", "a", "bb", "ccc"], CPU, batch_size=2)
    assert encoder.read == ["bb", "a", "ccc"]
    assert features.flatten().tolist() == [2, 1, 2, 3]


def test_clip_folder_gives_images_and_words_of_one_space(folders: dict[str, Path]) -> None:
    encoder = metrics.Clip(str(folders["clip"]))
    images = image_features(encoder, torch.rand(3, 3, 40, 40), CPU)
    texts = text_features(encoder, ["a photo of a dog", "the beach " * 60], CPU)
    assert images.shape == (3, 8)
    assert texts.shape == (2, 8)
    assert encoder.name == "my-clip"
    assert not torch.allclose(texts[0], texts[1])


def test_clip_is_transformers_own_score(folders: dict[str, Path]) -> None:
    from PIL import Image
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    pixels = (torch.rand(16, 16, 3) * 255).byte()
    model = CLIPModel.from_pretrained(folders["clip"]).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folders["clip"])
    prepared = processor(Image.fromarray(pixels.numpy()), return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(folders["clip"])(["a photo"], return_tensors="pt")
    logit = model(**tokens, **prepared).logits_per_image / model.logit_scale.exp()
    encoder = metrics.Clip(str(folders["clip"]))
    image = pixels.permute(2, 0, 1)[None].float() / 255
    score = metrics.image_text_similarity(
        image_features(encoder, image, CPU), text_features(encoder, ["a photo"], CPU)
    )
    assert score.value == pytest.approx(logit.item(), abs=1e-5)


def test_dino_folder_gives_class_tokens(folders: dict[str, Path]) -> None:
    encoder = metrics.Dino(str(folders["dino"]))
    assert image_features(encoder, torch.rand(2, 3, 40, 40), CPU).shape == (2, 16)
    assert encoder.name == "my-dino"


def test_names_of_hub_models_hold_no_slash() -> None:
    assert metrics.Dino("facebook/dinov2-base").name == "dinov2-base"


@pytest.mark.parametrize("kind", [metrics.Clip, metrics.Dino])
def test_a_model_that_cannot_be_had_names_the_key(kind, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'nobody/nothing' is neither a folder .*`encoder"):
        _ = kind("nobody/nothing").network


def test_inception_without_its_package_names_the_extra() -> None:
    pytest.importorskip("torchmetrics")
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"shortcut-lightning\[inception\].*PocketAttributes"):
            _ = metrics.Inception().network
    else:
        pytest.skip("torch-fidelity is installed")


def test_pocket_encoders_take_any_size(monkeypatch) -> None:
    torch.manual_seed(0)
    networks_by_loader = {
        "load_identity_encoder": networks.IdentityEncoder(),
        "load_attribute_classifier": networks.AttributeClassifier(),
    }
    for loader, network in networks_by_loader.items():
        monkeypatch.setattr(networks, loader, lambda n=network: n.eval())
    images = torch.rand(2, 3, 48, 48)
    identity = image_features(metrics.PocketIdentity(), images, CPU)
    assert torch.allclose(identity.norm(dim=1), torch.ones(2), atol=1e-5)
    attributes = metrics.PocketAttributes()
    assert image_features(attributes, images, CPU).shape == (2, attributes.network.width)
    assert attributes.name == "pocket"


def test_pocket_clip_reads_its_folder(folders: dict[str, Path], monkeypatch) -> None:
    load_clip = networks.load_clip
    monkeypatch.setattr(networks, "load_clip", lambda: load_clip(folders["clip"]))
    encoder = metrics.PocketClip()
    assert image_features(encoder, torch.rand(2, 3, 64, 64), CPU).shape == (2, 8)
    assert text_features(encoder, ["a photo", "a dog " * 50], CPU).shape == (2, 8)


def test_an_encoder_is_cheap_until_asked() -> None:
    made: list[ImageEncoder] = [metrics.Clip("x"), metrics.Dino("y"), metrics.PocketClip()]
    assert all("network" not in vars(encoder) for encoder in made)


def test_a_model_with_layers_missing_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A pooler that nothing asks for may be missing."""
    from safetensors.torch import load_file, save_file

    for name, kind in (("clip", metrics.Clip), ("dino", metrics.Dino)):
        folder = Path(shutil.copytree(folders[name], tmp_path / name))
        tensors = load_file(folder / "model.safetensors")
        kept = {key: each for key, each in tensors.items() if not key.startswith("pooler.")}
        save_file(kept | {"head.weight": torch.ones(2)}, folder / "model.safetensors")
        _ = kind(str(folder)).network
        last = max(kept)
        kept.pop(last)
        save_file(kept, folder / "model.safetensors")
        with pytest.raises(ValueError, match=rf"is incomplete: the model lacks {last}; .*encoder"):
            _ = kind(str(folder)).network
