"""Caching of codes by the real command. Losses with cached codes are equal to losses with the running codebook."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf, open_dict
from safetensors.torch import load_file, save_file

import mmf_flava.plugin  # noqa: F401  registers
from mmf_flava import cache_codes
from mmf_flava.config.model import CodebookConfig, FlavaConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.codes import OPENED_CODES, CodePart, resolve_codes_folder
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.prepare.demo import prepare_demo
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.errors import UserError
from mmf_flava.models.codebook import caching
from mmf_flava.models.codebook.build import build_codebook, load_codebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.pretraining import FlavaPretraining
from tests.conftest import DEMO, SCRIPTS

FEW = {"pmd": "pairs/val", "imagenet": "images/val"}  # 137 records each


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The demo data. Tests write their codes to other folders."""
    folder = tmp_path_factory.mktemp("data")
    prepare_demo(folder / "flava_demo", progress=False)
    return folder


@pytest.fixture
def recipe(data):
    """The demo recipe with a small train split, registered in MMF as in a run."""
    before = registry.get("config", default=None, no_warning=True)
    registry.unregister(OPENED_CODES)  # codes opened by other tests in this process
    splits = [f"dataset_config.{name}.splits.train=['{path}']" for name, path in FEW.items()]
    yield read_recipe(DEMO, [f"env.data_dir={data}", *splits])
    for key in (OPENED_CODES, "config"):
        registry.unregister(key)
    if before is not None:
        registry.register("config", before)


def codebook_config(recipe, **changes):
    return parse_section(
        CodebookConfig, {**recipe.model_config.flava.codebook, **changes}, "model_config.flava.codebook"
    )


def build_codebook_of(recipe, **changes):
    return build_codebook(codebook_config(recipe, **changes), registry.get(OPENED_CODES, default={}, no_warning=True))


def dataset_of(recipe, name="pmd", split="train", **changes):
    with open_dict(recipe):
        for key, value in changes.items():
            recipe.dataset_config[name][key] = value
    return open_dataset(recipe, name, split)


def cache(recipe, folder, name="pmd", split="train", views=2, config=None):
    dataset = dataset_of(recipe, name, split, views=views, codes=None)
    config = config or codebook_config(recipe)
    return caching.cache_dataset_codes(dataset, config, load_codebook(config), folder, progress=False)


def model_of(recipe, **codebook):
    settings = parse_section(FlavaConfig, recipe.model_config.flava, "model_config.flava")
    settings.codebook = codebook_config(recipe, **codebook)
    torch.manual_seed(0)
    model = FlavaPretraining(OmegaConf.structured(settings))
    model.build()
    model.init_losses()
    return model


def test_a_part_is_computed_once_and_the_others_keep_their_codes(recipe, tmp_path):
    """Parts are found by their records: adding, removing and reordering them computes only the new ones."""

    codes = tmp_path / "codes"

    def cached(splits):
        with open_dict(recipe):
            recipe.dataset_config.pmd.splits = {"train": splits}
        result = cache(recipe, codes)
        stored = dataset_of(recipe, views=None, codes=str(codes))
        running = dataset_of(recipe, views=2, codes=None)
        codebook = load_codebook(codebook_config(recipe))
        for n in (0, 60, 200):
            expected = codebook(running[n]["image_for_codebook"][None])[0]
            assert torch.equal(expected, stored[n]["image_codes"]) and torch.equal(
                running[n]["image"], stored[n]["image"]
            )
        return result.computed, len(result.files)

    assert cached(["pairs/val"]) == (137, 1)
    before = {path: path.stat().st_mtime_ns for path in codes.iterdir()}
    assert cached(["pairs/test", "pairs/val"]) == (360, 2)
    assert cached(["pairs/val", "pairs/test"]) == (0, 2)
    assert cached({"pairs/test": 2, "pairs/val": 0.5}) == (0, 2)
    assert cached(["pairs/test"]) == (0, 1)
    shutil.copytree(f"{recipe.dataset_config.pmd.data_dir}/pairs/val", tmp_path / "val")
    assert cached(["pairs/val", str(tmp_path / "val"), "pairs/test"]) == (0, 2), "a copy has the same codes"
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_codes_of_earlier_versions_in_one_file_are_read(recipe, tmp_path):
    """Their crops are determined by the indices of the records in the split. Another part makes them useless."""
    with open_dict(recipe):
        recipe.dataset_config.pmd.splits.train = ["pairs/val", "pairs/test"]
    dataset = dataset_of(recipe, views=2, codes=None)
    dataset._set_parts([("all", dataset.records)])
    sha256 = records_sha256(dataset.records)
    dataset.code_parts = lambda folder: [CodePart("pmd-train", "all", dataset.size, sha256)]
    config = codebook_config(recipe)
    codebook = load_codebook(config)
    caching.cache_dataset_codes(dataset, config, codebook, tmp_path, progress=False)
    stored = dataset_of(recipe, views=None, codes=str(tmp_path))
    assert torch.equal(codebook(dataset.codebook_views(200))[1], torch.from_numpy(stored.codes.read(200, 1)))
    assert torch.equal(dataset.codebook_views(200), stored.codebook_views(200))
    result = cache(recipe, tmp_path)
    assert (result.computed, result.bad, [file.name for file in result.files]) == (0, {}, ["pmd-train.codes"])
    with open_dict(recipe):
        recipe.dataset_config.pmd.splits.train = ["pairs/test", "pairs/val"]
    with pytest.raises(UserError, match=r"no completed codes of .*/test were found"):
        dataset_of(recipe, views=None, codes=str(tmp_path))
    assert cache(recipe, tmp_path).computed == 497


@pytest.mark.parametrize(("name", "loss"), [("pmd", "flava_mmm_image"), ("imagenet", "flava_mim")])
def test_losses_equal_those_of_the_running_codebook(recipe, tmp_path, name, loss):
    result = cache(recipe, tmp_path, name)
    assert (result.records, result.views, result.bad, result.computed) == (137, 2, {}, 137)
    running = dataset_of(recipe, name, views=2, codes=None)
    model = model_of(recipe)
    stored = dataset_of(recipe, name, views=None, codes=str(tmp_path))
    without_codebook = model_of(recipe, type="cached", path=None)
    assert without_codebook.codebook is None and stored.views == 2
    for numbers in (range(16), range(5000, 5016)):  # also in a later epoch
        images = running.collate([running[n] for n in numbers])
        codes = stored.collate([stored[n] for n in numbers])
        assert "image_for_codebook" not in codes and codes["image_codes"].shape == (16, 16)
        assert torch.equal(images["image"], codes["image"])
        assert torch.equal(images["image_patch_mask"], codes["image_patch_mask"])
        assert torch.equal(model.codebook(images["image_for_codebook"]), codes["image_codes"])
        expected, actual = model(images)["losses"], without_codebook(codes)["losses"]
        assert loss in {key.rpartition("/")[2] for key in expected}
        assert {key: value.item() for key, value in expected.items()} == {
            key: value.item() for key, value in actual.items()
        }


def test_second_call_computes_nothing_and_other_settings_raise_an_error(recipe, tmp_path):
    cache(recipe, tmp_path, "imagenet", "val")
    assert cache(recipe, tmp_path, "imagenet", "val").computed == 0
    other = load_file(codebook_config(recipe).path)["centroids"].flip(0).contiguous()
    save_file({"centroids": other}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"a different codebook\. Expected codebook\.sha256"):
        cache(
            recipe,
            tmp_path,
            "imagenet",
            "val",
            config=codebook_config(recipe, path=str(tmp_path / "other.safetensors")),
        )


def test_evaluation_splits_have_one_view_of_the_complete_image(recipe, tmp_path):
    assert cache(recipe, tmp_path, "imagenet", "val", views=3).views == 1
    dataset = dataset_of(recipe, "imagenet", "val", codes=str(tmp_path))
    codebook = load_codebook(codebook_config(recipe))
    for n in (0, 5, 136):
        assert torch.equal(codebook(dataset[n]["image_for_codebook"][None])[0], dataset[n]["image_codes"])


def test_changed_data_and_changed_views_raise_an_error(recipe, tmp_path):
    cache(recipe, tmp_path)
    others = tmp_path / "captioned"
    shutil.copytree(f"{recipe.dataset_config.pmd.data_dir}/images/val", others)
    for image in others.rglob("*.png"):
        image.with_suffix(".txt").write_text("a digit")
    params = "processors.image_processor.params"
    for key, value, words in (
        ("views", 3, "a different number of views"),
        ("splits", {"train": ["pairs/test"]}, r"no completed codes of .*/pairs/test were found, or its records"),
        ("splits", {"train": [str(others)]}, r"no completed codes of .*/captioned were found"),
        (f"{params}.crop_scale", [0.5, 1.0], "a different geometry"),
        (f"{params}.codebook_size", 30, "a different geometry"),
    ):
        section = recipe.dataset_config.pmd
        before = OmegaConf.select(section, key)
        with open_dict(recipe):
            OmegaConf.update(section, key, value, merge=False)
        with pytest.raises(UserError, match=words):
            dataset_of(recipe, codes=str(tmp_path))
        with open_dict(recipe):
            OmegaConf.update(section, key, before, merge=False)
    dataset_of(recipe, codes=str(tmp_path))


def test_codes_of_another_codebook_raise_an_error(recipe, tmp_path):
    cache(recipe, tmp_path)
    dataset_of(recipe, codes=str(tmp_path))
    assert build_codebook_of(recipe) is not None
    with pytest.raises(UserError, match="created with another codebook"):
        build_codebook_of(recipe, type="cached", sha256="00")
    with pytest.raises(UserError, match=r"vocab_size is 8192.*64 entries"):
        build_codebook_of(recipe, type="cached", vocab_size=8192)
    other = load_file(codebook_config(recipe).path)["centroids"].flip(0).contiguous()
    save_file({"centroids": other}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="pmd train were created with another codebook"):
        build_codebook_of(recipe, path=str(tmp_path / "other.safetensors"))


def test_codebook_type_cached_needs_codes_for_every_split(recipe, tmp_path):
    cache(recipe, tmp_path)
    for split in ("train", "val"):
        dataset_of(recipe, split=split, codes=str(tmp_path))
    with pytest.raises(UserError, match=r"'pmd' has no cached codes for split val.*cache_codes"):
        build_codebook_of(recipe, type="cached")
    assert build_codebook_of(recipe) is not None


def test_dvae_is_not_loaded_if_all_codes_are_cached(recipe, tmp_path):
    dataset_of(recipe, codes=None)
    dvae = {"type": "dvae", "path": str(tmp_path / "nowhere.safetensors")}
    with pytest.raises(UserError, match="nowhere"):
        build_codebook_of(recipe, **dvae)
    cache(recipe, tmp_path)
    dataset_of(recipe, codes=str(tmp_path))
    assert build_codebook_of(recipe, **dvae) is None


def test_unreadable_image_has_no_codes(recipe, tmp_path, monkeypatch):
    def views(self, index):
        if index == 3:
            raise BadRecord(Reason.NO_IMAGE, "no image")
        return torch.zeros(1, 3, 24, 24)

    monkeypatch.setattr("mmf_flava.data.image_stream.ImageStreamDataset.codebook_views", views)
    assert cache(recipe, tmp_path, "imagenet", "val").bad == {"no image": 1}
    codes = dataset_of(recipe, "imagenet", "val", codes=str(tmp_path)).codes
    assert codes is not None and codes.read(4, 0).shape == (16,)
    with pytest.raises(BadRecord, match="has no codes for record 3"):
        codes.read(3, 0)


def test_command_with_a_bf16_dvae(data, tmp_path):
    """Run the real command, alone and with torchrun: it prints the fraction of changed codes once and writes the codes
    to the data folder."""
    torch.manual_seed(0)
    save_file(DalleEncoder(64, 8, num_groups=3).state_dict(), tmp_path / "model.safetensors")
    codebook = {"type": "dvae", "path": tmp_path, "hidden_size": 8, "num_groups": 3}
    options = [f"model_config.flava.codebook.{key}={value}" for key, value in codebook.items()]
    for name in ("pmd", "imagenet"):  # 4 x 4 codes
        options.append(f"dataset_config.{name}.processors.image_processor.params.codebook_size=16")
    files = {}
    for processes in (1, 2):
        launcher = [SCRIPTS / "torchrun", "--standalone", "--nproc_per_node=2"] if processes == 2 else [sys.executable]
        command = [*launcher, "-m", "mmf_flava.cache_codes", DEMO, f"env.data_dir={data}", *options, "--dataset"]
        command += ["imagenet", "--split", "val", "--dtype", "bf16", "--workers", "0", "--name", f"tiny{processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert process.returncode == 0, process.stderr
        assert process.stdout.count("bf16 channels_last:") == process.stdout.count("of the codes differ") == 1
        assert "137 records (crops per image: 1)" in process.stdout and "computed now, 0 bad" in process.stdout
        assert process.stdout.count(f"dataset_config.imagenet.codes=tiny{processes}") == 1
        folder = resolve_codes_folder(f"tiny{processes}", data / "flava_demo")
        files[processes] = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files[1] == files[2]
    assert re.fullmatch(r"(imagenet-val-[0-9a-f]{16})\.codes \1\.json", " ".join(sorted(files[1])))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "pmdd"], "no dataset 'pmdd'"),
        (["--dataset", "ccnews_bookcorpus"], "has no images"),
        (["--dataset", "pmd", "--batch-size", "0"], "--batch-size"),
        (["--dataset", "pmd", "model_config.flava.codebook.type=cached"], "is 'cached'"),
        (
            ["--dataset", "pmd", "dataset_config.pmd.processors.image_processor.params.codebook_size=20"],
            "codes per image",
        ),
    ],
)
def test_errors_are_one_line_messages(recipe, data, capsys, options, words):
    assert cache_codes.main([DEMO, f"env.data_dir={data}", *options]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("mmf_flava: ") and words in message
