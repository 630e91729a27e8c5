import copy
import io
import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision import transforms

from mmf_flava.config.processors import CLIP, IMAGENET
from mmf_flava.data import multicrop
from mmf_flava.data.image_decoding import to_pixels
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.processor_calls import process_image
from mmf_flava.data.processors import FlavaMulticropProcessor
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.saved_processors import SavedProcessors
from tests.data.test_image_decoding import photo

SMALL = {"global_size": 24, "local_size": 12, "num_local": 3}


def processor(**params):
    return FlavaMulticropProcessor(OmegaConf.create({**SMALL, **params}))


def crops(image, seed=0, train=True, **params):
    return processor(**params)({"image": image, "rng": np.random.default_rng(seed), "train": train})


def test_crops_have_the_documented_shapes():
    sample = crops(photo(60, 50))
    assert {name: (tuple(value.shape), value.dtype) for name, value in sample.items()} == {
        "crops_global": ((2, 3, 24, 24), torch.float32),
        "crops_local": ((3, 3, 12, 12), torch.float32),
    }
    views = [*sample["crops_global"], *sample["crops_local"]]
    assert all(not torch.equal(a, b) for n, a in enumerate(views) for b in views[:n] if a.shape == b.shape)
    assert all(value.is_contiguous() for value in sample.values())


def test_without_local_crops_the_field_is_missing():
    sample = crops(photo(60, 50), num_local=0)
    assert set(sample) == {"crops_global"}
    assert torch.equal(sample["crops_global"], crops(photo(60, 50))["crops_global"])


def test_the_defaults_are_the_published_values():
    """main_dino.py of facebookresearch/dino with the arguments published for ViT-B/16."""
    params = FlavaMulticropProcessor.CONFIG()
    assert (params.global_size, params.local_size, params.num_local) == (224, 96, 10)
    assert (params.global_scale, params.local_scale, params.blur_radius) == ([0.25, 1.0], [0.05, 0.25], [0.1, 2.0])
    default = FlavaMulticropProcessor({})
    assert [(one.blur, one.solarise) for one in default.global_augmentations] == [(1.0, 0.0), (0.1, 0.2)]
    assert (default.local_augmentation.blur, default.local_augmentation.solarise) == (0.5, 0.0)


@pytest.fixture
def plain(monkeypatch):
    """Disable all augmentations except crops."""
    monkeypatch.setattr(multicrop.Photometric, "__call__", lambda self, image, rng: image)


@pytest.mark.parametrize("size", [(300, 200), (20, 14)])
def test_a_crop_is_the_box_resized_by_pillow_and_normalised_as_published(size, plain, monkeypatch):
    width, height = size
    box = (width * 0.125, height * 0.25, width * 0.875, height * 0.75)
    monkeypatch.setattr(multicrop, "sample_crop_box", lambda *_: box)
    image = photo(*size)
    normalise = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    rounded = tuple(map(round, box))
    cropped = image.crop(rounded) if width > 100 else image
    expected = cropped.resize((24, 24), Image.Resampling.BICUBIC, box=None if width > 100 else box)
    view = crops(image)["crops_global"][0]
    assert (view - normalise(expected)).abs().max() < 1.01 / 255 / 0.224


def test_boxes_have_the_configured_areas(plain, monkeypatch):
    calls = []

    def recorded(rng, width, height, scale):
        calls.append((width, height, tuple(scale)))
        return 0, 0, width, height

    monkeypatch.setattr(multicrop, "sample_crop_box", recorded)
    crops(photo(60, 50), global_scale=[0.5, 0.75], local_scale=[0.1, 0.2])
    assert calls == [(60, 50, (0.5, 0.75))] * 2 + [(60, 50, (0.1, 0.2))] * 3


def test_in_evaluation_the_entire_image_is_added():
    image = photo(60, 50)
    first = crops(image, 1, train=False)
    assert set(first) == {"crops_global", "crops_local", "image"}
    expected = image.resize((24, 24), Image.Resampling.BICUBIC)
    assert np.array_equal(processor().pixels(first["image"]), np.asarray(expected))
    assert torch.equal(first["crops_local"], crops(image, 1)["crops_local"])


@pytest.mark.parametrize("train", [True, False])
def test_without_crops_only_the_entire_image_is_returned(train):
    built, item = processor(), {"image": photo(60, 50), "rng": np.random.default_rng(1), "train": train}
    whole = built.without_crops()(item)
    assert set(whole) == {"image"}
    assert torch.equal(whole["image"], crops(photo(60, 50), train=False)["image"])
    assert "crops_global" in built(item)


def test_crops_depend_only_on_the_generator_of_the_sample():
    def draw(seed):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        sample = crops(photo(60, 50), 7)
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        return sample

    first, second, other = draw(0), draw(1), crops(photo(60, 50), 8)
    for name in first:
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])


def grey_16():
    return np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 54 + 3


IMAGES = {
    "smaller than a crop": photo(5, 4),
    "narrow": photo(2, 90),
    "wide": photo(90, 1),
    "one pixel": Image.new("RGB", (1, 1), (9, 99, 199)),
    "grey": photo(40, 30, "L"),
    "bilevel": photo(40, 30, "1"),
    "rgba": Image.merge("RGBA", (*photo(40, 30).split(), photo(40, 30, "L"))),
    "16-bit": Image.fromarray(grey_16()),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("seed", range(3))
def test_images_of_all_kinds_and_sizes(kind, seed):
    sample = crops(IMAGES[kind], seed)
    assert sample["crops_global"].shape == (2, 3, 24, 24)
    assert sample["crops_local"].shape == (3, 3, 12, 12)
    assert all(value.isfinite().all() and value.abs().max() < 3 for value in sample.values())
    again = crops(to_pixels(IMAGES[kind]), seed)
    assert all(torch.equal(sample[name], again[name]) for name in sample)


def test_16_bit_images_equal_their_high_bytes():
    high = Image.fromarray((grey_16() >> 8).astype(np.uint8))
    assert torch.equal(crops(IMAGES["16-bit"])["crops_local"], crops(high)["crops_local"])


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90)])
def test_crops_of_an_image_of_one_colour_have_one_colour(colour):
    for seed in range(5):
        sample = crops(Image.new("RGB", (40, 30), colour), seed)
        for view in (*sample["crops_global"], *sample["crops_local"]):
            assert (view.amax((1, 2)) - view.amin((1, 2))).max() == 0


def test_the_smallest_crops_of_large_jpegs_have_enough_pixels():
    """A crop of 24 pixels with a quarter of the area and the aspect 3:4 needs 24 / sqrt(0.25 * 0.75) = 55.4 pixels."""
    assert processor(local_size=1).decode_size == 56
    assert processor().decode_size == 62  # 12 / sqrt(0.05 * 0.75) = 61.97
    assert processor(num_local=0).decode_size == 56
    assert FlavaMulticropProcessor({}).decode_size == 518


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_images_with_too_many_pixels_are_bad_records():
    limited = processor(max_pixels=1199)
    for size, bad in (((40, 30), True), ((40, 29), False)):
        record = Record("x", {"png": png(photo(*size))})
        if bad:
            with pytest.raises(BadRecord, match="1,199 pixels, the limit max_pixels") as error:
                process_image(limited, record, np.random.default_rng(0), True)
            assert error.value.reason == Reason.HUGE_IMAGE
        else:
            assert "crops_global" in process_image(limited, record, np.random.default_rng(0), True)


def test_mean_and_std():
    own = {"mean": [0.5, 0.25, 0.75], "std": [0.1, 0.2, 0.3]}
    saved = InitialProcessors(SavedProcessors("w", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))

    def statistics(initial=None, **params):
        built = FlavaMulticropProcessor({**SMALL, **params}, initial=copy.deepcopy(initial))
        return tuple(built.mean), tuple(built.std)

    assert statistics() == IMAGENET
    assert statistics(normalisation="flava") == CLIP
    assert statistics(**own) == ((0.5, 0.25, 0.75), (0.1, 0.2, 0.3))
    assert statistics(saved) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with pytest.warns(UserWarning, match="mean is set to .* but w was trained with mean"):
        assert statistics(saved, normalisation="imagenet") == IMAGENET
