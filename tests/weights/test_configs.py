"""Configurations from config.json, from tensor shapes and from dictionaries."""

import pytest

from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.weights.configs import (
    config_from_dict,
    config_from_hugging_face,
    config_from_tensors,
    config_to_dict,
)
from tests.parity.test_hugging_face import small_config


def test_config_json_and_tensor_shapes_give_the_same_config(native_weights):
    stored = config_from_hugging_face(small_config().to_dict())
    assert (stored.image_encoder.num_heads, stored.text_encoder.max_length, stored.projection_size) == (4, 20, 24)
    assert stored.codebook.vocab_size == 19
    inferred = config_from_tensors(native_weights, num_heads=4)
    inferred.logit_scale_init = stored.logit_scale_init  # not stored in the tensors of a trained model
    assert inferred == stored
    assert config_from_dict(config_to_dict(stored), "here") == stored


def test_default_head_size_is_64(native_weights):
    assert config_from_tensors(native_weights).image_encoder.num_heads == 1  # hidden_size is 32
    assert config_from_hugging_face({}) == FlavaConfig(logit_scale_init=FlavaConfig().logit_scale_init)


def test_unsupported_activation_raises():
    with pytest.raises(UserError, match="hidden_act must be gelu"):
        config_from_hugging_face({"text_config": {"hidden_act": "relu"}})
