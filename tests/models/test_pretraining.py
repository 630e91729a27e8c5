"""The losses of each kind of batch, and the computation that they need."""

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf

import mmf_flava.plugin  # noqa: F401  registers the losses
from mmf_flava.config.model import LOSSES, LossConfig
from mmf_flava.errors import UserError
from mmf_flava.models.pretraining import FlavaPretraining
from tests.models.conftest import sample_list

PAIR = {"flava_global_contrastive", "flava_mmm_image", "flava_mmm_text", "flava_itm"}


def build(tiny, losses=LOSSES, weight=1.0):
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    tiny.losses = [LossConfig(name, weight) for name in losses]
    torch.manual_seed(0)
    model = FlavaPretraining(OmegaConf.structured(tiny))
    model.build()
    model.init_losses()
    return model


def losses_of(model, batch):
    return {key.rpartition("/")[2]: value.item() for key, value in model(batch)["losses"].items()}


@pytest.fixture
def images(pairs):
    return sample_list("imagenet", **{k: pairs[k] for k in ("image", "image_codes", "image_patch_mask")})


@pytest.fixture
def texts(pairs):
    fields = ("input_ids", "input_ids_masked", "lm_label_ids", "input_mask")
    return sample_list("ccnews_bookcorpus", **{k: pairs[k] for k in fields})


def test_each_kind_of_batch_has_its_own_losses(tiny, pairs, images, texts):
    model = build(tiny)
    assert set(losses_of(model, pairs)) == PAIR
    assert set(losses_of(model, images)) == {"flava_mim"}
    assert set(losses_of(model, texts)) == {"flava_mlm"}
    assert "train/pmd/flava_itm" in model(pairs)["losses"]


def test_unimodal_batch_runs_one_encoder_once(tiny, images, texts):
    model = build(tiny)
    calls = []
    for name in ("image_encoder", "text_encoder", "multimodal_encoder"):
        getattr(model.flava, name).norm.register_forward_hook(lambda m, i, o, name=name: calls.append((name, len(o))))
    model(images)
    assert calls == [("image_encoder", 3)]
    calls.clear()
    model(texts)
    assert calls == [("text_encoder", 3)]


def test_unlisted_loss_is_not_computed(tiny, pairs):
    model = build(tiny, ["flava_global_contrastive"])
    assert not model.heads
    model.flava.multimodal_encoder.forward = None  # calling it would raise
    sizes = []
    model.flava.image_encoder.norm.register_forward_hook(lambda m, i, o: sizes.append(len(o)))
    assert set(losses_of(model, pairs)) == {"flava_global_contrastive"}
    assert sizes == [3]  # the clean forward pass only


def test_heads_run_on_masked_positions_of_matching_pairs_only(tiny, pairs):
    output = build(tiny)(pairs)
    assert output["mmm_image"].logits.shape == (3, 5)  # 2 + 1 patches; the third pair does not match
    assert output["mmm_image"].labels.tolist() == [0, 3, 0]
    assert output["mmm_text"].logits.shape == (2, 11)
    assert output["mmm_text"].labels.tolist() == [5, 8]
    assert output["itm"].labels.tolist() == [1, 1, 0]


def test_weights_scale_the_losses(tiny, pairs):
    once, twice = losses_of(build(tiny), pairs), losses_of(build(tiny, weight=2.0), pairs)
    assert twice == pytest.approx({name: 2 * value for name, value in once.items()})


@pytest.mark.parametrize("case", ["no masked token", "no matching pair"])
def test_batch_without_targets_has_zero_loss_and_gradient(tiny, pairs, case):
    model = build(tiny, ["flava_global_contrastive", "flava_mmm_image", "flava_mmm_text"])
    pairs["image_patch_mask"] = torch.zeros_like(pairs["image_patch_mask"])
    pairs["lm_label_ids"] = torch.full_like(pairs["lm_label_ids"], -1)
    if case == "no matching pair":
        pairs["is_correct"] = torch.zeros(3, dtype=torch.long)
    losses = model(pairs)["losses"]
    for name, value in losses.items():
        if case == "no matching pair" or not name.endswith("contrastive"):
            assert value.item() == 0
    sum(losses.values()).sum().backward()
    gradients = [p.grad for p in model.heads.parameters() if p.grad is not None]
    assert gradients and all(g.abs().sum() == 0 for g in gradients)


def test_batch_is_not_modified(tiny, pairs):
    before = {key: value.clone() for key, value in pairs.items() if torch.is_tensor(value)}
    keys = list(pairs.keys())
    build(tiny)(pairs)
    assert list(pairs.keys()) == keys
    assert all(torch.equal(pairs[key], value) for key, value in before.items())


def test_missing_codes_raise(tiny, pairs):
    del pairs["image_codes"]
    with pytest.raises(UserError, match="codebook"):
        build(tiny)(pairs)


def test_unknown_loss_suggests_a_close_match(tiny):
    with pytest.raises(UserError, match="'flava_mim'"):
        build(tiny, ["flava_mimm"])


def test_biases_norms_and_logit_scale_have_no_weight_decay(tiny):
    model = build(tiny)
    decayed, not_decayed = model.get_optimizer_parameters(None)
    assert not_decayed["weight_decay"] == 0 and "weight_decay" not in decayed
    assert any(p is model.flava.logit_scale for p in not_decayed["params"])
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(not_decayed["params"]) == len(list(model.parameters()))


def test_match_is_the_probability_of_the_matching_head(tiny, pairs):
    model = build(tiny).eval()
    images, ids, mask = pairs["image"], pairs["input_ids"], pairs["input_mask"]
    states = model.flava.encode_multimodal(images, ids, mask)
    expected = model.heads["itm"](states[:, 0]).softmax(-1)[:, 1]
    assert torch.allclose(model.match(model.image_states(images), ids, mask), expected, atol=1e-6)
    crossed = model.match(model.image_states(images)[[1, 0, 2]], ids, mask)
    assert not torch.allclose(crossed[:2], expected[:2], atol=1e-6) and torch.allclose(
        crossed[2], expected[2], atol=1e-6
    )


def test_output_has_embeddings_for_mmfs_retrieval_metrics(tiny, pairs, images, texts):
    model = build(tiny)
    output = model(pairs)
    assert torch.equal(output["scores"], output["contrast"].image) and not output["scores"].requires_grad
    assert torch.equal(output["targets"], output["contrast"].text)
    for batch in (images, texts):
        output = model(batch)
        assert output["scores"].shape == output["targets"].shape == (0, 4)
    assert "scores" not in build(tiny, ["flava_itm"])(pairs)
