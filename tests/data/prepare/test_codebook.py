import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmf_flava.data.prepare import codebook as module
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.codebook import CodebookOptions, fit_codebook, prepare_codebook
from mmf_flava.errors import UserError

SIZES = ["--image-size", "8", "--patch-size", "4"]


@pytest.fixture
def images(tmp_path):
    """Twelve noise images of 8 x 8 pixels, i.e. 48 patches of 4 x 4 pixels, and one file that is no image."""
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def test_command_writes_a_codebook_for_the_model(images, tmp_path, capsys):
    out = tmp_path / "new" / "codebook.safetensors"
    assert main(["codebook", "--src", str(images), "--out", str(out), *SIZES, "--codes", "5", "--quiet"]) == 0
    assert f"{out}: 5 codes of 4 x 4 pixels from 12 images. Dropped: 1 not an image." in capsys.readouterr().out
    centroids = load_file(out)["centroids"]
    assert (centroids.shape, centroids.dtype) == ((5, 48), np.float32)
    assert (np.diff(centroids.mean(1)) >= 0).all()


def test_existing_file_is_not_overwritten(images, tmp_path, capsys):
    out = tmp_path / "codebook.safetensors"
    out.write_text("weights of a year")
    assert main(["codebook", "--src", str(images), "--out", str(out), *SIZES, "--codes", "5", "--quiet"]) == 2
    assert "codebook.safetensors: the file exists. Choose another --out" in capsys.readouterr().err
    assert out.read_text() == "weights of a year"


def test_sources_are_the_formats_of_datasets_and_give_equal_codebooks(images, tmp_path):
    names = sorted(path.name for path in images.iterdir())
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"image": f"images/{name}"}) + "\n" for name in names))
    for number, src in enumerate([images, tmp_path / "list.jsonl"]):
        prepare_codebook([src], tmp_path / f"{number}.safetensors", CodebookOptions(8, 4, 5), progress=False)
    first, second = (load_file(tmp_path / f"{number}.safetensors")["centroids"] for number in range(2))
    assert np.array_equal(first, second)


def test_sample_of_images_depends_on_the_seed_alone(images, tmp_path):
    def fit(name, seed):
        options = CodebookOptions(8, 4, 3, images=4, seed=seed)
        assert prepare_codebook([images], tmp_path / name, options, progress=False)["images"] <= 4
        return load_file(tmp_path / name)["centroids"]

    assert np.array_equal(fit("a", 0), fit("b", 0))
    assert not np.array_equal(fit("a2", 0), fit("c", 1))


def test_memory_is_bounded_by_sampling_patches(images, tmp_path, monkeypatch):
    """16 patches of 4 x 4 pixels fit the limit, so one patch is sampled from each of the 13 files."""
    counts = []
    monkeypatch.setattr(module, "MAX_BYTES", 16 * 48 * 4)
    monkeypatch.setattr(module, "_cluster", lambda patches, codes, seed: counts.append(len(patches)) or patches[:codes])
    prepare_codebook([images], tmp_path / "a.safetensors", CodebookOptions(8, 4, 3), progress=False)
    assert counts == [12]


def test_many_codes_are_fitted_to_mini_batches(monkeypatch):
    """Four colours: the centroids are the colours, with both algorithms."""
    images = [np.full((4, 4), value, np.uint8) for value in (0, 80, 160, 240) for _ in range(40)]
    exact = fit_codebook(images, 4, 4, 4)
    monkeypatch.setattr(module, "MAX_EXACT", 1)
    for centroids in (exact, fit_codebook(images, 4, 4, 4)):
        assert np.allclose(centroids.mean(1), np.array([0, 80, 160, 240]) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ("49", "--codes: must be at most the number of patches, 48"),
        ("2", "--codes: must be at most the number of differ"),
    ],
)
def test_more_codes_than_patches_are_an_error(images, tmp_path, codes, message):
    if codes == "2":
        for path in images.glob("*.png"):
            Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(UserError, match=message):
        prepare_codebook([images], tmp_path / "a.safetensors", CodebookOptions(8, 4, int(codes)), progress=False)
    assert not (tmp_path / "a.safetensors").exists()


def test_no_decodable_image_is_an_error(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"no image")
    out = ["--out", str(tmp_path / "c.safetensors")]
    assert main(["codebook", "--src", str(tmp_path / "a.png"), *out, *SIZES, "--codes", "2", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("mmf_flava: ")
    assert main(["codebook", "--src", str(tmp_path), *out, *SIZES, "--codes", "2", "--quiet"]) == 2
    assert "none of 1 images can be decoded" in capsys.readouterr().err
