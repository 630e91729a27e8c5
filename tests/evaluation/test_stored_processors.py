"""Weights of a run with a permuted vocabulary and other image statistics, used without naming either.

Each result equals that with all processors named. A loader that is given another vocabulary refuses it.
"""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmf.common.registry import registry
from mmf_cli.run import run as mmf_run
from PIL import Image
from transformers import FlavaForPreTraining, FlavaProcessor

from mmf_flava import Embedder, UserError
from mmf_flava.clip_benchmark import load_flava
from mmf_flava.convert import convert
from mmf_flava.data.processor_files import PROCESSORS_FILE, TOKENIZER_FILE, read_processors
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece, compute_vocabulary_hash, load_tokenizer
from mmf_flava.embed import embed
from mmf_flava.files.checksums import verify_folder

CONFIGS = Path(__file__).parents[2] / "projects" / "flava" / "configs"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (230, 230, 230)}
WORDS = [*COLOURS, "a", "an", "image", "of", "the", "square", "small", "large", "and", "photo"]
MEAN, STD, MAX_LENGTH = [0.2, 0.5, 0.7], [0.1, 0.3, 0.2], 9
SIZE = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "mlp_size": 64}
MODEL = {
    "image_encoder": {**SIZE, "image_size": 24, "patch_size": 6},
    "text_encoder": {**SIZE, "vocab_size": 24, "max_length": 16},
    "multimodal_encoder": SIZE,
    "projection_size": 16,
    "initializer_range": 0.2,
}
WORD_EMBEDDINGS = "flava.text_encoder.word_embeddings.weight"


def write_data(folder):
    """Write 24 images in class folders with captions longer than MAX_LENGTH, and two tokenizers of equal size."""
    rng, lines = np.random.default_rng(0), []
    for n in range(24):
        colour = [*COLOURS][n % 4]
        path = folder / "images" / colour / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.integers(-25, 25, (24, 24, 3)) + np.array(COLOURS[colour]), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        others = " and ".join(rng.choice(WORDS[4:], 4))
        lines.append(
            {"image": f"images/{colour}/{n}.png", "captions": [f"a {colour} {others}", f"the {colour} {others}"]}
        )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, words in (("usual", WORDS), ("permuted", [*reversed(WORDS)])):
        (folder / name).mkdir()
        build_wordpiece([*SPECIAL_TOKENS, *words]).save(str(folder / name / TOKENIZER_FILE))


def run(data, folder, overrides, *options, run_type="test"):
    """Run a recipe in this process and return the folder."""
    for name in ("config", "pmd_image_processor", "pmd_text_processor"):
        registry.unregister(name)  # MMF keeps the processors built first
    for name in ("image_classification_image_processor", "image_classification_text_processor"):
        registry.unregister(name)
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"model": "flava", "run_type": run_type, **overrides}))
    common = [f"config={folder / 'recipe.yaml'}", f"env.save_dir={folder}", "training.num_workers=0"]
    mmf_run([*common, "training.batch_size=8", "training.tensorboard=false", "training.device=cpu", *options])
    return folder


def pairs(data, **params):
    text = {key: value for key, value in params.items() if key in ("tokenizer", "max_length")}
    image = {key: value for key, value in params.items() if key in ("mean", "std")}
    splits = {split: ["pairs.jsonl"] for split in ("train", "val", "test")}
    image |= {"mask": {"target": 4, "min_block": 1}, "codebook_size": None}
    processors = {
        "image_processor": {"type": "flava_image", "params": image},
        "text_processor": {"type": "flava_text", "params": text},
    }
    return {"pmd": {"data_dir": str(data), "splits": splits, "processors": processors}}


def model(*losses):
    return {"flava": {**MODEL, "codebook": {"type": "cached"}, "losses": [{"type": loss} for loss in losses]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def explicit(data):
    """All processors of the run, as parameters."""
    return {"tokenizer": str(data / "permuted"), "max_length": MAX_LENGTH, "mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def trained(data, explicit, tmp_path_factory):
    """The folder of a run of two updates."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = {
        "datasets": "pmd",
        "dataset_config": pairs(data, **explicit),
        "model_config": model("flava_global_contrastive", "flava_itm"),
    }
    folder = tmp_path_factory.mktemp("trained")
    options = ["training.trainer=flava", "training.max_updates=2", "evaluation.losses=false", "training.seed=1"]
    yield run(data, folder, recipe, *options, run_type="train")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bare(trained, tmp_path_factory):
    """The weights file alone."""
    folder = tmp_path_factory.mktemp("bare")
    return Path(shutil.copy(checkpoint(trained) / "model.safetensors", folder))


def checkpoint(folder):
    return folder / "checkpoints" / "update_00000002"


@pytest.fixture(scope="module")
def texts():
    return ["a red square and the small photo of a large image", "an image of the blue square", "white"]


@pytest.fixture(scope="module")
def images(data):
    return sorted(data.glob("images/*/*.png"))[::5]


@pytest.fixture(scope="module")
def expected(bare, explicit, images, texts):
    """Embeddings with all processors named, of weights that state none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is assumed
        options = {key: value for key, value in explicit.items() if key != "tokenizer"}
        embedder = Embedder(bare, explicit["tokenizer"], device="cpu", **options)
    return embedder.images(images), embedder.texts(texts), embedder.pairs(images[: len(texts)], texts)


def test_checkpoints_store_the_processors(trained, data):
    folder = checkpoint(trained)
    verify_folder(folder)
    stored = read_processors(trained)
    tokenizer = load_tokenizer(data / "permuted")
    assert load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
    assert stored.vocabulary_sha256 == compute_vocabulary_hash(tokenizer)
    assert (stored.max_length, stored.image_size) == (MAX_LENGTH, 24)
    assert (stored.mean, stored.std) == (tuple(MEAN), tuple(STD))


def assert_equal(found, expected):
    for embeddings, reference in zip(found, expected, strict=True):
        assert np.abs(embeddings - reference).max() < 1e-6


@pytest.mark.parametrize("form", ["run", "checkpoint", "file", "hf", "mmf_flava"])
def test_embeddings(form, trained, expected, images, texts, tmp_path):
    source = {"run": trained, "checkpoint": checkpoint(trained), "file": checkpoint(trained) / "model.safetensors"}
    if form in ("hf", "mmf_flava"):
        convert(trained, tmp_path / form, form)
        source[form] = tmp_path / form
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        embedder = Embedder(source[form], device="cpu")
    found = embedder.images(images), embedder.texts(texts), embedder.pairs(images[: len(texts)], texts)
    assert_equal(found, expected)


def test_the_assumed_processors_give_other_embeddings(bare, data, expected, images, texts):
    """The assertions above can fail."""
    with pytest.warns(
        UserWarning, match=r"model\.safetensors does not state all .* bert-base-uncased, at most 77 tokens"
    ):
        Embedder(bare, device="cpu")
    with pytest.warns(UserWarning, match="Assumed: at most 77 tokens, CLIP's image mean"):
        embedder = Embedder(bare, data / "usual", device="cpu")
    assert np.abs(embedder.images(images) - expected[0]).max() > 1e-2
    assert np.abs(embedder.texts(texts) - expected[1]).max() > 1e-2


def test_exported_weights_with_hugging_face(trained, expected, images, texts, tmp_path):
    convert(trained, tmp_path / "hf", "hf")
    processor = FlavaProcessor.from_pretrained(tmp_path / "hf")
    core = FlavaForPreTraining.from_pretrained(tmp_path / "hf").eval().flava
    batch = processor(images=[Image.open(path) for path in images], return_tensors="pt")
    tokens = processor.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=MAX_LENGTH)
    with torch.no_grad():
        image = core.image_projection(core.image_model(batch.pixel_values).last_hidden_state[:, 0])
        text = core.text_projection(core.text_model(**tokens).last_hidden_state[:, 0])
    normalised = [torch.nn.functional.normalize(vectors, dim=-1).numpy() for vectors in (image, text)]
    for embeddings, reference in zip(normalised, expected, strict=False):
        assert np.abs(embeddings - reference).max() < 1e-5  # another implementation


def test_embed_command(trained, bare, explicit, data):
    embedder = Embedder(trained, device="cpu")
    (batch,) = embed(embedder, str(data / "pairs.jsonl"), ["image", "text"])
    reference = Embedder(bare, explicit["tokenizer"], "cpu", max_length=MAX_LENGTH, mean=MEAN, std=STD)
    (named,) = embed(reference, str(data / "pairs.jsonl"), ["image", "text"])
    for kind in ("image_vector", "text_vector"):
        assert np.abs(batch[kind] - named[kind]).max() < 1e-6


def test_clip_benchmark(trained, expected, images, texts):
    network, transform, tokenize = load_flava(pretrained=str(trained), device="cpu")
    with torch.no_grad():
        image = network.encode_image(torch.stack([transform(Image.open(path)) for path in images]))
        text = network.encode_text(tokenize(texts))
    assert_equal((image.numpy(), text.numpy()), expected[:2])


def evaluate(data, folder, weights, evaluation, datasets, dataset_config, *options):
    recipe = {
        "datasets": datasets,
        "dataset_config": dataset_config,
        "model_config": model("flava_itm"),
        "evaluation": {"losses": False, **evaluation},
        "checkpoint": {"resume_file": str(weights), "resume_pretrained": True},
    }
    run(data, folder, recipe, "training.trainer=flava", *options)
    return json.loads((folder / "evaluation.json").read_text())


def test_retrieval(trained, bare, explicit, data, tmp_path):
    evaluation = {"retrieval": {"dataset": "pmd", "rerank": 4, "recall_at": [1, 2]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = evaluate(data, tmp_path / "stored", trained, evaluation, "pmd", pairs(data))
        named = evaluate(data, tmp_path / "named", bare, evaluation, "pmd", pairs(data, **explicit))
    assert found["retrieval"] == named["retrieval"]
    with pytest.warns(UserWarning, match="does not state"):
        other = evaluate(data, tmp_path / "other", bare, evaluation, "pmd", pairs(data, tokenizer=str(data / "usual")))
    assert found["retrieval"] != other["retrieval"]


def labelled(data, **params):
    config = pairs(data, **params)["pmd"]
    splits = {split: ["images"] for split in ("train", "test")}
    return {"image_classification": {**config, "splits": splits}}


@pytest.mark.parametrize("task", ["zero_shot", "linear_probe"])
def test_classification(task, trained, bare, explicit, data, tmp_path):
    section = {"dataset": "image_classification"}
    section |= {"templates": ["a photo of the {}"], "classes": sorted(COLOURS)} if task == "zero_shot" else {}
    section |= {} if task == "zero_shot" else {"max_iterations": 5, "lambdas": [1.0, 10.0]}
    results = [
        evaluate(data, tmp_path / name, weights, {task: section}, "image_classification", labelled(data, **params))
        for name, weights, params in (("stored", trained, {}), ("named", bare, explicit))
    ]
    assert results[0][task] == results[1][task]


def test_recipe_with_another_vocabulary_is_refused(trained, data, tmp_path):
    evaluation = {"retrieval": {"dataset": "pmd"}}
    config = pairs(data, tokenizer=str(data / "usual"))
    message = (
        r"tokenizer .*usual: the vocabulary differs from the vocabulary that .* was trained with .* "
        r"checkpoint\.allow_missing"
    )
    with pytest.raises(UserError, match=message):
        evaluate(data, tmp_path / "refused", trained, evaluation, "pmd", config)
    missing = f"checkpoint.allow_missing=[{WORD_EMBEDDINGS}]"
    evaluate(data, tmp_path / "accepted", trained, evaluation, "pmd", config, missing)


def test_other_image_statistics_in_a_recipe_give_a_warning(trained, data, tmp_path):
    config = pairs(data, mean=[0.5, 0.5, 0.5])
    with pytest.warns(
        UserWarning, match=r"mean is set to \[0\.5, 0\.5, 0\.5\], but .* was trained with mean \[0\.2, 0\.5"
    ):
        evaluate(data, tmp_path / "run", trained, {"retrieval": {"dataset": "pmd"}}, "pmd", config)


def test_weights_without_processors_load_with_one_warning(bare, data, tmp_path):
    config = pairs(data, tokenizer=str(data / "permuted"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(data, tmp_path / "run", bare, {"retrieval": {"dataset": "pmd"}}, "pmd", config)
    found = [str(warning.message) for warning in caught if "does not state" in str(warning.message)]
    assert len(found) == 1 and "Assumed: at most 77 tokens, CLIP's image mean [0.48145466" in found[0]


def test_resumed_run_keeps_its_vocabulary(trained, data, explicit, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    recipe = {
        "datasets": "pmd",
        "dataset_config": pairs(data, **{**explicit, "tokenizer": str(data / "usual")}),
        "model_config": model("flava_global_contrastive", "flava_itm"),
    }
    options = ["training.trainer=flava", "training.max_updates=3", "evaluation.losses=false", "checkpoint.resume=true"]
    with pytest.raises(UserError, match="the vocabulary differs"):
        run(data, tmp_path / "run", recipe, *options, run_type="train")
    recipe["dataset_config"] = pairs(data)
    resumed = run(data, tmp_path / "run", recipe, *options, run_type="train")
    names = (PROCESSORS_FILE, TOKENIZER_FILE)
    for name in names:
        assert (resumed / "checkpoints" / "update_00000003" / name).read_bytes() == (
            checkpoint(trained) / name
        ).read_bytes()


def test_cached_features_are_those_of_the_image_statistics(bare, data, tmp_path):
    """The weights state no statistics; stating them later must not give the features of the assumed ones."""
    section = {"linear_probe": {"dataset": "image_classification", "max_iterations": 5, "lambdas": [1.0, 10.0]}}
    (tmp_path / "weights").mkdir()
    weights = shutil.copy(bare, tmp_path / "weights")
    cache, config = f"evaluation.features_dir={tmp_path / 'cache'}", labelled(data, tokenizer=str(data / "permuted"))
    with pytest.warns(UserWarning, match="does not state"):
        evaluate(data, tmp_path / "run", weights, section, "image_classification", config, cache)
    before = {*(tmp_path / "cache").iterdir()}
    stated = {"image_mean": MEAN, "image_std": STD, "size": 24}
    (tmp_path / "weights" / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.warns(UserWarning, match="Assumed: at most 77 tokens[.]"):
        evaluate(data, tmp_path / "run", weights, section, "image_classification", config, cache)
    assert len({*(tmp_path / "cache").iterdir()} - before) == len(before) > 0


def test_old_checkpoint_refuses_another_vocabulary(trained, data, tmp_path):
    """It stored the vocabulary's hash in state.json."""
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(checkpoint(trained) / "model.safetensors", folder)
    recorded = {"vocabularies": {"pmd": read_processors(trained).vocabulary_sha256}}
    (folder / "state.json").write_text(json.dumps(recorded))
    with pytest.warns(UserWarning, match="does not state"), pytest.raises(UserError, match="the vocabulary differs"):
        Embedder(folder, data / "usual", device="cpu")
    with pytest.warns(UserWarning, match="does not state"):
        Embedder(folder, data / "permuted", device="cpu")
