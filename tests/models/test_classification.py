"""Finetuning: the encoder for each kind of batch, the classifier, the losses and the parameter groups."""

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from safetensors.torch import save_file

import mmf_flava.plugin  # noqa: F401  registers the losses
from mmf_flava.config.model import ClassificationConfig, ClassifierConfig, TextEncoderConfig
from mmf_flava.errors import UserError
from mmf_flava.models.classification import FlavaClassification
from mmf_flava.models.flava import Flava
from tests.models.conftest import sample_list


@pytest.fixture
def build(tiny):
    """Return ``build(num_labels=3, ...)``, which builds a classifier with the tiny FLAVA's sizes in eval mode."""

    def build(**settings):
        registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
        shared = {name: getattr(tiny, name) for name in ("image_encoder", "text_encoder", "multimodal_encoder")}
        shared["projection_size"] = tiny.projection_size
        torch.manual_seed(0)
        model = FlavaClassification(OmegaConf.structured(ClassificationConfig(**shared | {"num_labels": 3} | settings)))
        model.build()
        model.init_losses()
        return model.eval()

    return build


def other_core(tiny):
    """Return a core with other weights than those of ``build``."""
    torch.manual_seed(7)
    return Flava(tiny)


def select(pairs, *fields, **others):
    return sample_list("toy", **{name: pairs[name] for name in fields}, **others)


def test_fields_of_a_batch_select_the_encoder(build, pairs):
    model = build(classifier=ClassifierConfig(hidden_size=None))
    image, ids, mask = pairs["image"], pairs["input_ids"], pairs["input_mask"]
    head = model.classifier.layers[-1]
    core = model.flava
    expected = {
        ("image",): core.image_encoder(image).cls,
        ("input_ids", "input_mask"): core.text_encoder(ids, mask).cls,
        ("image", "input_ids", "input_mask"): core.encode_multimodal(image, ids, mask)[:, 0],
    }
    for fields, states in expected.items():
        scores = model(select(pairs, *fields, targets=torch.tensor([0, 1, 2])))["scores"]
        assert scores.shape == (3, 3)
        torch.testing.assert_close(scores, head(states))


def test_unused_encoders_do_not_run(build, pairs):
    model = build()
    model.flava.multimodal_encoder.forward = model.flava.text_encoder.forward = None  # calling them would raise
    assert model(select(pairs, "image", targets=torch.tensor([0, 1, 2])))["scores"].shape == (3, 3)


def test_padding_to_max_length_does_not_change_scores(build, pairs):
    model = build()
    targets = torch.tensor([0, 1, 2])
    short = select(pairs, "image", "input_ids", "input_mask", targets=targets)
    long = select(
        pairs,
        "image",
        input_ids=torch.nn.functional.pad(pairs["input_ids"], (0, 90)),  # more than the encoder has positions for
        input_mask=torch.nn.functional.pad(pairs["input_mask"], (0, 90)).long(),  # the dtype of MMF's bert_tokenizer
        targets=targets,
    )
    torch.testing.assert_close(model(long)["scores"], model(short)["scores"])


@pytest.mark.parametrize(
    ("head", "sizes"), [((None, 2), [(3, 8)]), ((12, 2), [(12, 8), (3, 12)]), ((12, 3), [(12, 8), (12, 12), (3, 12)])]
)
def test_layers_of_the_classifier(build, head, sizes):
    model = build(classifier=ClassifierConfig(*head))
    layers = [layer for layer in model.classifier.layers if isinstance(layer, torch.nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == sizes


@pytest.mark.parametrize(
    ("loss", "labels", "targets"),
    [
        ("cross_entropy", 3, torch.tensor([0, 1, 2])),
        ("logit_bce", 3, torch.tensor([[1.0, 0, 0], [0, 0.3, 0.6], [0, 0, 0]])),
        ("mse", 1, torch.tensor([0.5, 2.0, 5.0])),
        ("mse", 1, torch.tensor([[0.5], [2.0], [5.0]])),
    ],
)
def test_mmf_computes_the_listed_losses(build, pairs, loss, labels, targets):
    model = build(num_labels=labels, losses=[{"type": loss}])
    output = model(select(pairs, "input_ids", "input_mask", targets=targets))
    scores = output["scores"]
    expected = {
        "cross_entropy": lambda: torch.nn.functional.cross_entropy(scores, targets),
        "logit_bce": lambda: torch.nn.functional.binary_cross_entropy_with_logits(scores, targets) * labels,
        "mse": lambda: (scores.flatten() - targets.flatten()).square().mean(),
    }[loss]()
    assert scores.shape == ((3, labels) if labels > 1 else targets.shape)
    torch.testing.assert_close(output["losses"][f"train/toy/{loss}"][0], expected)


def test_positions_of_another_image_size_are_interpolated(build, tiny, tmp_path):
    core = other_core(tiny)
    torch.nn.init.normal_(core.image_encoder.pos_embed)
    save_file({f"flava.{name}": value for name, value in core.state_dict().items()}, tmp_path / "flava.safetensors")
    source = str(tmp_path / "flava.safetensors")
    same = build(pretrained=source).flava.state_dict()
    assert [name for name, value in core.state_dict().items() if not same[name].equal(value)] == []
    tiny.image_encoder.image_size = 8
    larger = build(pretrained=source)
    assert larger.flava.image_encoder.pos_embed.shape == (1, 17, 8)
    assert larger.flava.image_encoder.pos_embed[0, 0].equal(core.image_encoder.pos_embed[0, 0])
    batch = sample_list("toy", image=torch.randn(2, 3, 8, 8), targets=torch.tensor([0, 1]))
    assert larger(batch)["scores"].shape == (2, 3)


def test_single_encoder_is_loaded(build, tiny, tmp_path):
    core = other_core(tiny)
    save_file({f"flava.{name}": value for name, value in core.state_dict().items()}, tmp_path / "flava.safetensors")
    tiny.image_encoder.pretrained = str(tmp_path / "flava.safetensors")
    model = build()
    assert model.flava.image_encoder.blocks[0].attn.qkv.weight.equal(core.image_encoder.blocks[0].attn.qkv.weight)
    assert not model.flava.text_encoder.blocks[0].attn.qkv.weight.equal(core.text_encoder.blocks[0].attn.qkv.weight)


def test_frozen_components_get_no_gradient_and_no_dropout(build, tiny, pairs):
    tiny.text_encoder.dropout = tiny.image_encoder.dropout = 0.5
    model = build(freeze=["text_encoder"]).train()
    assert not model.flava.text_encoder.training and model.flava.image_encoder.training
    model(select(pairs, "image", "input_ids", "input_mask", targets=torch.tensor([0, 1, 2])))["scores"].sum().backward()
    assert all(parameter.grad is None for parameter in model.flava.text_encoder.parameters())
    assert model.flava.image_encoder.patch_embed.proj.weight.grad is not None


def test_parameter_groups_have_learning_rate_and_weight_decay(build):
    model = build(lr_multiplier={"classifier": 10.0, "image_encoder": 0.5}, freeze=["text_encoder"])
    groups = model.get_optimizer_parameters(OmegaConf.create({"optimizer": {"params": {"lr": 0.1}}}))
    rates = {}
    for group in groups:
        for parameter in group["params"]:
            rates[parameter] = (round(group["lr"], 6), group.get("weight_decay"))
    assert len(rates) == sum(parameter.requires_grad for parameter in model.parameters())
    head = model.classifier.layers[0]
    assert (rates[head.weight], rates[head.bias]) == ((1.0, None), (1.0, 0.0))
    assert rates[model.flava.image_encoder.blocks[0].attn.qkv.weight] == (0.05, None)
    assert rates[model.flava.multimodal_encoder.norm.weight] == (0.1, 0.0)


def rates_of(model, **lr_multiplier):
    """Return the learning rate of each parameter by name, for optimizer.params.lr = 1."""
    model.settings.lr_multiplier = lr_multiplier
    names = {parameter: name.removeprefix("flava.") for name, parameter in model.named_parameters()}
    groups = model.get_optimizer_parameters(OmegaConf.create({"optimizer": {"params": {"lr": 1.0}}}))
    assert len(groups) == len({(group["lr"], group.get("weight_decay")) for group in groups})
    return {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}


def test_layer_decay_of_one_encoder_is_that_of_beit(build):
    """Two blocks: embeddings 1/8, first block 1/4, last block 1/2, final LayerNorm and classifier 1."""
    rates = rates_of(build(layer_decay=0.5, freeze=["multimodal_encoder", "text_encoder"]), classifier=10.0)
    expected = {"pos_embed": 0.125, "cls_token": 0.125, "patch_embed.proj.bias": 0.125, "blocks.0.mlp.fc1.weight": 0.25}
    expected |= {"blocks.1.norm1.bias": 0.5, "norm.weight": 1}
    assert {name: rates[f"image_encoder.{name}"] for name in expected} == expected
    assert rates["classifier.layers.0.weight"] == 10 and not any("multimodal" in name for name in rates)


def test_layer_decay_counts_the_multimodal_encoder_above_the_others(build):
    rates = rates_of(build(layer_decay=0.5), text_encoder=2.0)
    expected = {"norm.weight": 1, "blocks.1.norm1.bias": 0.5, "blocks.0.mlp.fc1.weight": 0.25, "cls_token": 0.125}
    assert {name: rates[f"multimodal_encoder.{name}"] for name in expected} == expected
    assert rates["multimodal_encoder.image_projection.weight"] == 0.125
    assert [rates[f"image_encoder.{name}"] for name in expected] == [2**-3, 2**-4, 2**-5, 2**-6]
    assert rates["text_encoder.blocks.1.norm1.bias"] == 2 * 2**-4 and rates["classifier.layers.0.bias"] == 1
    assert rates["text_encoder.word_embeddings.weight"] == 2 * 2**-6


def test_one_sgd_step_with_layer_decay(build, pairs):
    """Every weight moves by lr * decay ** depth * gradient."""
    model = build(layer_decay=0.5, freeze=["multimodal_encoder", "text_encoder"])
    model(select(pairs, "image", targets=torch.tensor([0, 1, 2])))["scores"].square().sum().backward()
    core = model.flava.image_encoder
    depths = {core.pos_embed: 3, core.blocks[0].attn.qkv.weight: 2, core.blocks[1].mlp.fc2.bias: 1, core.norm.weight: 0}
    expected = [weight.detach() - 0.1 * 0.5**depth * weight.grad for weight, depth in depths.items()]
    groups = model.get_optimizer_parameters(OmegaConf.create({"optimizer": {"params": {"lr": 0.1}}}))
    torch.optim.SGD(groups, lr=0.1).step()
    assert all(torch.allclose(weight, value, atol=1e-7) for weight, value in zip(depths, expected, strict=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_labels": 0}, "num_labels: must be at least 1, got 0"),
        ({"freeze": ["image"]}, "freeze: must be one of image_encoder, .*got .'image'."),
        ({"lr_multiplier": {"head": 2.0}}, "'head' is not a key of .*lr_multiplier"),
        ({"losses": [{"type": "cross_entrpy"}]}, "Did you mean 'cross_entropy'"),
        ({"losses": []}, "losses: must be a list of at least one value"),
        ({"classifier": ClassifierConfig(num_layers=0)}, "num_layers: must be at least 1"),
        (
            {"text_encoder": TextEncoderConfig(hidden_size=16, num_heads=2)},
            "hidden_size must be equal in all three encoders, got 8, 16, 8",
        ),
    ],
)
def test_invalid_configuration_raises(build, wrong, message):
    with pytest.raises(UserError, match=message):
        build(**wrong)


def test_unknown_and_missing_keys_raise():
    with pytest.raises(UserError, match=r"'num_label' is not a key .* Did you mean 'num_labels'"):
        FlavaClassification({"num_label": 2})
    with pytest.raises(UserError, match=r"flava_classification\.num_labels must be given"):
        FlavaClassification({})


def test_batch_without_inputs_raises(build):
    with pytest.raises(UserError, match="neither image nor input_ids, only targets"):
        build()(sample_list("toy", targets=torch.tensor([0, 1])))


def test_different_number_of_answers_raises(build, pairs):
    batch = select(pairs, "image", targets=torch.zeros(3, 8))
    with pytest.raises(UserError, match=r"num_labels is 3, but dataset 'toy' has 8 answers\. Set it to 8"):
        build(losses=[{"type": "logit_bce"}])(batch)
