"""CLIP_benchmark measures our model as we do."""

import sys

import pytest
import torch
from PIL import Image

from mmf_flava import Embedder
from mmf_flava import clip_benchmark as ours
from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.evaluation.zero_shot import classify
from tests.evaluation.test_embedder import weights  # noqa: F401
from tests.evaluation.toys import Vectors, extraction

pytest.importorskip("clip_benchmark", reason="pip install clip-benchmark")

CLASSES, TEMPLATES = ["word1", "word2 word3", "word4"], ["word7 {c}", "{c} word8 word9"]
IMAGES = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = [n % 3 for n in range(24)]


class Labelled(torch.utils.data.TensorDataset):
    classes = CLASSES  # CLIP_benchmark counts them


def test_same_accuracy(weights):  # noqa: F811
    from clip_benchmark.metrics import zeroshot_classification
    from clip_benchmark.models import load_clip

    ours.register()
    model, _, tokenizer = load_clip("flava", "flava", str(weights), None, "cpu")
    loader = torch.utils.data.DataLoader(Labelled(IMAGES, torch.tensor(TARGETS)), batch_size=5)
    theirs = zeroshot_classification.evaluate(model, loader, tokenizer, CLASSES, TEMPLATES, "cpu", amp=False)
    embedder = Embedder(weights)
    data = Vectors(IMAGES.tolist(), TARGETS, text_processor=embedder.text_processor)
    config = ZeroShotConfig("toy", CLASSES, [template.replace("{c}", "{}") for template in TEMPLATES])
    result = classify(embedder.model, data, config, extraction())
    assert theirs["acc1"] == pytest.approx(result.accuracy)
    assert theirs["mean_per_class_recall"] == pytest.approx(result.summary()["mean_per_class"])


def test_its_transform_is_our_view(weights):  # noqa: F811
    ours.register()
    _, transform, _ = ours.load_flava(pretrained=str(weights))
    picture = Image.linear_gradient("L").resize((50, 40))
    assert torch.equal(transform(picture), Embedder(weights).pixels(picture))


def test_its_command_line_takes_the_model_type(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval", "--help"])
    with pytest.raises(SystemExit):
        ours.main()
    assert "flava" in capsys.readouterr().out
