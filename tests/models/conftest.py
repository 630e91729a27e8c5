"""A FLAVA with 8 dimensions and hand-made batches, for the tests of models, losses and training."""

import pytest
import torch
from mmf.common.sample import SampleList

from mmf_flava.config.model import (
    CodebookConfig,
    FlavaConfig,
    ImageEncoderConfig,
    MultimodalEncoderConfig,
    TextEncoderConfig,
)

SIZE = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "mlp_size": 16}


@pytest.fixture
def tiny() -> FlavaConfig:
    """4 x 4 pixels in 4 patches, 11 words, 5 codes."""
    torch.manual_seed(0)
    return FlavaConfig(
        image_encoder=ImageEncoderConfig(**SIZE, image_size=4, patch_size=2),
        text_encoder=TextEncoderConfig(**SIZE, vocab_size=11, max_length=6),
        multimodal_encoder=MultimodalEncoderConfig(**SIZE),
        projection_size=4,
        codebook=CodebookConfig(vocab_size=5),
    )


@pytest.fixture
def pairs() -> SampleList:
    """Three pairs; the second caption has two padding tokens, the third pair does not match."""
    return sample_list(
        "pmd",
        image=torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1)),
        image_codes=torch.tensor([[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]),
        image_patch_mask=torch.tensor([[True, False, False, True], [False, True, False, False], [True] * 4]),
        input_ids=torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0], [1, 9, 10, 5, 2]]),
        input_ids_masked=torch.tensor([[1, 3, 6, 7, 2], [1, 3, 2, 0, 0], [1, 9, 3, 5, 2]]),
        lm_label_ids=torch.tensor([[-1, 5, -1, -1, -1], [-1, 8, -1, -1, -1], [-1, -1, 10, -1, -1]]),
        input_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool(),
        is_correct=torch.tensor([1, 1, 0]),
    )


def sample_list(dataset: str, **fields: torch.Tensor) -> SampleList:
    """Return a batch as the datasets' collate function makes it."""
    batch = SampleList()
    for name, value in fields.items():
        batch.add_field(name, value)
    batch.dataset_name, batch.dataset_type = dataset, "train"
    return batch
