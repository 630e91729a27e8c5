from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as v1

from mmf_flava.data import photometric
from mmf_flava.data.photometric import Photometric

YES, NO = 0.0, 0.999999


class Script:
    """A generator that returns the given numbers; ``uniform`` returns a fraction of its interval."""

    def __init__(self, numbers, fractions=(), order=(0, 1, 2, 3)):
        self.numbers, self.fractions, self.order = list(numbers), list(fractions), order

    def random(self):
        return self.numbers.pop(0)

    def uniform(self, low, high):
        return low + (high - low) * self.fractions.pop(0)

    def permutation(self, size):
        assert size == 4
        return np.array(self.order)


def apply(pixels, script, blur=0.5, solarise=0.0, radius=(0.1, 2.0)):
    image = Image.fromarray(np.array(pixels, dtype=np.uint8))
    result = np.asarray(Photometric(radius, blur, solarise)(image, script)).tolist()
    assert script.numbers == script.fractions == [], "random numbers were not drawn"
    return result


def grey(*values):
    return [[[value] * 3 for value in values]]


def test_nothing_is_drawn():
    pixels = [[[10, 20, 30], [200, 100, 0]]]
    assert apply(pixels, Script([NO] * 4)) == pixels


def test_flip():
    assert apply(grey(10, 200), Script([YES, NO, NO, NO])) == grey(200, 10)


def test_grey_is_the_weighted_mean():
    """0.299 R + 0.587 G + 0.114 B."""
    assert apply([[[200, 100, 0]]], Script([NO, NO, YES, NO])) == [[[118, 118, 118]]]


def test_solarisation_inverts_bright_values():
    assert apply(grey(0, 127, 128, 255), Script([NO] * 4 + [YES]), solarise=0.2) == grey(0, 127, 127, 0)
    assert apply(grey(255), Script([NO] * 4 + [NO]), solarise=0.2) == grey(255)


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        ((0.0, 0.5, 0.5, 0.5), grey(60, 120)),  # brightness 0.6
        ((1.0, 0.5, 0.5, 0.5), grey(140, 255)),  # brightness 1.4, clipped
        ((0.5, 0.0, 0.5, 0.5), grey(120, 180)),  # contrast 0.6 around the mean, 150
        ((0.5, 0.5, 1.0, 0.0), grey(100, 200)),  # saturation and hue do not change grey
    ],
)
def test_jitter_of_grey_values(fractions, expected):
    assert apply(grey(100, 200), Script([NO, YES, NO, NO], fractions)) == expected


@pytest.mark.parametrize(("order", "expected"), [((0, 1, 2, 3), grey(163, 232)), ((1, 0, 2, 3), grey(168, 252))])
def test_jitter_has_a_random_order(order, expected):
    """Brightness 1.4 and contrast 0.6 of 100, 200.

    In this order: 140 and 255 (clipped), then 0.6 of the distance to their mean 198. Otherwise 120 and 180, times 1.4.
    """
    assert apply(grey(100, 200), Script([NO, YES, NO, NO], (1.0, 0.0, 0.5, 0.5), order)) == expected


def published(image, flip, factors, order, to_grey, radius, solarise):
    """The operations of torchvision's transforms of PIL images that DINO was published with."""
    image = v1.hflip(image) if flip else image
    operations = (v1.adjust_brightness, v1.adjust_contrast, v1.adjust_saturation, v1.adjust_hue)
    for number in order if factors else ():
        image = operations[number](image, factors[number])
    image = v1.to_grayscale(image, 3) if to_grey else image
    if radius is not None:
        image = image.filter(photometric.ImageFilter.GaussianBlur(radius=radius))
    return v1.solarize(image, 128) if solarise else image


@pytest.mark.parametrize("seed", range(20))
def test_pixels_equal_those_of_the_published_operations(seed):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (13, 17, 3), dtype=np.uint8))
    flip, jitter, to_grey, blur, solarise = (rng.random(5) < 0.5).tolist()
    fractions, order = rng.random(5).tolist(), rng.permutation(4).tolist()
    low = np.array([0.6, 0.6, 0.8, -0.1, 0.1])
    values = (low + (np.array([1.4, 1.4, 1.2, 0.1, 2.0]) - low) * fractions).tolist()
    expected = published(
        image, flip, values[:4] if jitter else None, order, to_grey, values[4] if blur else None, solarise
    )
    used = [*(fractions[:4] if jitter else ()), *(fractions[4:] if blur else ())]
    script = Script([YES if drawn else NO for drawn in (flip, jitter, to_grey, blur, solarise)], used, order)
    found = apply(np.asarray(image), script, solarise=0.2)
    assert found == np.asarray(expected).tolist()


def test_the_factors_are_those_of_color_jitter():
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    assert jitter.brightness == (1 - photometric.BRIGHTNESS, 1 + photometric.BRIGHTNESS)
    assert jitter.contrast == (1 - photometric.CONTRAST, 1 + photometric.CONTRAST)
    assert jitter.saturation == (1 - photometric.SATURATION, 1 + photometric.SATURATION)
    assert jitter.hue == (-photometric.HUE, photometric.HUE)


def test_frequencies(monkeypatch):
    """Of 2,000 images: flip 0.5, jitter 0.8, grey 0.2, blur 0.1, solarisation 0.2, within four standard deviations."""
    counts = Counter()

    def count(owner, name):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for name in ("horizontal_flip", "adjust_hue", "rgb_to_grayscale", "solarize"):
        count(photometric.F, name)
    count(photometric.ImageFilter, "GaussianBlur")
    monkeypatch.setattr(
        photometric,
        "_jitter",
        lambda image, rng: photometric.F.adjust_hue(image, 0.0),
    )
    augment, rng, total = Photometric((0.1, 2.0), blur=0.1, solarise=0.2), np.random.default_rng(0), 2000
    for _ in range(total):
        augment(Image.new("RGB", (2, 2)), rng)
    expected = {
        "horizontal_flip": 0.5,
        "adjust_hue": 0.8,
        "rgb_to_grayscale": 0.2,
        "GaussianBlur": 0.1,
        "solarize": 0.2,
    }
    for name, probability in expected.items():
        deviation = np.sqrt(probability * (1 - probability) / total)
        assert abs(counts[name] / total - probability) < 4 * deviation, name


def test_blur_radii_are_uniform(monkeypatch):
    radii = []
    blur = photometric.ImageFilter.GaussianBlur
    monkeypatch.setattr(photometric.ImageFilter, "GaussianBlur", lambda radius: (radii.append(radius), blur(radius))[1])
    augment, rng = Photometric((0.5, 1.5), blur=1.0), np.random.default_rng(0)
    for _ in range(500):
        augment(Image.new("RGB", (2, 2)), rng)
    assert len(radii) == 500
    assert 0.5 <= min(radii) < 0.52
    assert 1.48 < max(radii) <= 1.5
    assert np.mean(radii) == pytest.approx(1.0, abs=0.05)
