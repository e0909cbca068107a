"""Every membership score of the package, found by walking it, on both built-in families.

python -m pytest tests/contracts/test_scores_by_name.py [-m slow]
"""

import pytest
import torch
from both_families import FAMILIES, pictures
from test_stage_contracts import concrete

from shortcut_lightning import backbones, membership
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import PFAMINN, CLiD, ImportantWords, Reducer, Score, pfami

SCORES = concrete(membership, Score)
REDUCERS = concrete(membership, Reducer)
# The promises hold for any number of questions, so these are few.
FEW = {"n_t": 1, "draws": 2, "iterations": 1, "t_sec": 20, "num_inference_steps": 1}


@pytest.fixture(params=FAMILIES, scope="module")
def model(request: pytest.FixtureRequest) -> Backbone:
    return backbones.load(request.param).eval().requires_grad_(False)


def asking_little(kind: type) -> Score | Reducer:
    made = kind()
    for name, most in FEW.items():
        if hasattr(made, name):
            setattr(made, name, min(getattr(made, name), most))
    if hasattr(made, "timesteps"):
        made.timesteps = made.timesteps[:2]
    return made


def test_the_walk_finds_what_the_package_names() -> None:
    named = [getattr(membership, name) for name in membership.__all__]
    public = {each for each in named if isinstance(each, type)}
    for base, found in ((Score, SCORES), (Reducer, REDUCERS)):
        assert {each for each in public if issubclass(each, base)} == {base, *found}


@pytest.mark.parametrize("kind", SCORES)
def test_a_score_answers_for_each_picture_by_itself(
    kind: type[Score], model: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is PFAMINN:  # ten timesteps at each of ten
        monkeypatch.setattr(pfami, "STRENGTHS", pfami.STRENGTHS[:1])
    score = asking_little(kind)
    images, captions = pictures(2)
    before, random_state = model.fingerprint(), torch.get_rng_state()
    both = score(images, captions, model)
    second = images[1:], captions[1:], model
    alone = score(*second)
    assert both.dtype == torch.float64
    assert both.isfinite().all()
    assert both.shape == (2, len(score.columns) or both.shape[1])
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(alone, both[1:], rtol=1e-3, atol=1e-4)
    assert torch.equal(score(*second), alone)  # the same seed, the same bits
    assert not torch.equal(score(*second, seed=1), alone)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.fingerprint() == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", REDUCERS)
def test_clid_takes_every_way_to_say_less(kind: type[Reducer], model: Backbone) -> None:
    score = CLiD(asking_little(kind), n_t=1)
    images, captions = pictures(1)
    if kind is ImportantWords and model.prediction_type == "flow":
        with pytest.raises(ValueError, match=r"no cross-attention .*use another reducer.*\.$"):
            score(images, captions, model)
        return
    features = score(images, captions, model)
    assert features.shape == (1, 2 + len(score.reducer.names)) == (1, len(score.columns))
    assert features.isfinite().all()
    assert features[0, 1:].any()  # without the words the loss is another
    assert torch.equal(score(images, captions, model), features)
