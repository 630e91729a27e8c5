"""The defaults of datasets and processors in a merged configuration, and the check of its ``dataset_config``."""

from pathlib import Path

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.compat.dataset_config import check_datasets, set_model_defaults
from mmf_flava.config.datasets import PMDConfig
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.errors import UserError

CONFIGS = Path(__file__).parents[2] / "projects/flava/configs"
IMAGE = "dataset_config.pmd.processors.image_processor"
TEXT = "dataset_config.pmd.processors.text_processor"


def read(name, *options):
    return read_recipe(str(CONFIGS / f"{name}.yaml"), options)


@pytest.fixture(scope="module")
def demo():
    return read("demo")


def test_config_has_all_keys_of_the_datasets_of_the_run(demo):
    section = demo.dataset_config.pmd
    assert {*section} == {*PMDConfig.__dataclass_fields__}
    assert (section.mismatch_probability, section.codes, section.splits.train) == (0.1, None, ["pairs/train"])
    assert section.processors.text_processor.params.mask_probability == 0.15
    assert section.processors.image_processor.params.mask == {"target": 6, "min_block": 2, "exact": False}


def test_recipe_and_command_line_override_the_defaults():
    config = read(
        "demo",
        "dataset_config.pmd.mismatch_probability=0.9",
        f"{IMAGE}.params.crop_scale=[0.5,0.75]",
        f"{IMAGE}.params.mask={{target: 3, min_block: 1}}",
        f"{TEXT}.params.whole_word=false",
    )
    section = config.dataset_config.pmd
    params = section.processors.image_processor.params
    assert (section.mismatch_probability, section.length_buckets) == (0.9, 1)
    assert (params.crop_scale, params.mask) == ([0.5, 0.75], {"target": 3, "min_block": 1, "exact": False})
    assert section.processors.text_processor.params.whole_word is False
    assert config.dataset_config.ccnews_bookcorpus.processors.text_processor.params.whole_word is False, "YAML's"


def test_sizes_are_the_models_unless_they_are_given():
    options = ("model_config.flava.image_encoder.image_size=48", "model_config.flava.image_encoder.patch_size=8")
    config = read("pretrain/flava", *options)
    params = config.dataset_config.pmd.processors.image_processor.params
    assert (params.image_size, params.patch_size, params.codebook_size) == (48, 8, 48)  # 6 x 6 codes of 8 pixels
    with pytest.raises(UserError, match=rf"^{IMAGE}\.params\.image_size is 224, but model_config\.flava\."):
        read("pretrain/flava", *options, f"{IMAGE}.params.image_size=224")
    finetuning = read("finetune/imagenet", "model_config.flava_classification.image_encoder.image_size=32")
    params = finetuning.dataset_config.image_classification.processors.image_processor.params
    assert (params.image_size, params.codebook_size, params.mask) == (32, None, None)


def test_a_recipe_can_replace_a_list_of_paths_by_weights(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"includes: [{CONFIGS}/pretrain/flava.yaml]\n"
        "dataset_config: {pmd: {splits: {train: {coco: 2, sbu: 0.5}}}}\n"
    )
    assert read_recipe(str(recipe)).dataset_config.pmd.splits.train == {"coco": 2, "sbu": 0.5}
    for section in (
        "training: {early_stop: [1]}",
        "dataset_config: {pmd: [1]}",
        "model_config: {flava: {image_encoder: [1]}}",
    ):
        recipe.write_text(f"includes: [{CONFIGS}/pretrain/flava.yaml]\n{section}\n")
        with pytest.raises(UserError, match=r"^[a-z_.]+: must be a section"):
            read_recipe(str(recipe))


def test_a_section_of_the_command_line_gets_the_defaults_too():
    config = read("pretrain/flava", f"{IMAGE}={{type: flava_image, params: {{mask: {{exact: true}}}}}}")
    params = config.dataset_config.pmd.processors.image_processor.params
    assert (params.image_size, params.codebook_size, params.mask.exact) == (224, 112, True)


def test_params_of_a_replaced_processor_are_removed(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"includes: [{CONFIGS}/finetune/vqa2.yaml]\n"
        "dataset_config: {vqa2: {processors: {text_processor: {type: flava_tokens, params: {max_length: 20}}}}}\n"
    )
    processors = read_recipe(str(recipe)).dataset_config.vqa2.processors
    assert processors.text_processor.params == {"tokenizer": None, "max_length": 20}
    assert {*processors.image_processor.params} == {"image_size", "mean", "std"}, "MMF's transforms must be removed"
    kept = processors.answer_processor.params
    assert kept.vocab_file.startswith("vqa2"), "params of MMF's processors must be kept"


def test_datasets_run_with_a_model_of_mmf(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"includes: [{CONFIGS}/datasets/demo.yaml]\nmodel: visual_bert\ndataset: pmd\n"
        "optimizer: {type: AdamW, params: {lr: 0.001}}\n"
    )
    config = read_recipe(str(recipe))
    params = config.dataset_config.pmd.processors.image_processor.params
    assert (params.image_size, params.patch_size) == (224, 16)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{type: []}", r"text_processor\.type: \[\] is not a registered processor"),
        ("5", r"^dataset_config\.vqa2.*"),
        ("{type: flava_tokens, params: [1]}", r"text_processor\.params: must be a section"),
        (
            "{type: flava_tokens, params: {max_length: 5, vocab: 3}}",
            r"'vocab' is not a key of .*text_processor\.params",
        ),
    ],
)
def test_invalid_processors_of_a_recipe_are_one_line_errors(entry, message, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"includes: [{CONFIGS}/finetune/vqa2.yaml]\n"
        f"dataset_config: {{vqa2: {{processors: {{text_processor: {entry}}}}}}}\n"
    )
    with pytest.raises(UserError, match=message):
        read_recipe(str(recipe))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset_config.pmd.mismatch_probabilty", 0.9, r"'mismatch_probabilty' is not a key of dataset_config\.pmd\."),
        ("dataset_config.pmd", None, r"^dataset_config\.pmd: must be a section"),
        (f"{TEXT}.params.mask_probabilty", 0.9, rf"^'mask_probabilty' is not a key of {TEXT}\.params\. Did you"),
        (f"{TEXT}.type", "flava_txt", rf"^{TEXT}\.type: 'flava_txt' is not a registered .*mean 'flava_text'"),
        (f"{TEXT}.type", "??", rf"^{TEXT}\.type: '\?\?' is not a registered processor\. Known names: flava_image"),
        (f"{TEXT}.type", [], rf"^{TEXT}\.type: must be a string"),
        (f"{TEXT}.params.max_length", 65, rf"^{TEXT}\.params\.max_length is 65, but .*text_encoder\.max_length.* 64"),
        (f"{TEXT}.params", None, rf"^{TEXT}\.params: must be a section"),
        (f"{TEXT}.params.tokenizer", "${no.key}", r"^dataset_config\.pmd.*no\.key"),
        (f"{IMAGE}.params.mask", True, rf"^{IMAGE}\.params\.mask: must be a section"),
        (f"{IMAGE}.params.mask.target", 17, rf"^{IMAGE}\.params\.mask\.target: must be at most 16"),
        (f"{IMAGE}.params.patch_size", 4, rf"^{IMAGE}\.params\.patch_size is 4, but model_config\.flava\.image_enc"),
        (f"{TEXT}.type", "flava_tokens", rf"^{TEXT}\.type: flava_tokens does not return .* Set it to flava_text\.$"),
        ("dataset_config.pmd.splits.val", ["a", "a"], r"^dataset_config\.pmd\.splits\.val: a is listed more than once"),
        ("dataset_config.pmd.splits.val", [0.5], r"^dataset_config\.pmd\.splits\.val: must be a path"),
    ],
)
def test_invalid_values_name_their_key(demo, key, value, message):
    config = OmegaConf.create(OmegaConf.to_container(demo, resolve=False))
    OmegaConf.update(config, key, value, merge=False)
    with pytest.raises(UserError, match=message):
        check_datasets(config, registry.mapping["processor_name_mapping"])


def test_processors_of_others_are_not_checked(demo):

    registry.register_processor("mine")(type("Mine", (registry.get_processor_class("simple_word"),), {}))
    config = OmegaConf.create(OmegaConf.to_container(demo, resolve=False))
    OmegaConf.update(config, TEXT, {"type": "mine", "params": {"anything": [1]}}, merge=False)
    set_model_defaults(config)
    check_datasets(config, registry.mapping["processor_name_mapping"])
    assert config.dataset_config.pmd.processors.text_processor.params == {"anything": [1]}
