"""Defects of the public implementations that this package does not have; see also tests/models/test_pretraining.py."""

import pytest
import torch

from tests.models.test_pretraining import build, losses_of
from tests.parity.batches import make_batch, randomise

SIZES = (4, 2, 11, 5, 6)  # image, patch, words, codes, tokens of the tiny model


@pytest.fixture
def model(tiny):
    model = build(tiny)
    randomise(model)
    return model


def test_matching_labels_may_have_shape_b_1(model):
    """Hugging Face documents the shape (B, 1), but raises an error."""
    batch = make_batch(*SIZES, padded=True)
    expected = losses_of(model, batch.sample_list())
    batch.is_correct = batch.is_correct[:, None]
    assert losses_of(model, batch.sample_list()) == expected


@pytest.mark.parametrize(("kind", "loss"), [("image", "flava_mim"), ("text", "flava_mlm")])
def test_unimodal_batch_without_masked_positions_has_zero_loss(model, kind, loss):
    """Both implementations return NaN."""
    batch = make_batch(*SIZES, padded=False)
    batch.image_patch_mask[:] = False
    batch.lm_label_ids[:] = -1
    value = model(batch.sample_list(kind))["losses"][f"train/pmd/{loss}"]
    assert value.item() == 0
    value.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() and not g.any() for g in gradients)


@pytest.mark.parametrize("kind", ["pair", "image", "text"])
def test_losses_are_in_every_output(model, kind):
    """Hugging Face's output has no loss with return_dict=False."""
    losses = model(make_batch(*SIZES, padded=True).sample_list(kind))["losses"]
    assert len(losses) == {"pair": 4}.get(kind, 1)
    assert all(loss.requires_grad and torch.isfinite(loss).all() for loss in losses.values())


@pytest.mark.parametrize("kind", ["image", "text"])
def test_labels_of_a_unimodal_batch_are_not_modified(model, kind):
    """Hugging Face writes its ignored index to the caller's labels."""
    batch = make_batch(*SIZES, padded=True)
    inputs = batch.sample_list(kind)
    before = {key: value.clone() for key, value in inputs.items() if torch.is_tensor(value)}
    model(inputs)
    assert all(torch.equal(inputs[key], value) for key, value in before.items())


def test_padding_does_not_change_losses(model):
    """torchmultimodal's multimodal encoder attends to [PAD]."""
    batch = make_batch(*SIZES[:-1], 5, padded=True)
    short = losses_of(model, batch.sample_list())
    for name, filler in (("input_ids", 0), ("input_ids_masked", 0), ("lm_label_ids", -1), ("input_mask", False)):
        value = getattr(batch, name)
        setattr(batch, name, torch.cat([value, torch.full_like(value[:, :1], filler)], dim=1))
    assert losses_of(model, batch.sample_list()) == pytest.approx(short, abs=1e-6)


def test_embeddings_have_unit_length(model):
    """Hugging Face's get_image_features and get_text_features project all tokens and do not normalise."""
    batch = make_batch(*SIZES, padded=True)
    image, text = model.encode_image(batch.image), model.encode_text(batch.input_ids, batch.input_mask)
    assert image.shape == text.shape == (3, 4)
    assert torch.allclose(torch.cat([image, text]).norm(dim=-1), torch.ones(6))
