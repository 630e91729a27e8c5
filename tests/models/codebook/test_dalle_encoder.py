"""The dVAE's encoder: equal to Hugging Face's, loaded from all formats, and frozen."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.config.model import CodebookConfig
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import build_codebook, changed_fraction, load_codebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.codebook.weights import extract_codebook, find_codebook_file

SIZES = {"vocab_size": 64, "hidden_size": 8}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return DalleEncoder(**SIZES)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def config(path, **changes):
    return CodebookConfig(**{"type": "dvae", "path": None if path is None else str(path), **SIZES, **changes})


def dall_e_key(key):
    """Return the key of a parameter in OpenAI's and torchmultimodal's files."""
    key = key.replace(".group.", ".").replace("res_path.path.", "res_path.")
    return key.replace(".weight", ".w").replace(".bias", ".b")


def test_codes_equal_those_of_hugging_face(encoder, images):
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

    peer = FlavaImageCodebook(FlavaImageCodebookConfig(hidden_size=8, vocab_size=64))
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.2)
    encoder.load_state_dict(peer.state_dict())  # all names are equal
    codes = encoder(images)
    assert codes.shape == (2, 16) and len(codes.unique()) > 4
    mask = torch.arange(32).view(2, 16) % 3 == 1
    assert torch.equal(encoder.codes_at(images, mask, mask.sum(dim=1).tolist()), codes[mask])
    # Hugging Face's image processor maps the pixels
    assert torch.equal(codes, peer.get_codebook_indices(0.8 * images + 0.1).flatten(1))


def test_number_of_parameters_equals_the_released_model():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DalleEncoder().parameters()) == 53_786_240


def test_encoder_is_frozen_and_keeps_its_dtype(encoder, images):
    codes = encoder(images)
    model = torch.nn.ModuleDict({"codebook": encoder}).train()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not encoder.training and not encoder.blocks.input.training
    model.half()
    assert encoder.dtype == torch.float32 and torch.equal(encoder(images), codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(images.requires_grad_()), codes)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_half_precision_keeps_the_last_layer_in_fp32(encoder, images, dtype, tmp_path):
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    other = load_codebook(config(tmp_path, dtype=dtype, channels_last=True))
    assert other.blocks.input.weight.is_contiguous(memory_format=torch.channels_last)
    assert other.blocks.output.conv.weight.dtype == torch.float32
    assert other.logits(images).dtype == torch.float32
    fraction = changed_fraction(other, encoder, images)
    assert fraction == 0 if dtype == "fp32" else fraction < 0.3


FORMATS = {
    "Hugging Face's codebook": lambda key: key,
    "OpenAI": dall_e_key,
    "a full checkpoint": lambda key: f"image_codebook.{key}",
    "torchmultimodal": lambda key: f"image_codebook.encoder.{dall_e_key(key)}",
    "mmf_flava": lambda key: f"codebook.{key}",
}


@pytest.mark.parametrize(
    ("source", "suffix"),
    [*((source, ".safetensors") for source in FORMATS), ("OpenAI", ".pkl"), ("torchmultimodal", ".pt")],
)
def test_all_formats_give_the_same_codebook(encoder, images, tmp_path, source, suffix):
    tensors = {FORMATS[source](key): value for key, value in encoder.state_dict().items()}
    tensors["flava.image_model.embeddings.cls_token"] = torch.zeros(1)
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    codebook = build_codebook(config(path))
    assert torch.equal(codebook(images), encoder(images))
    save_file(encoder.state_dict(), tmp_path / "plain.safetensors")
    assert codebook.sha256 == build_codebook(config(tmp_path / "plain.safetensors")).sha256


def test_folder_and_hub_name_are_found(encoder, tmp_path, monkeypatch):
    torch.save(encoder.state_dict(), tmp_path / "encoder.pkl")
    assert find_codebook_file(str(tmp_path)) == tmp_path / "encoder.pkl"
    sources = []
    monkeypatch.setattr(
        "mmf_flava.models.codebook.weights.find_weights",
        lambda source: sources.append(source) or tmp_path / "x.bin",
    )
    torch.save(encoder.state_dict(), tmp_path / "x.bin")
    assert build_codebook(config("facebook/flava-image-codebook")) is not None
    assert sources == ["facebook/flava-image-codebook"]


def test_invalid_configuration_raises(encoder, tmp_path):
    with pytest.raises(UserError, match=r"codebook.path.*facebook/flava-image-codebook.*encoder\.pkl"):
        build_codebook(config(None))
    with pytest.raises(UserError, match=r"codebook\.path.*nowhere"):
        build_codebook(config(tmp_path / "nowhere.safetensors"))
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="has no image codebook"):
        build_codebook(config(tmp_path / "x.safetensors"))
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"blocks\.output\.conv\.bias: \(64,\), expected \(32,\)"):
        build_codebook(config(tmp_path, vocab_size=32))
    with pytest.raises(UserError, match="sha256 is 00"):
        build_codebook(config(tmp_path, sha256="00"))


def test_pickled_code_in_a_torch_file_raises(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "executed").mkdir, ()

    for name in ("x.pt", "x.bin"):
        torch.save({"blocks.input.weight": torch.zeros(1), "x": Payload()}, tmp_path / name)
        with pytest.raises(UserError, match=r"codebook\.path"):
            build_codebook(config(tmp_path / name))
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError, match=r"codebook\.path"):
        build_codebook(config(tmp_path / "y.pt"))
    assert not (tmp_path / "executed").exists()


def test_keys_are_translated_to_hugging_faces():
    short = {"blocks.input.w": torch.zeros(1), "blocks.group_2.block_1.res_path.conv_3.b": torch.ones(1)}
    long = {"blocks.input.weight", "blocks.group_2.group.block_1.res_path.path.conv_3.bias"}
    assert extract_codebook(short).keys() == extract_codebook(extract_codebook(short)).keys() == long
    assert extract_codebook({"flava.logit_scale": torch.zeros(1)}) == {}
