"""Forward passes on fake CUDA tensors: no operation mixes devices, and none makes the host wait for the device.

torch's fake tensors have shapes, dtypes and devices but no values. They need no GPU.
"""

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

import mmf_flava.plugin  # noqa: F401  registers losses and models
from mmf_flava.config.model import LOSSES, ClassificationConfig, LossConfig
from mmf_flava.data.collate import collate
from mmf_flava.models.classification import FlavaClassification
from mmf_flava.models.codebook.build import KMeansCodebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.pretraining import FlavaPretraining
from tests.models.test_pretraining import sample_list

CUDA = torch.device("cuda")
IMAGE_FIELDS = ("image", "image_codes", "image_patch_mask")
TEXT_FIELDS = ("input_ids", "input_ids_masked", "lm_label_ids", "input_mask")


def collated(pairs, fields):
    """The samples of a batch, collated again with their mask counts."""
    samples = [{name: pairs[name][row] for name in fields} for row in range(3)]
    if "is_correct" in fields:
        samples = [{**sample, "is_correct": int(sample["is_correct"])} for sample in samples]
    return collate(samples, "pmd", "train")


def to_fake_cuda(mode, batch):
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            batch[name] = mode.from_tensor(value).to(CUDA)
    return batch


def build_on_fake_cuda(config):
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    config.losses = [LossConfig(name) for name in LOSSES]
    with CUDA:
        model = FlavaPretraining(OmegaConf.structured(config))
        model.build()
        model.init_losses()
    return model.train()


@pytest.mark.parametrize(
    "fields",
    [(*IMAGE_FIELDS, *TEXT_FIELDS, "is_correct"), IMAGE_FIELDS, TEXT_FIELDS],
    ids=["pairs", "images", "texts"],
)
def test_losses_of_each_kind_of_batch_are_on_the_device(tiny, pairs, fields):
    batch = collated(pairs, fields)
    with FakeTensorMode() as mode:
        output = build_on_fake_cuda(tiny)(to_fake_cuda(mode, batch))
        assert output["losses"] and all(loss.device.type == "cuda" for loss in output["losses"].values())


@pytest.mark.parametrize("kind", ["kmeans", "dvae"])
def test_codebooks_are_on_the_device(tiny, pairs, kind):
    batch = collated(pairs, IMAGE_FIELDS)
    del batch["image_codes"]
    with FakeTensorMode() as mode:
        model = build_on_fake_cuda(tiny)
        with CUDA:
            side = 2 if kind == "kmeans" else 8
            grid = round(batch["image_patch_mask"].shape[1] ** 0.5)
            if kind == "kmeans":
                model.codebook = KMeansCodebook.__new__(KMeansCodebook)
                torch.nn.Module.__init__(model.codebook)
                model.codebook.register_buffer("centroids", torch.empty(tiny.codebook.vocab_size, 12))
                model.codebook.patch_size = side
            else:
                model.codebook = DalleEncoder(tiny.codebook.vocab_size, hidden_size=4, num_blocks_per_group=1)
        batch.add_field("image_for_codebook", torch.empty(3, 3, grid * side, grid * side))
        output = model(to_fake_cuda(mode, batch))
        assert (
            output["mim"].labels.device.type == "cuda" and output["mim"].labels.shape == output["mim"].logits.shape[:1]
        )


def test_batch_on_the_wrong_device_raises(tiny, pairs):
    batch = collated(pairs, IMAGE_FIELDS)
    with FakeTensorMode() as mode:
        model = build_on_fake_cuda(tiny)
        batch = to_fake_cuda(mode, batch)
        batch["image_patch_mask"] = mode.from_tensor(torch.ones(3, 4, dtype=torch.bool))
        with pytest.raises(Exception, match="device"):
            model(batch)


def test_batch_without_mask_counts_needs_values(tiny, pairs):
    """Counting the masks in the forward pass makes the host wait, which fake tensors do not support."""
    batch = sample_list("pmd", **{name: pairs[name] for name in IMAGE_FIELDS})
    with FakeTensorMode() as mode:
        model = build_on_fake_cuda(tiny)
        with pytest.raises(Exception, match="local_scalar_dense"):
            model(to_fake_cuda(mode, batch))


def test_classifier_is_on_the_device(tiny, pairs):
    config = ClassificationConfig(
        image_encoder=tiny.image_encoder,
        text_encoder=tiny.text_encoder,
        multimodal_encoder=tiny.multimodal_encoder,
        num_labels=2,
        losses=[{"type": "cross_entropy"}],
    )
    config.multimodal_encoder.mask_padding = False
    batch = sample_list("pmd", image=pairs["image"], input_ids=pairs["input_ids"], input_mask=pairs["input_mask"])
    with FakeTensorMode() as mode:
        with CUDA:
            model = FlavaClassification(OmegaConf.structured(config))
            model.build()
        assert model.represent(to_fake_cuda(mode, batch)).device.type == "cuda"
        assert model.forward(batch)["scores"].device.type == "cuda"
