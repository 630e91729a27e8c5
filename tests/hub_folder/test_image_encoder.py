"""Image encoders exported to timm and to DINO's format: peers and ``image_encoder.pretrained`` load them."""

import json
from dataclasses import asdict

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from mmf_flava.config.dino import DinoConfig, DinoEncoderConfig, DinoHeadConfig
from mmf_flava.config.model import FlavaConfig, ImageEncoderConfig, MultimodalEncoderConfig, TextEncoderConfig
from mmf_flava.convert import convert
from mmf_flava.data.processor_files import to_header
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from mmf_flava.models.dino.network import DinoNetwork
from mmf_flava.models.dino.pretraining import FlavaDino
from mmf_flava.models.flava import Flava
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.weights.configs import CONFIG_KEY, DINO_CONFIG_KEY, config_to_dict
from mmf_flava.weights.encoders import load_image_encoder
from mmf_flava.weights.loading import load_checkpoint_weights
from tests.parity.batches import randomise

SIZE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "mlp_size": 48}
IMAGE = {"image_size": 32, "patch_size": 8}
STATISTICS = SavedProcessors("", mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1))
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def dino_config(norm_last_layer=True):
    head = DinoHeadConfig(hidden_size=12, bottleneck_size=6, out_dim=20, norm_last_layer=norm_last_layer)
    return DinoConfig(image_encoder=DinoEncoderConfig(**SIZE, **IMAGE), head=head)


def write_dino(file, config, processors=STATISTICS):
    """Write the weights of a ``flava_dino`` as a checkpoint has them; return the teacher."""
    torch.manual_seed(1)
    tensors, networks = {"center": torch.randn(1, 20)}, {}
    for name in ("student", "teacher"):
        networks[name] = network = DinoNetwork(config.image_encoder, config.head).eval()
        randomise(network)
        tensors |= {f"{name}.{key}": value.clone() for key, value in network.state_dict().items()}
    save_file(tensors, file, {DINO_CONFIG_KEY: json.dumps(asdict(config)), **to_header(processors)})
    return networks["teacher"]


@pytest.fixture
def run(tmp_path):
    return tmp_path / "dino.safetensors"


def load(source, size=32, **options):
    encoder = ImageEncoder(ImageEncoderConfig(**SIZE | options, image_size=size, patch_size=8, layer_norm_eps=1e-6))
    load_image_encoder(encoder.eval(), source)
    return encoder


@torch.no_grad()
def test_teacher_is_loaded_from_every_format(run, tmp_path):
    teacher = write_dino(run, dino_config())
    expected = teacher.features(PIXELS)
    sources = [run, tmp_path / "vit", tmp_path / "out" / "dino.pth"]
    convert(run, sources[1], "timm")
    convert(run, tmp_path / "out", "dino")
    for source in sources:
        assert torch.allclose(load(source)(PIXELS).cls, expected, atol=1e-5)
        assert load(source, 48).pos_embed.shape == (1, 37, 32)


@torch.no_grad()
def test_timm_loads_the_folder(run, tmp_path):
    teacher = write_dino(run, dino_config())
    lines = convert(run, tmp_path / "vit", "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True).eval()
    assert torch.allclose(model(PIXELS), teacher.features(PIXELS), atol=1e-5)
    assert model.pretrained_cfg["mean"] == pytest.approx([0.5, 0.4, 0.3])
    assert model.pretrained_cfg["std"] == pytest.approx([0.3, 0.2, 0.1])
    assert lines[0].startswith(f"Wrote {tmp_path / 'vit'}: an image encoder with ") and len(lines) == 2


@pytest.mark.parametrize("norm_last_layer", [True, False])
@torch.no_grad()
def test_keys_of_student_and_teacher_are_those_of_the_published_code(run, tmp_path, norm_last_layer):
    teacher = write_dino(run, dino_config(norm_last_layer))
    assert convert(run, tmp_path / "dino.pth", "dino")[0].endswith(
        "tensors of student, teacher and centre, format dino."
    )
    content = torch.load(tmp_path / "dino.pth", weights_only=True)
    assert content.keys() == {"student", "teacher", "dino_loss"} and content["dino_loss"]["center"].shape == (1, 20)
    assert {key.removeprefix("module.") for key in content["student"]} == content["teacher"].keys()
    assert all(key.startswith("module.") for key in content["student"])
    peer = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=1.5, num_classes=0
    )
    prefix = "backbone."
    weights = {key.removeprefix(prefix): value for key, value in content["teacher"].items() if key.startswith(prefix)}
    peer.load_state_dict(weights)
    assert torch.allclose(peer.eval()(PIXELS), teacher.features(PIXELS), atol=1e-5)
    head = torch.nn.Sequential(*[torch.nn.Linear(a, b) for a, b in ((32, 12), (12, 12), (12, 6))])
    for number, layer in enumerate(head):
        layer.load_state_dict({k: content["teacher"][f"head.mlp.{2 * number}.{k}"] for k in ("weight", "bias")})
    last = torch.nn.utils.weight_norm(torch.nn.Linear(6, 20, bias=False))
    last.load_state_dict({k: content["teacher"][f"head.last_layer.{k}"] for k in ("weight_g", "weight_v")})
    hidden = head[2](torch.nn.functional.gelu(head[1](torch.nn.functional.gelu(head[0](peer(PIXELS))))))
    logits = last(torch.nn.functional.normalize(hidden, dim=-1))
    assert torch.allclose(logits, teacher([PIXELS]), atol=1e-5)


def flava_file(file):
    config = FlavaConfig(
        image_encoder=ImageEncoderConfig(**SIZE, **IMAGE),
        text_encoder=TextEncoderConfig(**SIZE, vocab_size=10, max_length=8),
        multimodal_encoder=MultimodalEncoderConfig(**SIZE),
        projection_size=4,
    )
    model = Flava(config).eval()
    randomise(model)
    tensors = {f"flava.{key}": value for key, value in model.state_dict().items()}
    save_file(tensors, file, {CONFIG_KEY: json.dumps(config_to_dict(config))})
    return model


@torch.no_grad()
def test_image_encoder_of_flava_is_exported_to_timm(tmp_path):
    model = flava_file(tmp_path / "flava.safetensors")
    lines = convert(tmp_path / "flava.safetensors", tmp_path / "vit", "timm")
    peer = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True).eval()
    assert torch.allclose(peer(PIXELS), model.image_features(PIXELS), atol=1e-4)
    text = "\n".join(lines)
    for words in ("Left out the mask token", "CLIP's were written", "timm's LayerNorms have eps 1e-06, the image"):
        assert words in text


def test_image_encoder_alone_has_no_dino_format(tmp_path):
    flava_file(tmp_path / "flava.safetensors")
    with pytest.raises(UserError, match="has no student and teacher, which --to dino writes"):
        convert(tmp_path / "flava.safetensors", tmp_path / "dino.pth", "dino")


@pytest.mark.parametrize("source", ["dino", "timm of dino", "flava", "timm of flava"])
def test_another_number_of_heads_is_refused(run, tmp_path, source):
    """The shapes of all tensors are equal."""
    if "dino" in source:
        write_dino(run, dino_config())
    else:
        flava_file(run)
    if source.startswith("timm"):
        convert(run, tmp_path / "vit", "timm")
    with pytest.raises(UserError, match=r"image_encoder\.num_heads is 8, but .* was trained with 4 attention heads"):
        load(tmp_path / "vit" if source.startswith("timm") else run, num_heads=8)


def test_a_checkpoint_with_another_number_of_heads_is_refused(run):
    write_dino(run, dino_config())
    config = dino_config()
    config.image_encoder.num_heads = 2
    model = FlavaDino(OmegaConf.create(asdict(config)))
    model.build()
    words = r"model_config\.flava_dino\.image_encoder\.num_heads is 2, but .* with 4 attention heads\. Set it to 4"
    with pytest.raises(UserError, match=words):
        load_checkpoint_weights(model, run)


@pytest.mark.parametrize("to", ["hf", "mmf_flava"])
def test_other_formats_are_of_flava(run, tmp_path, to):
    write_dino(run, dino_config())
    with pytest.raises(UserError, match="flava_dino"):
        convert(run, tmp_path / "out", to)


def test_existing_folder_is_replaced_only_with_force(run, tmp_path):
    write_dino(run, dino_config())
    convert(run, tmp_path / "vit", "timm")
    with pytest.raises(UserError, match="already exists"):
        convert(run, tmp_path / "vit", "timm")
    convert(run, tmp_path / "vit", "timm", force=True)
