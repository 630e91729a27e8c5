"""Every param of every processor of mmf_flava changes the built processor.

The table has another value for each key of a config class, and a function that reads the value back from the built
processor. A key without an entry fails.
"""

from typing import Any

import numpy as np
import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.config.processors import (
    CLIP_MEAN,
    ImageProcessorConfig,
    ImageTransformConfig,
    MulticropConfig,
    TextProcessorConfig,
    TokensConfig,
)
from mmf_flava.data import processors, unmasked  # noqa: F401 (registers them)
from tests.data.glue_toys import write_vocabulary
from tests.data.test_keys_take_effect import Entry, changed, fill, keys

PARAMS: dict[str, tuple[Any, dict[str, Any], dict[str, Entry]]] = {
    "flava_image": (
        ImageProcessorConfig,
        {"mask": {}},
        {
            "image_size": (32, lambda processor: image_sample(processor)["image"].shape[-1]),
            "mean": ([0.5, 0.25, 0.75], lambda processor: list(processor.mean)),
            "std": ([0.5, 0.25, 0.75], lambda processor: list(processor.std)),
            "patch_size": (8, lambda processor: processor.image_size // processor.grid[0]),
            "codebook_size": (16, lambda processor: image_sample(processor)["image_for_codebook"].shape[-1]),
            "max_pixels": (80, lambda processor: processor.max_pixels),
            "crop_scale": ([0.25, 0.5], lambda processor: list(processor.crop_scale)),
            "mask.target": (50, lambda processor: processor.target),
            "mask.min_block": (5, lambda processor: processor.min_block),
            "mask.exact": (True, lambda processor: len({masked(processor, seed) for seed in range(50)}) == 1),
        },
    ),
    "flava_image_transform": (
        ImageTransformConfig,
        {},
        {
            "image_size": (32, lambda processor: processor(Image.new("RGB", (9, 9))).shape[-1]),
            "mean": ([0.5, 0.25, 0.75], lambda processor: list(processor.mean)),
            "std": ([0.5, 0.25, 0.75], lambda processor: list(processor.std)),
        },
    ),
    "flava_multicrop": (
        MulticropConfig,
        {},
        {
            "global_size": (32, lambda processor: image_sample(processor)["crops_global"].shape[-1]),
            "local_size": (16, lambda processor: image_sample(processor)["crops_local"].shape[-1]),
            "num_local": (1, lambda processor: image_sample(processor)["crops_local"].shape[0]),
            "global_scale": ([0.5, 0.75], lambda processor: list(processor.global_scale)),
            "local_scale": ([0.1, 0.2], lambda processor: list(processor.local_scale)),
            "blur_radius": ([1.0, 3.0], lambda processor: list(processor.local_augmentation.radius)),
            "normalisation": ("flava", lambda processor: "flava" if tuple(processor.mean) == CLIP_MEAN else "imagenet"),
            "mean": ([0.5, 0.25, 0.75], lambda processor: list(processor.mean)),
            "std": ([0.5, 0.25, 0.75], lambda processor: list(processor.std)),
            "max_pixels": (80, lambda processor: processor.max_pixels),
        },
    ),
    "flava_text": (
        TextProcessorConfig,
        {"tokenizer": "{tmp}/a"},
        {
            "tokenizer": ("{tmp}/b", lambda processor: f"{{tmp}}/{'b' if processor.vocab_size == 23 else 'a'}"),
            "max_length": (5, lambda processor: processor.encode(["of " * 200])[0].shape[1]),
            "pad_to_multiple": (8, lambda processor: processor.pad_to_multiple),
            "mask_probability": (0.5, lambda processor: round(text_mask(processor).mean().item(), 1)),
            "whole_word": (False, lambda processor: processor.whole_word),
            "replace": ("mask", lambda processor: "mask" if all_masked(processor) else "bert"),
        },
    ),
    "flava_tokens": (
        TokensConfig,
        {"tokenizer": "{tmp}/a"},
        {
            "tokenizer": ("{tmp}/b", lambda processor: f"{{tmp}}/{'b' if processor.vocab_size == 23 else 'a'}"),
            "max_length": (5, lambda processor: len(processor({"text": "of"})["input_ids"])),
        },
    ),
}


def image_sample(processor, seed=0):
    return processor({"image": Image.new("RGB", (9, 9)), "rng": np.random.default_rng(seed), "train": False})


def masked(processor, seed):
    return int(image_sample(processor, seed)["image_patch_mask"].sum())


def text_sample(processor):
    return processor({"input_ids": [5, 6, 7, 8] * 2000, "rng": np.random.default_rng(0)})


def text_mask(processor):
    return (text_sample(processor)["lm_label_ids"][1:-1] != -1).float()


def all_masked(processor):
    sample = text_sample(processor)
    return bool((sample["input_ids_masked"][sample["lm_label_ids"] != -1] == processor.special.mask).all())


@pytest.mark.parametrize("kind", PARAMS)
def test_every_param_is_tested(kind):
    schema, _, table = PARAMS[kind]
    assert registry.get_processor_class(kind).CONFIG is schema
    assert {*keys(schema)} == {*table}


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, (_, _, table) in PARAMS.items() for key in table])
def test_param_takes_effect(kind, key, tmp_path):
    _, base, table = PARAMS[kind]
    value, read = table[key]
    for name in ("a", "b"):
        write_vocabulary(tmp_path / name)
    with open(tmp_path / "b/vocab.txt", "a", encoding="utf-8") as file:
        file.write("\nnew")
    base, params = (fill(section, tmp_path) for section in (base, changed(key, value)))
    if kind == "flava_multicrop" and key in ("mean", "std"):  # only valid together
        params = {**params, **{name: [0.5, 0.5, 0.5] for name in ("mean", "std") if name != key}}
    long = {"max_length": 9000} if kind == "flava_text" and key in ("mask_probability", "replace") else {}
    build = registry.get_processor_class(kind)
    default, processor = build({**base, **long}), build(OmegaConf.to_container(OmegaConf.merge(base, long, params)))
    assert read(processor) == value
    assert read(default) != value


def test_null_mask_disables_the_mask():
    processor = registry.get_processor_class("flava_image")({"mask": None})
    assert "image_patch_mask" not in image_sample(processor)
