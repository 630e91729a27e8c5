"""The analytical FLOP count equals torch's count of the executed operations."""

from dataclasses import asdict

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mmf_flava.plugin  # noqa: F401  (registers the losses)
from mmf_flava.config.model import FlavaConfig, LossConfig
from mmf_flava.models.flops import batch_flops
from mmf_flava.models.pretraining import FlavaPretraining
from tests.models.conftest import sample_list

ALL = [loss.type for loss in FlavaConfig().losses]


def build(config: FlavaConfig) -> FlavaPretraining:
    model = FlavaPretraining(asdict(config))
    model.build()
    model.init_losses()
    return model


def torch_counts(model: FlavaPretraining, batch) -> int:
    """Return torch's count of the forward and backward pass; the math backend recomputes nothing."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        sum(loss.mean() for loss in model(batch)["losses"].values()).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "losses", [ALL, ["flava_global_contrastive"], ["flava_mmm_text"], ["flava_itm"], ["flava_mmm_image", "flava_itm"]]
)
def test_flops_of_pairs_equal_torch_count(tiny, pairs, losses) -> None:
    tiny.losses = [LossConfig(name) for name in losses]
    model = build(tiny)
    assert batch_flops(tiny, model.needs, pairs) == torch_counts(model, pairs)


def test_flops_of_images_and_texts_equal_torch_count(tiny, pairs) -> None:
    model = build(tiny)
    for names in (("image", "image_codes", "image_patch_mask"), ("input_ids_masked", "lm_label_ids", "input_mask")):
        batch = sample_list("one", **{name: pairs[name] for name in names})
        assert batch_flops(tiny, model.needs, batch) == torch_counts(model, batch) > 0


def test_batch_without_a_loss_has_no_flops(tiny, pairs) -> None:
    tiny.losses = [LossConfig("flava_mim")]
    assert batch_flops(tiny, build(tiny).needs, pairs) == 0
