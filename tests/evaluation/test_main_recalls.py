"""Recall@k equals that of the retrieval metrics of MMF's main branch."""

import pytest
import torch
from mmf.common.registry import registry
from torch.nn.functional import normalize

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.evaluation.retrieval import retrieve
from tests.evaluation.test_retrieval import toy
from tests.evaluation.toys import extractor
from tests.mmf_versions import needs_main


@needs_main
@pytest.mark.parametrize(
    ("flava_name", "mmf_name"), [("image_to_text_r{}", "r@{}_retrieval"), ("text_to_image_r{}", "r@{}_rev_retrieval")]
)
def test_recalls_agree_where_each_image_has_one_caption(flava_name, mmf_name):
    """Twenty pairs; a caption's embedding is that of its image plus noise, so that recall is between 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(20, 4, generator=generator), dim=-1)
    texts = normalize(images + 0.4 * torch.randn(20, 4, generator=generator), dim=-1)
    embeddings = {f"text {n}": embedding for n, embedding in enumerate(texts.tolist())}
    model, data = toy(images.tolist(), [[name] for name in embeddings], embeddings)
    result = retrieve(model, data, RetrievalConfig(recall_at=[1, 5]), extractor())
    for k in (1, 5):
        recall = registry.get_metric_class(mmf_name.format(k))()
        expected = recall({}, {"scores": images, "targets": texts}).item()
        assert result[flava_name.format(k)] == pytest.approx(expected)
    assert 0 < result[flava_name.format(1)] < result[flava_name.format(5)]
