"""Zero-shot classification of the same weights by ours and by Hugging Face's model: equal logits."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import FlavaForPreTraining

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.evaluation.zero_shot import classify, text_classifier
from tests.evaluation.test_embedder import weights  # noqa: F401
from tests.evaluation.toys import CPU, Vectors, extraction

CONFIG = ZeroShotConfig("toy", ["word1", "word2 word3", "word4"], ["word7 {}", "{} word8 word9", "word10 {} word11"])
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logits(weights):  # noqa: F811
    """(images, classes) by Hugging Face: prompts normalised, their mean normalised, times 100."""
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
    data = Vectors(IMAGES.tolist(), [0, 1, 2, 0, 1], text_processor=embedder.text_processor)
    classifier = text_classifier(embedder.model, embedder.text_processor, CONFIG, CPU)
    vectors = torch.from_numpy(extraction().whole(embedder.model, data, "contrastive").vectors)
    ours = 100 * vectors @ classifier.T
    assert (ours - logits).abs().max() < 1e-5 * logits.abs().max()
    result = classify(embedder.model, data, CONFIG, extraction())
    assert np.array_equal(result.predictions, logits.argmax(1))
