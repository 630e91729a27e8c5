"""Zero-shot classification with the same weights here and in Hugging Face's model: equal logits."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import FlavaForPreTraining

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.evaluation.zero_shot import build_classifier, classify
from tests.evaluation.test_embedder import weights  # noqa: F401
from tests.evaluation.toys import ToyDataset, extractor

CONFIG = ZeroShotConfig("toy", ["word1", "word2 word3", "word4"], ["word7 {}", "{} word8 word9", "word10 {} word11"])
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logits(weights):  # noqa: F811
    """Return Hugging Face's logits, (images, classes), with normalised means of the normalised prompts."""
    core = FlavaForPreTraining.from_pretrained(weights).eval().flava
    processor = Embedder(weights).text_processor
    classes = []
    with torch.no_grad():
        for name in CONFIG.classes:
            ids, mask = processor.encode([template.format(name) for template in CONFIG.templates])
            states = core.text_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            classes.append(normalize(core.text_projection(states[:, 0]), dim=-1).mean(0))
        states = core.image_model(IMAGES).last_hidden_state
        images = normalize(core.image_projection(states[:, 0]), dim=-1)
    return 100 * images @ normalize(torch.stack(classes), dim=-1).T


def test_logits_and_predictions_equal(weights, logits):  # noqa: F811
    embedder = Embedder(weights)
    data = ToyDataset(IMAGES.tolist(), [0, 1, 2, 0, 1], text_processor=embedder.text_processor)
    classifier = build_classifier(embedder.model, embedder.text_processor, CONFIG, extractor())
    embeddings = torch.from_numpy(extractor().extract(embedder.model, data, "contrastive").embeddings)
    actual = 100 * embeddings @ classifier.T
    assert (actual - logits).abs().max() < 1e-5 * logits.abs().max()
    result = classify(embedder.model, data, CONFIG, extractor())
    assert np.array_equal(result.predictions, logits.argmax(1))
