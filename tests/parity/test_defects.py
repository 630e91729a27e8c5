"""What goes wrong in the public implementations, one test each of ours; the rest stands in test_pretraining."""

import pytest
import torch

from tests.models.test_pretraining import build, losses_of
from tests.parity.batches import make, randomise

SIZES = (4, 2, 11, 5, 6)  # image, patch, words, codes, tokens of the tiny model


@pytest.fixture
def model(tiny):
    model = build(tiny)
    randomise(model)
    return model


def test_matching_labels_may_be_a_column(model):
    """Hugging Face documents (B, 1) and fails on it."""
    batch = make(*SIZES, padded=True)
    expected = losses_of(model, batch.ours())
    batch.is_correct = batch.is_correct[:, None]
    assert losses_of(model, batch.ours()) == expected


@pytest.mark.parametrize(("kind", "loss"), [("image", "flava_mim"), ("text", "flava_mlm")])
def test_a_unimodal_batch_without_masked_positions_costs_zero(model, kind, loss):
    """Both give NaN, which ends a training."""
    batch = make(*SIZES, padded=False)
    batch.image_patch_mask[:] = False
    batch.lm_label_ids[:] = -1
    value = model(batch.ours(kind))["losses"][f"train/pmd/{loss}"]
    assert value.item() == 0
    value.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() and not g.any() for g in gradients)


@pytest.mark.parametrize("kind", ["pair", "image", "text"])
def test_losses_are_in_every_output(model, kind):
    """Hugging Face loses the loss where its output is a tuple (return_dict=False)."""
    losses = model(make(*SIZES, padded=True).ours(kind))["losses"]
    assert len(losses) == {"pair": 4}.get(kind, 1)
    assert all(loss.requires_grad and torch.isfinite(loss).all() for loss in losses.values())


@pytest.mark.parametrize("kind", ["image", "text"])
def test_labels_of_a_unimodal_batch_are_left_alone(model, kind):
    """Hugging Face writes its ignored index into the caller's labels."""
    batch = make(*SIZES, padded=True)
    given = batch.ours(kind)
    before = {key: value.clone() for key, value in given.items() if torch.is_tensor(value)}
    model(given)
    assert all(torch.equal(given[key], value) for key, value in before.items())


def test_more_padding_changes_no_loss(model):
    """torchmultimodal's multimodal encoder attends to [PAD]."""
    batch = make(*SIZES[:-1], 5, padded=True)
    short = losses_of(model, batch.ours())
    for name, filler in (("input_ids", 0), ("input_ids_masked", 0), ("lm_label_ids", -1), ("input_mask", False)):
        value = getattr(batch, name)
        setattr(batch, name, torch.cat([value, torch.full_like(value[:, :1], filler)], dim=1))
    assert losses_of(model, batch.ours()) == pytest.approx(short, abs=1e-6)


def test_embeddings_are_one_unit_vector_each(model):
    """Hugging Face's get_image_features and get_text_features project every token and normalise none."""
    batch = make(*SIZES, padded=True)
    image, text = model.encode_image(batch.image), model.encode_text(batch.input_ids, batch.input_mask)
    assert image.shape == text.shape == (3, 4)
    assert torch.allclose(torch.cat([image, text]).norm(dim=-1), torch.ones(6))
