"""The same image gives the same embedding through every entry point, with exactly the pixels of Hugging Face."""

import io
import json

import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images

from mmf_flava import Embedder, UserError
from mmf_flava.clip_benchmark import load_flava
from mmf_flava.data import image_classification, imagenet, karpathy  # noqa: F401 (they register)
from mmf_flava.data.image_decoding import load_image
from mmf_flava.data.processors import FlavaImageProcessor
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.unmasked import FlavaImageTransform
from mmf_flava.embed import embed
from tests.data.conftest import DATASETS
from tests.evaluation.test_embedder import weights  # noqa: F401

try:
    from transformers.models.flava.image_processing_pil_flava import FlavaImageProcessorPil
except ImportError:  # before transformers 5
    from transformers import FlavaImageProcessor as FlavaImageProcessorPil

# both sides above 546 pixels: such JPEGs are decoded at reduced size in training
SIZES = [(32, 32), (33, 700), (224, 224), (547, 548), (640, 480), (1000, 1400), (2600, 600), (120, 4000)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Crops of photographs as JPEGs in two class folders, in path order."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        photo = Image.fromarray(load_sample_images().images[number % 2])
        left, top = rng.integers(0, 300), rng.integers(0, 200)
        path = folder / f"{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        photo.crop((left, top, left + 320, top + 200)).resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
    return folder


@pytest.fixture(scope="module")
def paths(photos):
    return sorted(photos.glob("*/*.jpg"))


@pytest.fixture(scope="module")
def embedder(weights):  # noqa: F811
    return Embedder(weights, batch_size=3)


@pytest.fixture(scope="module")
def expected(embedder, paths):
    return embedder.images(paths)


def test_evaluation_view_equals_hugging_face(paths):
    """The uint8 pixels are identical; the normalised view differs by rounding only."""
    processor = FlavaImageProcessor({"codebook_size": None, "mask": None})
    transform = FlavaImageTransform({})
    uint8, floats = FlavaImageProcessorPil(do_rescale=False, do_normalize=False), FlavaImageProcessorPil()
    for path in paths:
        item = {"image": load_image(path), "rng": np.random.default_rng(0), "train": False}
        view = processor(item)["image"]
        theirs = uint8(Image.open(path), return_tensors="np")["pixel_values"][0]
        assert theirs.dtype == np.uint8
        assert np.array_equal(processor.pixels(view), theirs.transpose(1, 2, 0))
        normalised = torch.from_numpy(floats(Image.open(path), return_tensors="np")["pixel_values"][0])
        assert (view - normalised).abs().max() < 1e-6
        assert (transform(Image.open(path)) - normalised).abs().max() < 1e-6


def test_all_inputs_of_the_embedder_give_the_same_embeddings(embedder, paths, expected):
    contents = [path.read_bytes() for path in paths]
    opened = [Image.open(io.BytesIO(content)) for content in contents]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    for images in (
        list(map(str, paths)),
        contents,
        opened,
        arrays,
        [array.astype(np.uint16) * 257 for array in arrays],
    ):
        assert np.abs(embedder.images(images) - expected).max() < 1e-6
    texts = ["word1"] * len(paths)
    assert np.abs(embedder.pairs(opened, texts) - embedder.pairs(paths, texts)).max() < 1e-6


def test_folders_lists_and_shards_give_the_same_embeddings(embedder, photos, paths, expected, tmp_path):
    names = [str(path.relative_to(photos)) for path in paths]
    rows = [{"image": name, "caption": f"word{n}", "label": "red"} for n, name in enumerate(names)]
    (photos / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ShardWriter(tmp_path / "a.tar") as shard:
        for number, path in enumerate(paths):
            shard.write(str(number), {"jfif": path.read_bytes(), "json": json.dumps(rows[number]).encode()})
    texts = embedder.texts([row["caption"] for row in rows])
    for source in (photos, photos / "list.jsonl", tmp_path / "a.tar"):
        batches = list(embed(embedder, str(source)))
        assert np.abs(np.concatenate([batch["image_vector"] for batch in batches]) - expected).max() < 1e-6
        if source != photos:
            assert np.abs(np.concatenate([batch["text_vector"] for batch in batches]) - texts).max() < 1e-6
    (photos / "list.jsonl").unlink()


@pytest.mark.parametrize("name", ["image_classification", "imagenet", "karpathy"])
def test_evaluation_datasets_give_the_same_embeddings(name, embedder, photos, paths, expected, tmp_path, monkeypatch):
    defaults = OmegaConf.load(DATASETS / f"{name}.yaml")
    image = {"params": {"image_size": 32, "patch_size": 8, "codebook_size": None, "mask": None}}
    section = {
        "data_dir": str(photos.parent),
        "splits": {"test": [str(photos)]},
        "processors": {"image_processor": image},
    }
    if name == "karpathy":
        entries = [
            {"filename": path.name, "filepath": path.parent.name, "split": "test", "sentences": [{"raw": "x"}]}
            for path in paths
        ]
        (tmp_path / "split.json").write_text(json.dumps({"images": entries}))
        section |= {"splits": {"test": str(tmp_path / "split.json")}, "image_dir": str(photos)}
    config = OmegaConf.merge(defaults, {"dataset_config": {name: section}}).dataset_config[name]
    config.processors.text_processor = None
    registry.unregister(f"{name}_image_processor")
    builder = registry.get_builder_class(name)()
    monkeypatch.setattr(builder.CONFIG, "REQUIRED", ("image_processor",))
    dataset = builder.load(config, "test")
    dataset.init_processors()
    found = embedder.embed_image_batch(torch.stack([dataset[n]["image"] for n in range(len(dataset))]))
    assert np.abs(found - expected).max() < 1e-6


def test_clip_benchmark_gives_the_same_embeddings(weights, paths, expected):  # noqa: F811
    model, transform, _tokenize = load_flava(pretrained=weights)
    with torch.no_grad():
        found = model.encode_image(torch.stack([transform(Image.open(path)) for path in paths]))
    assert np.abs(found.numpy() - expected).max() < 1e-6


def test_one_item_gives_one_embedding(embedder, paths, expected):
    image = Image.open(paths[0])
    for one in (paths[0], str(paths[0]), paths[0].read_bytes(), image, np.asarray(image), np.asarray(image)[:, :, 0]):
        assert embedder.images(one).shape == (1, 24)
    assert np.abs(embedder.images(paths[0]) - expected[:1]).max() < 1e-6
    assert embedder.images(np.stack([np.asarray(image)] * 2)).shape == (2, 24)
    assert np.array_equal(embedder.texts("word1 word2"), embedder.texts(["word1 word2"]))
    assert np.array_equal(embedder.texts("word1 \ud83d"), embedder.texts(["word1"]))
    assert np.array_equal(embedder.pairs(paths[0], "word1"), embedder.pairs([paths[0]], ["word1"]))
    assert embedder.texts(f"word{n}" for n in range(5)).shape == (5, 24)


@pytest.mark.parametrize("texts", [None, 3, b"word1", {"a": "b"}, ["word1", None], [["word1"]], [b"word1"], [1.5]])
def test_other_texts_raise(embedder, texts):
    with pytest.raises(UserError, match=r"^texts(\[\d\])?: expected a string"):
        embedder.texts(texts)


def test_other_images_raise(embedder, paths):
    with pytest.raises(UserError, match=r"^images\[1\]: image: .*got a tensor of shape \(3, 8, 8\) and float32"):
        embedder.images([paths[0], torch.zeros(3, 8, 8)])
    for images in (torch.zeros(2, 3, 8, 8), None, {"a": paths[0]}, open(paths[0], "rb")):  # noqa: SIM115
        with pytest.raises(UserError, match=r"^images\[0\]: image: expected"):
            embedder.images(images)
    for images, texts in ((paths, ["word1"]), (paths[0], ["word1", "word2"])):
        with pytest.raises(UserError, match="numbers of images and texts differ"):
            embedder.pairs(images, texts)


def test_lines_of_text_files_end_at_newlines_only(embedder, tmp_path):
    lines = ["a dog", "first\u2028second", "form\x0cfeed", "next\x85line", "last"]
    (tmp_path / "a.TXT").write_bytes("\r\n".join(lines).encode())
    batches = list(embed(embedder, str(tmp_path / "a.TXT")))
    assert [name for batch in batches for name in batch["id"]] == [f"line {n}" for n in range(1, 6)]
    assert [text for batch in batches for text in batch["text"]] == lines
