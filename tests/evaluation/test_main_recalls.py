"""MMF's metrics of retrieval, which its main branch has, and our retrieval find the same."""

import pytest
import torch
from mmf.common.registry import registry
from torch.nn.functional import normalize

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.evaluation.retrieval import retrieve
from tests.evaluation.test_retrieval import toy
from tests.evaluation.toys import extraction
from tests.lines import needs_main


@needs_main
@pytest.mark.parametrize(
    ("ours", "theirs"), [("image_to_text_r{}", "r@{}_retrieval"), ("text_to_image_r{}", "r@{}_rev_retrieval")]
)
def test_recalls_agree_where_each_image_has_one_caption(ours, theirs):
    """Twenty pairs whose caption is the image's vector, blurred so that some are found first and some are not."""
    random = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(20, 4, generator=random), dim=-1)
    texts = normalize(images + 0.4 * torch.randn(20, 4, generator=random), dim=-1)
    named = {f"text {n}": vector for n, vector in enumerate(texts.tolist())}
    model, data = toy(images.tolist(), [[name] for name in named], named)
    found = retrieve(model, data, RetrievalConfig(recall_at=[1, 5]), extraction())
    for k in (1, 5):
        recall = registry.get_metric_class(theirs.format(k))()
        expected = recall({}, {"scores": images, "targets": texts}).item()
        assert found[ours.format(k)] == pytest.approx(expected)
    assert 0 < found[ours.format(1)] < found[ours.format(5)]
