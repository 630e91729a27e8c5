"""Params of ``flava_multicrop``, and the datasets that may have it."""

import pytest

from mmf_flava.config.datasets import ImageNetConfig, KarpathyConfig, PMDConfig
from mmf_flava.config.labelled_datasets import ImageClassificationConfig
from mmf_flava.config.processor_base import ModelSizes
from mmf_flava.config.processors import MulticropConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError

CROPS = {"type": "flava_multicrop"}
DINO = "model_config.flava_dino"


def parse(schema, image=CROPS, **section):
    section = {"data_dir": "d", "processors": {"image_processor": image}, **section}
    return parse_section(schema, section, "d")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_local": -1}, r"p\.num_local: must be at least 0, got -1"),
        ({"global_size": 0}, r"p\.global_size: must be at least 1"),
        ({"local_size": 0}, r"p\.local_size: must be at least 1"),
        ({"global_scale": [0.0, 1.0]}, r"p\.global_scale: must be a list of 2 numbers, each above 0"),
        ({"local_scale": [0.3, 0.2]}, r"p\.local_scale: .*ascending"),
        ({"local_scale": [0.3]}, r"p\.local_scale: must be a list of 2 numbers"),
        ({"blur_radius": [-0.1, 2.0]}, r"p\.blur_radius: .*at least 0"),
        ({"blur_radius": [0.1, float("inf")]}, r"p\.blur_radius: must be finite"),
        ({"normalisation": "clip"}, r"p\.normalisation: must be one of imagenet, flava, got 'clip'"),
        ({"normalisation": "flava", "mean": [0.5] * 3, "std": [0.5] * 3}, "p: normalisation and mean and std exclude"),
        ({"mean": [0.5] * 3}, r"p\.mean: is given without std\. Set both"),
        ({"std": [0.5] * 3}, r"p\.std: is given without mean\. Set both"),
        ({"std": [0.5] * 3, "mean": [0.5] * 2}, r"p\.mean: must be a list of 3 numbers"),
        ({"max_pixels": 0}, r"p\.max_pixels: must be at least 1"),
        ({"globl_size": 32}, "globl_size.*global_size"),
    ],
)
def test_invalid_params_name_their_key(params, message):
    with pytest.raises(UserError, match=message):
        parse_section(MulticropConfig, params, "p")


@pytest.mark.parametrize(
    ("image_size", "patch_size", "local_size"),
    [(224, 16, 96), (224, 14, 98), (32, 4, 12), (24, 4, 12), (16, 16, 16), (None, None, 96)],
)
def test_sizes_follow_the_model(image_size, patch_size, local_size):
    found = MulticropConfig.model_defaults(ModelSizes("m", image_size, patch_size))
    assert found == {"global_size": image_size or 224, "local_size": local_size}


def test_sizes_must_fit_the_model():
    sizes = ModelSizes("m", 32, 8)
    parse_section(MulticropConfig, {"global_size": 32, "local_size": 16}, "p").check_model(sizes, "p")
    config = parse_section(MulticropConfig, {"global_size": 32, "local_size": 12}, "p")
    config.check_model(ModelSizes("m"), "p")
    with pytest.raises(UserError, match=r"p\.local_size: must be a multiple of m\.image_encoder\.patch_size 8, got 12"):
        config.check_model(sizes, "p")
    config.num_local = 0
    config.check_model(sizes, "p")
    config.global_size = 24
    with pytest.raises(UserError, match=r"p\.global_size is 24, but m\.image_encoder\.image_size is 32"):
        config.check_model(sizes, "p")


@pytest.mark.parametrize("schema", [ImageNetConfig, PMDConfig])
def test_image_datasets_may_have_crops(schema):
    parse(schema).check_model(ModelSizes(DINO, 224, 16), "d")
    for key, value in (("views", 2), ("codes", "c")):
        with pytest.raises(UserError, match=rf"d\.{key} is not supported by the image_processor flava_multicrop"):
            parse(schema, **{key: value})


def test_pairs_with_crops_need_no_texts():
    parse(PMDConfig)
    with pytest.raises(UserError, match=r"text_processor: must be given"):
        parse(PMDConfig, {"type": "flava_image"})
    with pytest.raises(UserError, match=r"d\.length_buckets is 2, but .* uses no captions"):
        parse(PMDConfig, length_buckets=2)


@pytest.mark.parametrize("schema", [KarpathyConfig, ImageClassificationConfig])
def test_datasets_without_training_on_crops_refuse_them(schema):
    with pytest.raises(UserError, match=r"flava_multicrop does not return the fields .* Set it to flava_image\."):
        parse(schema)


@pytest.mark.parametrize("model", ["flava", "flava_classification"])
def test_other_models_refuse_crops(model):
    with pytest.raises(UserError, match=rf"type is flava_multicrop, .* the model is {model}\. Set it to flava_image"):
        parse(ImageNetConfig).check_model(ModelSizes(f"model_config.{model}"), "d")


def test_dino_needs_crops():
    whole = parse(ImageNetConfig, {"type": "flava_image"})
    whole.check_model(ModelSizes("model_config.flava"), "d")
    with pytest.raises(UserError, match=r"image_processor\.type is flava_image, but .* Set it to flava_multicrop"):
        whole.check_model(ModelSizes(DINO), "d")
    parse(ImageNetConfig, {"type": "my_crops"}).check_model(ModelSizes(DINO), "d")
