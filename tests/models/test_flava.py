"""The core: parameter count, connections between encoders, masks."""

import math

import pytest
import torch
from torch.nn.functional import layer_norm, linear, normalize

from mmf_flava.config.model import FlavaConfig
from mmf_flava.models.flava import Flava
from mmf_flava.models.heads import MaskedPredictionHead, MatchingHead


@pytest.fixture
def flava(tiny):
    model = Flava(tiny).eval()
    for parameter in model.parameters():  # zero-initialised ones (mask token, positions) would hide errors
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_base_model_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        config = FlavaConfig()
        core = Flava(config)
        heads = [MaskedPredictionHead(768, size, 1e-12) for size in (8192, 30522, 8192, 30522)] + [MatchingHead(768)]
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    poolers = 3 * (768 * 768 + 768)  # one per encoder, in the released files but never trained
    assert count(core) + poolers == 241_356_289
    assert count(core) + poolers + sum(map(count, heads)) == 303_859_063


def test_multimodal_encoder_takes_states_before_the_final_norm(flava, pairs):
    seen = {}
    flava.multimodal_encoder.image_projection.register_forward_hook(lambda m, i, o: seen.update(image=i[0]))
    flava.encode_multimodal(pairs["image"], pairs["input_ids"], pairs["input_mask"])
    encoded = flava.image_encoder(pairs["image"])
    assert torch.equal(seen["image"], encoded.hidden)
    norm = flava.image_encoder.norm
    expected = layer_norm(encoded.hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    assert torch.allclose(encoded.normed, expected)


def test_contrastive_projection_takes_cls_after_the_final_norm(flava, pairs):
    normed = flava.image_encoder(pairs["image"]).normed[:, 0]
    expected = normalize(linear(normed, flava.image_projection.weight, flava.image_projection.bias), dim=-1)
    assert torch.allclose(flava.encode_image(pairs["image"]), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_masks_of_zero_and_one_equal_boolean_masks(flava, pairs, dtype):
    ids, mask = pairs["input_ids"], pairs["input_mask"]
    assert not mask.all()
    text = flava.encode_text(ids, mask)
    multimodal = flava.encode_multimodal(pairs["image"], ids, mask)
    assert torch.equal(flava.encode_text(ids, mask.to(dtype)), text)
    assert torch.equal(flava.encode_multimodal(pairs["image"], ids, mask.to(dtype)), multimodal)


def test_padding_does_not_change_states(flava, pairs):
    """Compare the second caption with and without padding, in the text and the multimodal encoder."""
    ids, mask, image = pairs["input_ids"][1:2], pairs["input_mask"][1:2], pairs["image"][1:2]
    assert torch.allclose(flava.encode_text(ids, mask), flava.encode_text(ids[:, :3]), atol=1e-6)
    padded = flava.encode_multimodal(image, ids, mask)
    short = flava.encode_multimodal(image, ids[:, :3], mask[:, :3])
    assert torch.allclose(padded[:, :9], short, atol=1e-6)


def test_padding_is_attended_to_without_mask_padding(tiny, pairs):
    tiny.multimodal_encoder.mask_padding = False
    flava = Flava(tiny).eval()
    image, ids, mask = pairs["image"][1:2], pairs["input_ids"][1:2], pairs["input_mask"][1:2]
    padded = flava.encode_multimodal(image, ids, mask)[:, :9]
    assert not torch.allclose(padded, flava.encode_multimodal(image, ids[:, :3], mask[:, :3]), atol=1e-6)


def test_masked_patches_do_not_change_states(flava, pairs):
    mask = pairs["image_patch_mask"][:1]
    changed = pairs["image"][:1].clone()
    changed[:, :, :2, :2] += 1  # patch 0, which is masked
    assert torch.equal(flava.image_encoder(changed, mask).normed, flava.image_encoder(pairs["image"][:1], mask).normed)
    changed[:, :, :2, 2:] += 1  # patch 1, which is not masked
    assert not torch.equal(
        flava.image_encoder(changed, mask).normed, flava.image_encoder(pairs["image"][:1], mask).normed
    )


def test_joint_forward_pass_equals_separate_ones(flava, pairs):
    arguments = [pairs[name] for name in ("image", "image_patch_mask", "input_ids", "input_ids_masked", "input_mask")]
    both = flava.encode_pair(*arguments)
    clean = flava.encode_pair(*arguments, masked=False)
    masked = flava.encode_pair(*arguments, clean=False)
    assert clean.multimodal is None and masked.image is None
    assert torch.allclose(both.image.normed, clean.image.normed, atol=1e-6)
    assert torch.allclose(both.text.normed, clean.text.normed, atol=1e-6)
    assert torch.allclose(both.multimodal.normed, masked.multimodal.normed, atol=1e-6)
    assert both.multimodal.normed.shape == (3, 1 + 1 + 4 + 5, 8)


def test_positions_of_larger_images_are_interpolated(flava):
    assert flava.image_encoder(torch.zeros(1, 3, 6, 8)).normed.shape == (1, 1 + 3 * 4, 8)


def test_larger_images_train_end_to_end(flava, pairs):
    """VQAv2 uses 480 x 480 instead of 224 x 224 (B.2), which neither public implementation supports."""
    image = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    states = flava.encode_multimodal(image, pairs["input_ids"], pairs["input_mask"])
    assert states.shape == (3, 1 + 1 + 16 + 5, 8)
    states[:, 0].square().sum().backward()
    gradient = flava.image_encoder.pos_embed.grad
    assert gradient.shape == (1, 1 + 4, 8) and gradient.abs().amin() > 0


def test_logit_scale_is_clamped(flava):
    flava.logit_scale.data.fill_(9.0)
    assert flava.temperature().item() == pytest.approx(100)
    assert flava.logit_scale.item() == pytest.approx(math.log(100))
    flava.logit_scale.data.fill_(-1.0)
    assert flava.temperature().item() == 1.0
