import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.config.processors import CLIP_MEAN, CLIP_STD
from mmf_flava.data.image_decoding import to_rgb
from mmf_flava.data.processors import FlavaImageProcessor, FlavaTextProcessor
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece
from mmf_flava.errors import UserError

MEAN, STD = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]


def image_processor(**params):
    defaults = {"image_size": 24, "patch_size": 4, "codebook_size": 24, "mask": {"target": 14, "min_block": 4}}
    return FlavaImageProcessor(OmegaConf.create({**defaults, **params}))


def gradient(width=40, height=30):
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 6, y * 8, (y + x) * 3], -1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("train", [True, False])
def test_both_views_show_the_same_box(train):
    sample = image_processor()({"image": gradient(), "rng": np.random.default_rng(0), "train": train})
    assert sample["image"].shape == sample["image_for_codebook"].shape == (3, 24, 24)
    assert sample["image"].dtype == sample["image_for_codebook"].dtype == torch.float32
    pixels = sample["image"] * STD + MEAN
    assert (pixels - sample["image_for_codebook"]).abs().max() < 0.03, "views of different boxes"
    assert 0 <= sample["image_for_codebook"].min() < sample["image_for_codebook"].max() <= 1
    assert sample["image_patch_mask"].shape == (36,)
    assert sample["image_patch_mask"].dtype == torch.bool


def test_crops_are_random_in_training_only():
    processor = image_processor()

    def view(seed, train):
        return processor({"image": gradient(), "rng": np.random.default_rng(seed), "train": train})["image"]

    assert not torch.equal(view(0, True), view(1, True))
    assert torch.equal(view(0, True), view(0, True))
    assert torch.equal(view(0, False), view(1, False))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "LAB"])
def test_all_image_modes_are_converted_to_rgb(mode):
    image = Image.new("RGB", (9, 5), (200, 10, 10))
    image = image.convert("RGB" if mode == "LAB" else "L" if mode == "LA" else mode).convert(
        "LA" if mode == "LA" else None
    )
    if mode == "LAB":
        image = Image.new("LAB", (9, 5))
    assert to_rgb(image).mode == "RGB"


def test_transparent_pixels_become_white():
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_codebook_view_can_be_disabled_and_masks_can_be_exact():
    processor = image_processor(codebook_size=None, mask={"target": 9, "min_block": 2, "exact": True})
    sample = processor({"image": gradient(), "rng": np.random.default_rng(0), "train": True})
    assert set(sample) == {"image", "image_patch_mask"}
    assert sample["image_patch_mask"].sum() == 9


@pytest.mark.parametrize(
    ("params", "word"),
    [({"mask": {"target": 37}}, "target"), ({"image_size": 25}, "multiple"), ({"crop_scale": [0.9]}, "crop_scale")],
)
def test_invalid_sizes_raise_an_error(params, word):
    with pytest.raises(UserError, match=word):
        image_processor(**params)


@pytest.fixture
def text(tmp_path):
    words = [*SPECIAL_TOKENS, "a", "hand", "##written", "three"]
    (tmp_path / "words").mkdir()
    build_wordpiece(words).save(str(tmp_path / "words" / "tokenizer.json"))

    def make(**params):
        return FlavaTextProcessor(OmegaConf.create({"tokenizer": "words", **params}), data_dir=str(tmp_path))

    return make


def test_caption_is_tokenized_and_masked(text):
    sample = text()({"text": "A handwritten THREE", "rng": np.random.default_rng(0)})
    assert sample["input_ids"].tolist() == [2, 5, 6, 7, 8, 3]
    assert sample["input_mask"].all()
    masked = sample["lm_label_ids"] != -1
    assert masked.sum() == 1, "15 % of four tokens is one; the two tokens of handwritten would be too many"
    assert not masked[[0, 2, 3, 5]].any()
    assert torch.equal(sample["input_ids_masked"][~masked], sample["input_ids"][~masked])


def test_input_ids_are_truncated(text):
    sample = text(max_length=4)({"input_ids": np.array([5, 8, 8, 8], dtype="<u2"), "rng": np.random.default_rng(0)})
    assert sample["input_ids"].tolist() == [2, 5, 8, 3]
    assert sample["input_ids"].dtype == sample["lm_label_ids"].dtype == torch.int64


def test_encode_pads_to_the_longest_text(text):
    ids, mask = text().encode(["three", "a three"])
    assert ids.tolist() == [[2, 8, 3, 0], [2, 5, 8, 3]]
    assert mask.tolist() == [[True, True, True, False], [True] * 4]
    ids, mask = text().encode([])
    assert ids.shape == (0, 0)


def test_empty_text_has_only_cls_and_sep(text):
    assert text()({"text": "", "rng": np.random.default_rng(0)})["input_ids"].tolist() == [2, 3]


def test_invalid_parameters_raise_an_error(text, tmp_path):
    with pytest.raises(UserError, match="max_length"):
        text(max_length=2)


def test_processors_are_registered():
    from mmf.common.registry import registry

    assert registry.get_processor_class("flava_image") is FlavaImageProcessor
    assert registry.get_processor_class("flava_text") is FlavaTextProcessor


def test_vocabulary_larger_than_the_models_raises_an_error(text):
    from mmf.common.registry import registry

    encoder = {"text_encoder": {"vocab_size": 8}}
    registry.register("config", OmegaConf.create({"model": "flava", "model_config": {"flava": encoder}}))
    try:
        with pytest.raises(UserError, match=r"^model_config\.flava\.text_encoder\.vocab_size is 8, .* has 9 tokens"):
            text()
    finally:
        registry.unregister("config")
