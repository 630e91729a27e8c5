"""Position embeddings of images of another size."""

import pytest
import torch
from torch.nn.functional import grid_sample

from mmf_flava.config.model import ImageEncoderConfig
from mmf_flava.models.image_encoder import ImageEncoder


def encoder(interpolation):
    torch.manual_seed(0)
    found = ImageEncoder(
        ImageEncoderConfig(8, 1, 2, 16, image_size=8, patch_size=1, position_interpolation=interpolation)
    )
    torch.nn.init.normal_(found.pos_embed)
    return found


@pytest.mark.parametrize(("interpolation", "offset"), [("flava", 0.0), ("dino", 0.1)])
@pytest.mark.parametrize("grid", [(3, 3), (5, 2), (8, 4), (12, 12)])
def test_interpolated_positions_are_bicubic_samples(interpolation, offset, grid):
    """Row i of n is sampled at (i + 1/2) * 8 / (n + offset) - 1/2 of 8 rows."""
    found = encoder(interpolation)
    patches = found.pos_embed[:, 1:].unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    rows, columns = ((torch.arange(n) + 0.5) * 2 / (n + offset) - 1 for n in grid)  # -1 and 1 are the edges
    points = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    expected = grid_sample(patches, points, mode="bicubic", padding_mode="border", align_corners=False)
    positions = found.positions(grid)
    torch.testing.assert_close(positions[:, 0], found.pos_embed[:, 0])
    torch.testing.assert_close(positions[:, 1:], expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("interpolation", ["flava", "dino"])
def test_positions_of_the_trained_size_are_unchanged(interpolation):
    found = encoder(interpolation)
    assert found.positions((8, 8)) is found.pos_embed


def test_the_interpolations_differ_and_support_half_precision():
    flava, dino = (encoder(name).positions((3, 3)) for name in ("flava", "dino"))
    assert 1e-3 < (flava - dino).abs().max() < 1
    half = encoder("dino").half().positions((3, 3))
    assert half.dtype == torch.float16 and (half - dino).abs().max() < 1e-2


def test_encoder_without_mask_token():
    assert "mask_token" in encoder("flava").state_dict()
    config = ImageEncoderConfig(8, 1, 2, 16, image_size=8, patch_size=4)
    assert "mask_token" not in ImageEncoder(config, has_mask_token=False).state_dict()
