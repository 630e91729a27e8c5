import json
import subprocess
import sys
import threading
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmf_flava.data.prepare import codebook as module
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.codebook import CodebookPreparation, prepare_codebook
from mmf_flava.data.prepare.executors import LOCAL
from mmf_flava.data.prepare.patch_clustering import CodebookOptions
from mmf_flava.errors import UserError

from .test_executors import EXECUTORS

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
    monkeypatch.setattr(module, "fit_patches", lambda patches, *_: counts.append(len(patches)) or patches[:3])
    prepare_codebook([images], tmp_path / "a.safetensors", CodebookOptions(8, 4, 3), progress=False)
    assert counts == [12]


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


def run(images, out, size=3, executor=LOCAL, **options):
    """Fit with tasks of ``size`` images. The limit of the memory leaves three patches of each image."""
    sizes = CodebookOptions(8, 2, 5, **options)
    numbers = list(range(len(list(images.iterdir()))))
    return CodebookPreparation([images], sizes, "hash", numbers, size).run(out, False, executor)


@pytest.fixture
def expected(images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 13 * 3 * 12 * 4)
    assert run(images, tmp_path / "expected", 100) == {"images": 12, "dropped": {"not an image": 1}}
    return (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("size", [1, 3, 12])
def test_size_of_tasks_does_not_matter(images, tmp_path, expected, size, capsys):
    run(images, tmp_path / "out", size)
    assert (tmp_path / "out").read_bytes() == expected
    assert capsys.readouterr().out.count("bad.png") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "images", "out"]
    run(images, tmp_path / "other", size, seed=1)
    assert (tmp_path / "other").read_bytes() != expected


def test_threads_fit_the_same_codebook(images, tmp_path, expected):
    results = []

    def fit():
        results.append(run(images, tmp_path / "out", 1))

    threads = [threading.Thread(target=fit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and (tmp_path / "out").read_bytes() == expected
    assert not (tmp_path / "out.work").exists()


def interrupt(images, out, monkeypatch):
    """Run two tasks, as a process that is killed then."""
    with monkeypatch.context() as patch:
        patch.setattr(
            module, "cut_patches", Mock(side_effect=[*[np.zeros((16, 12), np.float32)] * 6, KeyboardInterrupt])
        )
        with pytest.raises(KeyboardInterrupt):
            run(images, out)


def test_interrupted_command_is_resumed(images, tmp_path, expected, monkeypatch):
    interrupt(images, tmp_path / "out", monkeypatch)
    work = tmp_path / "out.work"
    assert len(list(work.glob("*.npy"))) == 2
    with pytest.raises(UserError, match=r"out\.work belongs to a codebook of other images or options"):
        run(images, tmp_path / "out", seed=1)
    (work / "00000.npy").write_bytes(b"rubbish")
    (work / "00001.json").write_text("rubbish")
    (work / "00003.npy").write_bytes(b"rubbish")
    run(images, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == expected and not work.exists()


def test_another_process_that_ends_first_is_no_error(images, tmp_path, expected, monkeypatch):
    fit = module.fit_patches

    def end_first(*arguments):
        monkeypatch.setattr(module, "fit_patches", fit)
        assert run(images, tmp_path / "out") is not None
        assert run(images, tmp_path / "out") is None, "begun before the file existed"
        return fit(*arguments)

    monkeypatch.setattr(module, "fit_patches", end_first)
    assert run(images, tmp_path / "out") is not None
    assert (tmp_path / "out").read_bytes() == expected and not (tmp_path / "out.work").exists()


def test_errors_leave_nothing(images, tmp_path):
    with pytest.raises(UserError, match="at most the number of patches"):
        prepare_codebook([images], tmp_path / "a", CodebookOptions(8, 4, 49), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_executors_write_the_same_file(images, tmp_path, executor):
    assert run(images, tmp_path / "alone") == run(images, tmp_path / "out", 2, executor)
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "out").read_bytes()


def test_command_with_an_executor_fits_by_one_thread_too(tmp_path):
    """The order in which threads add floats would vary. A new process has imported no library before it fits."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"images/{number}.png")
    words = ["codebook", "--src", str(tmp_path / "images"), "--image-size", "64", "--patch-size", "2", "--codes", "16"]
    assert main([*words, "--out", str(tmp_path / "alone"), "--quiet"]) == 0
    command = [sys.executable, "-m", "mmf_flava.data.prepare", *words, "--out", str(tmp_path / "out")]
    subprocess.run([*command, "--executor", "local:2"], check=True, timeout=120)
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "out").read_bytes()


def test_other_images_under_the_same_names_are_another_input(images, tmp_path, monkeypatch):
    """The codebook of an interrupted command is not fitted to old and new images."""
    monkeypatch.setattr(CodebookPreparation, "_fit", Mock(side_effect=KeyboardInterrupt))
    options, out = CodebookOptions(8, 4, 3), tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        prepare_codebook([images], out, options, progress=False)
    monkeypatch.undo()
    Image.new("RGB", (8, 8), "red").save(images / "00.png")
    with pytest.raises(UserError, match="a codebook of other images or options"):
        prepare_codebook([images], out, options, progress=False)


def test_work_of_a_command_that_was_killed_after_the_end_is_deleted(images, tmp_path):
    out = tmp_path / "a.safetensors"
    prepare_codebook([images], out, CodebookOptions(8, 4, 3), progress=False)
    work = tmp_path / "a.safetensors.work"
    work.mkdir()
    (work / "input.json").touch()
    with pytest.raises(UserError, match="the file exists"):
        prepare_codebook([images], out, CodebookOptions(8, 4, 3), progress=False)
    assert not work.exists()
