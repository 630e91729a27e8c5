"""The k-means codebook on images whose codes are known."""

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.config.model import CodebookConfig
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import KMeansCodebook, build_codebook

BLACK_GREY_WHITE = torch.tensor([0.0, 0.5, 1.0])[:, None].expand(3, 12)  # three flat patches of 3 x 2 x 2


def test_codes_are_the_nearest_centroids_in_row_major_order():
    image = torch.zeros(1, 3, 2, 4)
    image[..., 2:] = 0.9  # left patch black, right patch nearly white
    assert KMeansCodebook(BLACK_GREY_WHITE)(image).tolist() == [[0, 2]]


def test_decode_places_the_centroids():
    image = KMeansCodebook(BLACK_GREY_WHITE).decode(torch.tensor([[0, 2, 1, 1]]), (2, 2))
    assert image.shape == (1, 3, 4, 4)
    assert image[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0.5] * 4, [0.5] * 4]


def test_decoded_image_has_the_same_codes():
    codebook = KMeansCodebook(torch.rand(7, 12, generator=torch.Generator().manual_seed(0)))
    codes = torch.tensor([[0, 1, 2, 3, 4, 5]])
    assert torch.equal(codebook(codebook.decode(codes, (2, 3))), codes)


def test_cached_type_builds_no_codebook():
    assert build_codebook(CodebookConfig()) is None


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"centres": torch.rand(3, 12)}, "no tensor 'centroids'"),
        ({"centroids": torch.rand(3, 13)}, r"float32 of shape \(3, 13\)"),
        ({"centroids": torch.rand(3, 3, 2, 2)}, r"of shape \(3, 3, 2, 2\)"),
        ({"centroids": torch.rand(3, 0)}, r"of shape \(3, 0\)"),
        ({"centroids": torch.tensor(3.0)}, r"of shape \(\)"),
        ({"centroids": torch.ones(3, 12, dtype=torch.int64)}, "int64 of shape"),
        ({"centroids": torch.full((3, 12), torch.nan)}, "NaN or infinite"),
        ({"centroids": torch.full((3, 12), torch.inf)}, "NaN or infinite"),
    ],
)
def test_invalid_centroids_raise(tmp_path, tensors, message):
    path = str(tmp_path / "codes.safetensors")
    save_file(tensors, path)
    with pytest.raises(UserError, match=rf"codebook\.path: {path} is not a file of centroids \(.*{message}"):
        build_codebook(CodebookConfig("kmeans", path, 3))


def test_invalid_files_raise(tmp_path):
    path = str(tmp_path / "codes.safetensors")
    with pytest.raises(UserError, match="is not a file of centroids"):
        build_codebook(CodebookConfig("kmeans", path, 3))
    save_file({"centroids": BLACK_GREY_WHITE.contiguous()}, path)
    assert build_codebook(CodebookConfig("kmeans", path, 3)).patch_size == 2
    with pytest.raises(UserError, match="3 codes"):
        build_codebook(CodebookConfig("kmeans", path, 4))
    with pytest.raises(UserError, match="kmeens"):
        build_codebook(CodebookConfig("kmeens", path, 3))
