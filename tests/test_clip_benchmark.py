"""CLIP_benchmark's results for FLAVA equal those of this package."""

import io
import pickle
import sys

import pytest
import torch
from PIL import Image

from mmf_flava import Embedder
from mmf_flava import clip_benchmark as flava_benchmark
from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.evaluation.zero_shot import classify
from tests.evaluation.test_embedder import weights  # noqa: F401
from tests.evaluation.toys import ToyDataset, extractor
from tests.files.hostile_pickles import Canary

pytest.importorskip("clip_benchmark", reason="pip install clip-benchmark")

CLASSES, TEMPLATES = ["word1", "word2 word3", "word4"], ["word7 {c}", "{c} word8 word9"]
IMAGES = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = [n % 3 for n in range(24)]


class LabelledDataset(torch.utils.data.TensorDataset):
    classes = CLASSES  # used by CLIP_benchmark


def test_accuracies_are_equal(weights):  # noqa: F811
    from clip_benchmark.metrics import zeroshot_classification
    from clip_benchmark.models import load_clip

    flava_benchmark.register()
    model, _, tokenizer = load_clip("flava", "flava", str(weights), None, "cpu")
    loader = torch.utils.data.DataLoader(LabelledDataset(IMAGES, torch.tensor(TARGETS)), batch_size=5)
    expected = zeroshot_classification.evaluate(model, loader, tokenizer, CLASSES, TEMPLATES, "cpu", amp=False)
    embedder = Embedder(weights)
    data = ToyDataset(IMAGES.tolist(), TARGETS, text_processor=embedder.text_processor)
    config = ZeroShotConfig("toy", CLASSES, [template.replace("{c}", "{}") for template in TEMPLATES])
    result = classify(embedder.model, data, config, extractor())
    assert expected["acc1"] == pytest.approx(result.accuracy)
    assert expected["mean_per_class_recall"] == pytest.approx(result.summary()["mean_per_class"])


def test_transform_equals_preprocess(weights):  # noqa: F811
    flava_benchmark.register()
    _, transform, _ = flava_benchmark.load_flava(pretrained=str(weights))
    image = Image.linear_gradient("L").resize((50, 40))
    assert torch.equal(transform(image), Embedder(weights).preprocess(image))


def test_command_line_has_the_model_type(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval", "--help"])
    with pytest.raises(SystemExit):
        flava_benchmark.main()
    assert "flava" in capsys.readouterr().out


def test_code_in_shards_is_not_executed(tmp_path):
    from webdataset import autodecode

    flava_benchmark.register()
    decode = autodecode.basichandlers
    assert decode(".pyd", pickle.dumps({"a": [1]})) == {"a": [1]}
    buffer = io.BytesIO()
    torch.save({"x": torch.ones(2)}, buffer)
    assert decode(".pth", buffer.getvalue())["x"].tolist() == [1, 1]
    for extension in (".pyd", ".pkl", ".pickle"):
        with pytest.raises(ValueError, match=r"an object of posix\.mkdir"):
            decode(extension, pickle.dumps(Canary(tmp_path / "mark")))
    torch.save(Canary(tmp_path / "mark"), buffer := io.BytesIO())
    with pytest.raises(pickle.UnpicklingError):
        decode(".pth", buffer.getvalue())
    assert not (tmp_path / "mark").exists()
