"""Validation of dataset sections, processor params and their fit to the model."""

import pytest

from mmf_flava.config.datasets import ImageNetConfig, KarpathyConfig, PMDConfig, TextCorpusConfig
from mmf_flava.config.labelled_datasets import ImageClassificationConfig
from mmf_flava.config.processor_base import ModelSizes
from mmf_flava.config.processors import ImageProcessorConfig, ImageTransformConfig, TextProcessorConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.config.splits import SplitsConfig
from mmf_flava.errors import UserError

IMAGE, TEXT = {"type": "flava_image"}, {"type": "flava_text"}
PROCESSORS = {"image_processor": IMAGE, "text_processor": TEXT}


def parse(schema, **section):
    return parse_section(schema, {"data_dir": "d", "processors": PROCESSORS, **section}, "dataset_config.x")


def test_processors_without_params_get_empty_params():
    """MMF's Processor fails outside a run if the key is missing."""
    section = parse(
        PMDConfig, processors={"image_processor": IMAGE, "text_processor": {**TEXT, "params": {"mask": {}}}}
    )
    assert section.processors["image_processor"] == {**IMAGE, "params": {}}
    assert section.params("text_processor") == {"mask": {}}
    assert IMAGE == {"type": "flava_image"}  # the recipe is not changed


@pytest.mark.parametrize(
    ("value", "paths", "weights"),
    [
        (None, [], None),
        ("a", ["a"], None),
        (["a", "b"], ["a", "b"], None),
        ([], [], None),
        ({"a": 1, "b": 0.5}, ["a", "b"], {"a": 1, "b": 0.5}),
    ],
)
def test_forms_of_a_split(value, paths, weights):
    splits = parse(PMDConfig, splits={"train": value}).splits
    assert (splits.paths("train"), splits.weights("train")) == (paths, weights)
    assert splits.paths("val") == []


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"trian": "a"}, r"^'trian' is not a key of dataset_config\.x\.splits\. Did you mean 'train'\?$"),
        ({"val": [0.5]}, r"^dataset_config\.x\.splits\.val: must be a path, a list of paths, or null, got \[0\.5\]\.$"),
        ({"val": [["a"]]}, r"^dataset_config\.x\.splits\.val: must be a path"),
        ({"test": [""]}, r"^dataset_config\.x\.splits\.test: must be a path"),
        ({"train": 5}, r"^dataset_config\.x\.splits\.train: .*mapping from paths to weights, or null, got 5\.$"),
        ({"train": True}, r"^dataset_config\.x\.splits\.train: must be"),
        ({"train": {"a": 0}}, r"^dataset_config\.x\.splits\.train\.a: must be a number above 0, got 0"),
        ({"train": {"a": "1"}}, r"^dataset_config\.x\.splits\.train\.a: must be a number above 0, got '1'"),
        ({"train": {3: 1}}, r"^dataset_config\.x\.splits\.train: must be"),
        ({"val": {"a": 1}}, r"^dataset_config\.x\.splits\.val: only the train split supports weights"),
        ([], r"^dataset_config\.x\.splits: must be a section"),
        (None, r"^dataset_config\.x\.splits: must be a section"),
    ],
)
def test_invalid_splits_name_their_key(splits, message):
    with pytest.raises(UserError, match=message):
        parse(PMDConfig, splits=splits)


@pytest.mark.parametrize(
    ("schema", "section", "message"),
    [
        (PMDConfig, {"mismatch_probabilty": 0.9}, r"'mismatch_probabilty' is not a key of dataset_config\.x\. Did you"),
        (PMDConfig, {"mismatch_probability": 1}, r"dataset_config\.x\.mismatch_probability: must be at least 0 and"),
        (PMDConfig, {"length_buckets": 0}, r"length_buckets: must be at least 1, got 0"),
        (PMDConfig, {"shuffle_block": 2}, r"shuffle_block was removed\. Use training\.lanes"),
        (PMDConfig, {"max_bad_share": 1.1}, r"max_bad_share: must be at least 0 and at most 1"),
        (PMDConfig, {"cache_bytes": 0}, r"cache_bytes: must be at least 1"),
        (PMDConfig, {"connections": 65}, r"connections: must be at least 1 and at most 64"),
        (PMDConfig, {"views": True}, r"views: must be an integer, got True"),
        (PMDConfig, {"codes": 3}, r"codes: must be a string"),
        (PMDConfig, {"build": "moon"}, r"build: must be one of demo"),
        (PMDConfig, {"data_dir": "???"}, r"dataset_config\.x\.data_dir must be given"),
        (PMDConfig, {"classes": []}, r"'classes' is not a key"),
        (PMDConfig, {"processors": {**PROCESSORS, "text_procesor": TEXT}}, r"'text_procesor' is not a key of .*\.proc"),
        (PMDConfig, {"processors": {"image_processor": IMAGE}}, r"processors\.text_processor: must be given"),
        (PMDConfig, {"processors": {**PROCESSORS, "text_processor": None}}, r"text_processor: must be given"),
        (PMDConfig, {"processors": {**PROCESSORS, "text_processor": 5}}, r"text_processor: must be a section"),
        (
            PMDConfig,
            {"processors": {**PROCESSORS, "text_processor": {"typ": "a"}}},
            r"'typ' is not a key of .*text_pro",
        ),
        (PMDConfig, {"processors": {**PROCESSORS, "text_processor": {"params": {}}}}, r"text_processor\.type must be"),
        (ImageNetConfig, {"classes": 5}, r"classes: must be a list of class names or a file"),
        (ImageNetConfig, {"classes": [["a"]]}, r"classes: must be a list of class names or a file"),
        (ImageClassificationConfig, {"splits": {"train": {"a": 1}}}, r"splits\.train: weights are only supported for"),
        (ImageClassificationConfig, {"augment": 1}, r"augment: must be true or false"),
        (KarpathyConfig, {"splits": {"test": ["a", "b"]}}, r"splits\.test: must be one file, got 2"),
        (KarpathyConfig, {"captions_per_image": 0}, r"captions_per_image: must be at least 1"),
        (TextCorpusConfig, {}, r"'image_processor' is not a key of dataset_config\.x\.processors"),
        (TextCorpusConfig, {"block_size": 2, "processors": {}}, r"block_size: must be at least 3"),
    ],
)
def test_invalid_sections_name_their_key(schema, section, message):
    with pytest.raises(UserError, match=message):
        parse(schema, **section)


def test_block_size_must_fit_max_length():
    text = {"text_processor": {**TEXT, "params": {"max_length": 20}}}
    assert parse(TextCorpusConfig, block_size=20, processors=text).block_size == 20
    with pytest.raises(UserError, match=r"params\.max_length is 20, but .*\.block_size is 21\. Set it to 21"):
        parse(TextCorpusConfig, block_size=21, processors=text)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mask": True}, r"p\.mask: must be a section"),
        ({"mean": [123.675, 116.28, 103.53]}, r"p\.mean: must be .* each at least 0 and at most 1"),
        ({"std": [58.4, 57.1, 57.4]}, r"p\.std: must be .* each above 0 and at most 1"),
        ({"mask": {"targt": 3}}, r"'targt' is not a key of p\.mask\. Did you mean 'target'"),
        ({"mask": {"target": 197}}, r"p\.mask\.target: must be at most 196, the number of patches \(14 x 14\)"),
        ({"mask": {"target": 5, "min_block": 6}}, r"p\.mask\.min_block: must be at most target, 5, got 6"),
        ({"image_size": 0}, r"p\.image_size: must be at least 1"),
        ({"image_size": 225}, r"p\.image_size: must be a multiple of patch_size 16"),
        ({"crop_scale": [0.9]}, r"p\.crop_scale: must be a list of 2 numbers"),
        ({"crop_scale": [1.0, 0.9]}, r"p\.crop_scale: must be .*ascending"),
        ({"crop_scale": [0, 1]}, r"p\.crop_scale: must be"),
        ({"std": [1, 0, 1]}, r"p\.std: must be"),
        ({"mean": [1, 0]}, r"p\.mean: must be"),
        ({"codebook_sizes": 3}, r"'codebook_sizes' is not a key of p\. Did you mean 'codebook_size'"),
    ],
)
def test_invalid_image_params_name_their_key(params, message):
    with pytest.raises(UserError, match=message):
        parse_section(ImageProcessorConfig, params, "p")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mask_probabilty": 0.2}, r"'mask_probabilty' is not a key of p\. Did you mean 'mask_probability'"),
        ({"mask_probability": 0}, r"p\.mask_probability: must be above 0 and below 1"),
        ({"max_length": 2}, r"p\.max_length: must be at least 3"),
        ({"replace": "mlm"}, r"p\.replace: must be one of bert, mask"),
        ({"whole_word": 1}, r"p\.whole_word: must be true or false"),
        ({"pad_to_multiple": 0}, r"p\.pad_to_multiple: must be at least 1"),
    ],
)
def test_invalid_text_params_name_their_key(params, message):
    with pytest.raises(UserError, match=message):
        parse_section(TextProcessorConfig, params, "p")


@pytest.mark.parametrize(
    ("mask", "patches", "expected"),
    [
        ({}, 196, (75, 16)),
        ({}, 784, (300, 64)),
        ({}, 1, (1, 1)),
        ({"target": 3}, 196, (3, 3)),
        ({"target": 90, "min_block": 2}, 196, (90, 2)),
    ],
)
def test_default_mask_is_scaled_to_the_number_of_patches(mask, patches, expected):
    assert parse_section(ImageProcessorConfig, {"mask": mask}, "p").mask.block_sizes(patches) == expected


MODEL = {
    "image_encoder": {"image_size": 32, "patch_size": 8},
    "text_encoder": {"max_length": 20, "vocab_size": 99},
    "codebook": {"type": "dvae"},
    "losses": [{"type": "flava_mim"}, {"type": "flava_itm"}],
}
SIZES = ModelSizes.read(MODEL, "m")


def test_sizes_of_a_model():
    assert ModelSizes("m", 32, 8, 20, 99, "dvae", 8, ("flava_mim", "flava_itm")) == SIZES
    assert SIZES.code_losses == ("flava_mim",)
    assert SIZES.codebook_size == 32
    assert ModelSizes.read({**MODEL, "codebook": {"type": "kmeans"}}, "m").codebook_size == 32
    assert ModelSizes.read({**MODEL, "codebook": {"type": "dvae", "num_groups": 3}}, "m").codebook_size == 16
    assert ModelSizes.read({"image_encoder": {"image_size": 224, "patch_size": 16}}, "m").codebook_size == 112
    for other in ({}, None, 5, {"image_encoder": {"type": "resnet152"}, "losses": ["bce"], "text_encoder": None}):
        assert ModelSizes.read(other, "m") == ModelSizes("m")


@pytest.mark.parametrize(
    ("schema", "params", "message"),
    [
        (ImageProcessorConfig, {"image_size": 24}, r"^p\.image_size is 24, but m\.image_encoder\.image_size is 32"),
        (ImageTransformConfig, {"image_size": 24}, r"^p\.image_size is 24, but m\.image_encoder\.image_size is 32"),
        (ImageProcessorConfig, {"patch_size": 4}, r"^p\.patch_size is 4, but m\.image_encoder\.patch_size is 8"),
        (
            ImageProcessorConfig,
            {"codebook_size": 24},
            r"^p\.codebook_size is 24, but DALL-E's .*4 x 4 .* Set it to 32",
        ),
        (TextProcessorConfig, {"max_length": 21}, r"^p\.max_length is 21, but m\.text_encoder\.max_length.* most 20"),
    ],
)
def test_params_must_fit_the_model(schema, params, message):
    fitting = {"image_size": 32, "patch_size": 8, "codebook_size": 32, "max_length": 20}
    known = {name: value for name, value in fitting.items() if name in schema.__dataclass_fields__}
    parse_section(schema, known, "p").check_model(SIZES, "p")
    config = parse_section(schema, {**known, **params}, "p")
    config.check_model(ModelSizes("m"), "p")
    with pytest.raises(UserError, match=message):
        config.check_model(SIZES, "p")


@pytest.mark.parametrize(
    ("key", "message"), [("mask", "masked patches are required"), ("codebook_size", "set d.codes")]
)
@pytest.mark.parametrize("schema", [PMDConfig, ImageNetConfig])
def test_losses_on_codes_need_mask_and_codebook_view(schema, key, message):
    processors = {"image_processor": {**IMAGE, "params": {key: None}}, "text_processor": TEXT}
    config, sizes = (
        parse(schema, processors=processors),
        ModelSizes.read({**MODEL, "losses": [{"type": "flava_mmm_image"}, {"type": "flava_mim"}]}, "m"),
    )
    config.check_model(ModelSizes.read({**MODEL, "losses": [{"type": "flava_mlm"}]}, "m"), "d")
    with pytest.raises(UserError, match=rf"^d\.processors\.image_processor\.params\.{key} is null, .*{message}"):
        config.check_model(sizes, "d")
    if key == "codebook_size":
        parse(schema, processors=processors, codes="c").check_model(sizes, "d")


@pytest.mark.parametrize("loss", ["flava_itm", "flava_global_contrastive", "flava_mmm_text"])
def test_losses_of_pairs_need_a_mask(loss):
    processors = {**PROCESSORS, "image_processor": {**IMAGE, "params": {"mask": None}}}
    sizes = ModelSizes.read({**MODEL, "losses": [{"type": loss}]}, "m")
    parse(ImageNetConfig, processors=processors).check_model(sizes, "d")
    with pytest.raises(UserError, match=rf"params\.mask is null, but m\.losses contains {loss}, .* Set it to \{{\}}"):
        parse(PMDConfig, processors=processors).check_model(sizes, "d")


def test_splits_are_null_by_default():
    assert SplitsConfig() == SplitsConfig(None, None, None)
