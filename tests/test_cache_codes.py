"""Codes cached by the real command, and training with them: the losses are those of the running codebook, exactly."""

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
from mmf_flava.config.schema import parse
from mmf_flava.data.prepare.demo import build_demo
from mmf_flava.data.codes import NO_CODE, OPENED, codes_folder
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import build_codebook, load_codebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.pretraining import FlavaPretraining
from tests.conftest import DEMO

FEW = {"pmd": "pairs/val", "imagenet": "images/val"}  # 137 records each


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The demo's data; each test that writes codes writes them elsewhere."""
    folder = tmp_path_factory.mktemp("data")
    build_demo(folder / "flava_demo", progress=False)
    return folder


@pytest.fixture
def recipe(data):
    """The demo's recipe on these data, few of them, in MMF's registry as in a run."""
    before = registry.get("config", default=None, no_warning=True)
    registry.unregister(OPENED)  # what other tests of this process have opened
    few = [f"dataset_config.{name}.splits.train=['{path}']" for name, path in FEW.items()]
    yield read_recipe(DEMO, [f"env.data_dir={data}", *few])
    for key in (OPENED, "config"):
        registry.unregister(key)
    if before is not None:
        registry.register("config", before)


def book(recipe, **changes):
    return parse(CodebookConfig, {**recipe.model_config.flava.codebook, **changes}, "model_config.flava.codebook")


def dataset_of(recipe, name="pmd", split="train", **changes):
    with open_dict(recipe):
        for key, value in changes.items():
            recipe.dataset_config[name][key] = value
    return open_dataset(recipe, name, split)


def cached(recipe, folder, name="pmd", split="train", views=2, config=None):
    dataset = dataset_of(recipe, name, split, views=views, codes=None)
    config = config or book(recipe)
    return cache_codes.cache(dataset, config, load_codebook(config), folder, progress=False)


def model_of(recipe, **codebook):
    settings = parse(FlavaConfig, recipe.model_config.flava, "model_config.flava")
    settings.codebook = book(recipe, **codebook)
    torch.manual_seed(0)
    model = FlavaPretraining(OmegaConf.structured(settings))
    model.build()
    model.init_losses()
    return model


@pytest.mark.parametrize(("name", "loss"), [("pmd", "flava_mmm_image"), ("imagenet", "flava_mim")])
def test_losses_equal_those_of_the_running_codebook(recipe, tmp_path, name, loss):
    done = cached(recipe, tmp_path, name)
    assert (done.records, done.views, done.unreadable, done.computed) == (137, 2, 0, 137)
    running = dataset_of(recipe, name, views=2, codes=None)
    model = model_of(recipe)
    stored = dataset_of(recipe, name, views=None, codes=str(tmp_path))
    without = model_of(recipe, type="cached", path=None)
    assert without.codebook is None and stored.views == 2
    for numbers in (range(16), range(5000, 5016)):  # also in a later epoch
        one = running.collate([running[n] for n in numbers])
        other = stored.collate([stored[n] for n in numbers])
        assert "image_for_codebook" not in other and other["image_codes"].shape == (16, 16)
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["image_patch_mask"], other["image_patch_mask"])
        assert torch.equal(model.codebook(one["image_for_codebook"]), other["image_codes"])
        ours, theirs = model(one)["losses"], without(other)["losses"]
        assert loss in {key.rpartition("/")[2] for key in ours}
        assert {key: value.item() for key, value in ours.items()} == {
            key: value.item() for key, value in theirs.items()
        }


def test_a_second_call_computes_nothing_and_other_settings_are_refused(recipe, tmp_path):
    cached(recipe, tmp_path, "imagenet", "val")
    assert cached(recipe, tmp_path, "imagenet", "val").computed == 0
    other = load_file(book(recipe).path)["centroids"].flip(0).contiguous()
    save_file({"centroids": other}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"another codebook: codebook\.sha256"):
        cached(recipe, tmp_path, "imagenet", "val", config=book(recipe, path=str(tmp_path / "other.safetensors")))


def test_outside_training_the_whole_picture_is_cached_and_shown(recipe, tmp_path):
    assert cached(recipe, tmp_path, "imagenet", "val", views=3).views == 1
    dataset = dataset_of(recipe, "imagenet", "val", codes=str(tmp_path))
    codebook = load_codebook(book(recipe))
    for n in (0, 5, 136):
        assert torch.equal(codebook(dataset[n]["image_for_codebook"][None])[0], dataset[n]["image_codes"])


def test_changed_data_and_changed_views_are_refused(recipe, tmp_path):
    cached(recipe, tmp_path)
    params = "processors.image_processor.params"
    for key, value, words in (
        ("views", 3, "another number of views"),
        ("splits", {"train": ["pairs/test"]}, "another number of records"),
        ("splits", {"train": ["images/val"]}, "other records"),
        (f"{params}.crop_scale", [0.5, 1.0], "another geometry"),
        (f"{params}.codebook_size", 30, "another geometry"),
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


def test_codes_and_codebook_must_belong_together(recipe, tmp_path):
    cached(recipe, tmp_path)
    dataset_of(recipe, codes=str(tmp_path))
    assert build_codebook(book(recipe)) is not None
    with pytest.raises(UserError, match="made by another codebook"):
        build_codebook(book(recipe, type="cached", sha256="00"))
    with pytest.raises(UserError, match=r"64 entries.*vocab_size says 8192"):
        build_codebook(book(recipe, type="cached", vocab_size=8192))
    other = load_file(book(recipe).path)["centroids"].flip(0).contiguous()
    save_file({"centroids": other}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="pmd train were made by another codebook"):
        build_codebook(book(recipe, path=str(tmp_path / "other.safetensors")))


def test_cached_codes_must_reach_every_split_or_a_codebook_run(recipe, tmp_path):
    cached(recipe, tmp_path)
    for split in ("train", "val"):
        dataset_of(recipe, split=split, codes=str(tmp_path))
    with pytest.raises(UserError, match=r"'pmd' has no cached codes for its split val.*cache_codes"):
        build_codebook(book(recipe, type="cached"))
    assert build_codebook(book(recipe)) is not None


def test_the_dvae_is_not_even_read_where_all_codes_are_cached(recipe, tmp_path):
    dataset_of(recipe, codes=None)
    dvae = {"type": "dvae", "path": str(tmp_path / "nowhere.safetensors")}
    with pytest.raises(UserError, match="nowhere"):
        build_codebook(book(recipe, **dvae))
    cached(recipe, tmp_path)
    dataset_of(recipe, codes=str(tmp_path))
    assert build_codebook(book(recipe, **dvae)) is None


def test_a_picture_that_cannot_be_read_has_no_codes(recipe, tmp_path, monkeypatch):
    def views(self, index):
        if index == 3:
            raise BadRecord(Reason.NO_IMAGE, "no picture")
        return torch.zeros(1, 3, 24, 24)

    monkeypatch.setattr("mmf_flava.data.image_stream.ImageStreamDataset.codebook_views", views)
    assert cached(recipe, tmp_path, "imagenet", "val").unreadable == 1
    codes = dataset_of(recipe, "imagenet", "val", codes=str(tmp_path)).codes
    assert codes is not None and (codes._codes[3] == NO_CODE).all() and codes.read(4, 0).shape == (16,)


def test_the_share_of_changed_codes(tmp_path):
    torch.manual_seed(0)
    save_file(DalleEncoder(64, 8).state_dict(), tmp_path / "model.safetensors")
    config = CodebookConfig("dvae", str(tmp_path), 64, 8)
    rows = list(cache_codes.measure(config, torch.rand(2, 3, 32, 32)))
    assert [(row.dtype, row.channels_last) for row in rows] == [
        (dtype, layout) for dtype in ("fp32", "bf16", "fp16") for layout in (False, True)
    ]
    assert rows[0].changed == 0 and all(0 <= row.changed < 0.3 and row.seconds > 0 for row in rows)


def test_the_command(data, tmp_path, monkeypatch):
    """The module as a user runs it: a dVAE in bf16, its share of changed codes printed, codes beside the shards."""
    torch.manual_seed(0)
    save_file(DalleEncoder(64, 8, num_groups=3).state_dict(), tmp_path / "model.safetensors")
    codebook = {"type": "dvae", "path": tmp_path, "hidden_size": 8, "num_groups": 3}
    options = [f"model_config.flava.codebook.{key}={value}" for key, value in codebook.items()]
    options.append("dataset_config.imagenet.processors.image_processor.params.codebook_size=16")  # 4 x 4 codes
    command = [sys.executable, "-m", "mmf_flava.cache_codes", DEMO, f"env.data_dir={data}", *options]
    command += ["--dataset", "imagenet", "--split", "val", "--dtype", "bf16", "--workers", "0", "--name", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bf16 channels_last:" in done.stdout and "of the codes change" in done.stdout
    assert "137 records, views 1, 137 computed now, 0 unreadable" in done.stdout
    assert "dataset_config.imagenet.codes=tiny" in done.stdout
    folder = codes_folder("tiny", data / "flava_demo")
    assert sorted(path.name for path in folder.iterdir()) == ["imagenet-val.codes", "imagenet-val.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "pmdd"], "no dataset 'pmdd'"),
        (["--dataset", "ccnews_bookcorpus"], "has no images"),
        (["--dataset", "pmd", "--batch-size", "0"], "--batch-size"),
        (["--dataset", "pmd", "model_config.flava.codebook.type=cached"], "is 'cached'"),
        (
            ["--dataset", "pmd", "dataset_config.pmd.processors.image_processor.params.codebook_size=20"],
            "codes of a view",
        ),
    ],
)
def test_mistakes_end_in_one_sentence(recipe, data, capsys, options, words):
    assert cache_codes.main([DEMO, f"env.data_dir={data}", *options]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("mmf_flava: ") and words in message
