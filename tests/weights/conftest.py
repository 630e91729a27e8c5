"""A small FLAVA of Hugging Face with random weights."""

import pytest
import torch
from transformers import FlavaForPreTraining

from mmf_flava.weights.names import to_native
from tests.models.conftest import tiny
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config

__all__ = ["tiny"]


@pytest.fixture(scope="package")
def hf_model():
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    return model


@pytest.fixture(scope="package")
def hf_weights(hf_model):
    """The weights under Hugging Face's keys."""
    return {key: value.clone() for key, value in hf_model.state_dict().items()}


@pytest.fixture(scope="package")
def native_weights(hf_weights):
    """The weights under native keys."""
    return to_native(hf_weights).tensors


@pytest.fixture(scope="package")
def hf_folder(hf_model, tmp_path_factory):
    """The weights as ``save_pretrained`` writes them."""
    folder = tmp_path_factory.mktemp("hf")
    hf_model.save_pretrained(folder)
    return folder
