"""Embeddings of images and texts equal those of Hugging Face's model with the same weights."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import FlavaForPreTraining, FlavaProcessor

from mmf_flava import Embedder, UserError
from mmf_flava.convert import convert
from mmf_flava.data.tokenizer import build_wordpiece
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(36))]
TEXTS = ["word1 word2 word3", "word4", "word5 word6"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder in Hugging Face's format, with tokenizer and image processor."""
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    folder = tmp_path_factory.mktemp("source")
    model.save_pretrained(folder / "bare")
    build_wordpiece(WORDS).save(str(folder / "bare" / "tokenizer.json"))
    convert(folder / "bare", folder / "hf", "hf")
    assert load_file(folder / "hf" / "model.safetensors")
    return folder / "hf"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three images with the model's input size, so that no resizing takes place."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def expected(weights, photos):
    """Hugging Face's image embeddings, text embeddings and multimodal [CLS]."""
    images = [Image.open(photos / f"{number}.png") for number in range(3)]
    inputs = FlavaProcessor.from_pretrained(weights)(images=images, text=TEXTS, return_tensors="pt", padding=True)
    core = FlavaForPreTraining.from_pretrained(weights).eval().flava
    with torch.no_grad():
        output = core(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            pixel_values=inputs.pixel_values,
            skip_multimodal_encoder=False,
        )
        image = normalize(core.image_projection(output.image_embeddings[:, 0]), dim=-1)
        text = normalize(core.text_projection(output.text_embeddings[:, 0]), dim=-1)
    return image.numpy(), text.numpy(), output.multimodal_embeddings[:, 0].numpy()


def test_embeddings_equal_hugging_face(weights, photos, expected):
    embedder = Embedder(weights, batch_size=2)
    paths = [photos / f"{number}.png" for number in range(3)]
    found = embedder.images(paths), embedder.texts(TEXTS), embedder.pairs(paths, TEXTS)
    for embeddings, reference in zip(found, expected, strict=True):
        assert np.abs(embeddings - reference).max() < 1e-5
    # the logits of zero-shot classification
    assert np.abs(100 * found[0] @ found[1].T - 100 * expected[0] @ expected[1].T).max() < 1e-3


def test_images_may_be_paths_pil_images_or_arrays(weights, photos):
    embedder = Embedder(weights)
    image = Image.open(photos / "0.png")
    rows = embedder.images([photos / "0.png", str(photos / "0.png"), image, np.asarray(image)])
    assert np.ptp(rows, axis=0).max() < 1e-6


def test_invalid_image_raises(weights, tmp_path):
    (tmp_path / "note.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"note\.jpg: not an image"):
        Embedder(weights).images([tmp_path / "note.jpg"])
    with pytest.raises(UserError, match=r"none\.jpg: failed to read the file"):
        Embedder(weights).images([tmp_path / "none.jpg"])


def test_larger_vocabulary_raises(weights, tmp_path):
    build_wordpiece([*WORDS, *(f"more{n}" for n in range(100))]).save(str(tmp_path / "tokenizer.json"))
    shutil.copy(weights / "model.safetensors", tmp_path / "bare.safetensors")
    shutil.copy(weights / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"has 141 tokens, but the weights have \d+"):
        Embedder(tmp_path / "bare.safetensors").texts(["word1"])


def test_another_vocabulary_of_the_same_size_raises(weights, tmp_path):
    build_wordpiece([*WORDS[:5], *reversed(WORDS[5:])]).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"the vocabulary differs from the vocabulary that .* was trained with"):
        Embedder(weights, tokenizer=tmp_path)


def test_weights_without_processors_load_with_one_warning(weights, tmp_path):
    for name in ("model.safetensors", "config.json"):
        shutil.copy(weights / name, tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Embedder(tmp_path)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert all(words in message for words in (str(tmp_path), "bert-base-uncased", "77 tokens", "0.48145466"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Embedder(tmp_path, tokenizer=weights, max_length=12, mean=[0.5] * 3, std=[0.5] * 3)
        Embedder(weights)


def test_images_need_no_tokenizer(weights, photos, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.safetensors", "config.json"):
        (bare / name).write_bytes((weights / name).read_bytes())
    assert json.loads((bare / "config.json").read_text())
    assert Embedder(bare, tokenizer="/nowhere").images([photos / "0.png"]).shape == (1, 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device: 'gpu' is not a device"),
        ({"device": "cuda:99"}, "device is cuda:99"),
        ({"device": "cpu:x"}, "device: 'cpu:x' is not a device"),
        ({"batch_size": 0}, "batch_size is 0, expected an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
    ],
)
def test_invalid_options_are_errors(weights, options, message):
    with pytest.raises(UserError, match=message):
        Embedder(weights, **options)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_gives_similar_unit_embeddings(weights, photos, dtype):
    images = [photos / f"{number}.png" for number in range(3)]
    exact, half = (Embedder(weights, device="cpu", dtype=name) for name in ("fp32", dtype))
    for expected, actual in (
        (exact.images(images), half.images(images)),
        (exact.texts(TEXTS), half.texts(TEXTS)),
    ):
        assert actual.dtype == np.float32 and np.allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-6)
        assert not np.array_equal(actual, expected) and ((actual * expected).sum(1) > 0.99).all()
    assert np.allclose(half.pairs(images, TEXTS), exact.pairs(images, TEXTS), atol=0.1)
    with pytest.raises(UserError, match="dtype: 'fp8' is not one of fp32, bf16, fp16"):
        Embedder(weights, device="cpu", dtype="fp8")
