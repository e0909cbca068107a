"""Shared fixtures: small random-weight models, written once per session."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helper modules beside this file

# Small models gain nothing from threads, waiting threads that spin make a busy machine crawl, and
# a process that has used several must not be forked, which the two-process tests do.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing here may reach for a network, or wait for one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

# Lightning writes to the stderr that it finds when first imported; a test has one that is closed
# soon afterwards.
import lightning.pytorch  # noqa: F401
import torch
from torch.utils import backend_registration

GPU = torch.cuda.is_available()
FAKE_GPU = not GPU and hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


# What a newcomer's five minutes do without: further variants of what a test asks in one that stays,
# and long ways to what is asked in short elsewhere. They run with -m slow.
VARIANTS = (
    r"contracts/test_on_other_flows\.py::",  # beside test_on_a_flow.py
    r"backbones/test_flows\.py::.*\[(flux schnell|klein distilled)",
    r"backbones/test_flows\.py::test_(a_lora_is_exp|new_words).*\[(flux dev|klein|qwen|z-im)",
    r"backbones/test_adapter_kinds\.py::.*\[small_sdxl",
    r"backbones/test_memory\.py::test_a_recipe_states.*\[(?!sd35)",
    r"backbones/test_memory\.py::test_(a_divided|activations_grow|several_su|what_a_unet.*\[full)",
    r"backbones/test_blocks\.py::test_a_run_with_both",
    r"attacks/test_surrogates\.py::test_(easpl_averages|fsmg_with_prior|metacloak\[False)",
    r"attacks/test_anti_diffusion\.py::test_against_the_parts.*\[velocity",
    r"attacks/test_blurguard\.py::test_widths",
    r"attacks/test_per_image\.py::test_photoguard_diffusion\[velocity",
    r"audit/test_audit\.py::test_the_page_in_a_browser\[False",
    r"audit/test_score_files\.py::test_intervals_of_very_many",
    r"audit/test_streamed\.py::test_baselines_and_near_copies",
    r"membership/test_contracts\.py::test_a_compiled",
    r"modules/test_anti_personalization\.py::test_(against.*\[(False-True|True-False)|a_run_cut)",
    r"modules/test_frozen_dtype\.py::.*\[small_sdxl",
    r"modules/test_named_optimizers\.py::test_each_learns.*\[(?!torch\.optim\.SGD)",
    r"modules/test_exact_runs\.py::test_resuming_at_any_step.*\[2",
    r"cli/test_(caption_settings\.py::test_other|optimizer_options\.py::test_a_run_by_class_path)",
    r"cli/test_full_disk\.py::.*\[(metadata|grid|scores|predict-meta|protect-meas|detect-[cs])",
    r"verify/test_verify_verb\.py::test_(a_page_comes|all_learn|copies_keep|the_same|another_q)",
    r"test_bad_input\.py::test_few",
    r"pocket/test_training\.py::test_(the_family_is|the_flow_family_is|a_small_v_pre)",
    r"screening/test_remover\.py::test_(a_network_learns|each_family)",
)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(re.search(pattern, item.nodeid) for pattern in VARIANTS):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    """A further device, before the first gradient, after which autograd counts none. Not beside the
    slow tests: they train in forked processes, which autograd refuses once it has such a device."""
    if FAKE_GPU and "not slow" in config.getoption("markexpr"):
        import fake_gpu  # noqa: F401


@pytest.fixture(autouse=True)
def _seed_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds set by a test end with it: `seed_everything` leaves them in the environment."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")


@pytest.fixture(scope="session")
def small_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in SD 1.5's layout: 32 px, epsilon-prediction, random weights."""
    from models import write_small_sd

    return write_small_sd(tmp_path_factory.mktemp("models") / "epsilon")


@pytest.fixture(scope="session")
def small_sd_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with v-prediction, as SD 2.1 has it."""
    from models import write_small_sd

    return write_small_sd(tmp_path_factory.mktemp("models") / "velocity", "v_prediction")


@pytest.fixture(scope="session")
def small_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in SDXL's layout: 32 px, two text encoders, random weights."""
    from models import write_small_sdxl

    return write_small_sdxl(tmp_path_factory.mktemp("models") / "xl")


@pytest.fixture(scope="session")
def small_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in SD 3's layout without T5: 32 px, a rectified flow with a transformer."""
    from models import write_small_sd3

    return write_small_sd3(tmp_path_factory.mktemp("models") / "flow")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device that is not the CPU, wherever the tests run: a GPU where there is one."""
    if GPU:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # or it is another sum
        return torch.device("cuda", 0)
    if "fake_gpu" not in sys.modules:
        pytest.skip("needs a torch that knows devices written in Python, and -m 'not slow'")
    return sys.modules["fake_gpu"].DEVICE


@pytest.fixture(scope="session")
def on_gpu() -> str:
    """The script that runs a verb on that device, in a process of its own."""
    if GPU:
        return "train.py"
    if not FAKE_GPU:
        pytest.skip("this torch knows no devices written in Python")
    return "tests/fake_gpu.py"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share one cache that is not the user's."""
    base = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("SHORTCUT_LIGHTNING_CACHE", str(base))
