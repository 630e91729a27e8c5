"""Hugging Face's FLAVA with random weights, loaded here: equal states, logits, embeddings and losses."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import FlavaConfig as HFConfig
from transformers import FlavaForPreTraining

from mmf_flava import load_pretrained
from tests.parity.batches import IGNORED, make_batch, randomise

TOLERANCE = 2e-5
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 56}
HF_LOSSES = {
    "pair": {
        "flava_global_contrastive": "global_contrastive",
        "flava_mmm_image": "mmm_image",
        "flava_mmm_text": "mmm_text",
        "flava_itm": "itm",
    },
    "image": {"flava_mim": "mim"},
    "text": {"flava_mlm": "mlm"},
}


def small_config() -> HFConfig:
    return HFConfig(
        **{"hidden_size": 32, "projection_dim": 24, "init_codebook": True},
        image_config={**SMALL, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8, "vocab_size": 19},
        text_config={**SMALL, "num_hidden_layers": 2, "vocab_size": 41, "max_position_embeddings": 20},
        multimodal_config={**SMALL, "num_hidden_layers": 2},
        image_codebook_config={"hidden_size": 8, "vocab_size": 19},
    )


@pytest.fixture(scope="module", params=["small", "base"])
def models(request, tmp_path_factory):
    """Hugging Face's model, the model loaded from its files, and the sizes of a batch."""
    torch.manual_seed(0)
    config = small_config() if request.param == "small" else HFConfig(image_codebook_config={"hidden_size": 8})
    hf_model = FlavaForPreTraining(config).eval()
    randomise(hf_model)
    folder = tmp_path_factory.mktemp(request.param)
    hf_model.save_pretrained(folder)
    model = load_pretrained(folder, heads=True)
    image, text = config.image_config, config.text_config
    tokens = 11 if request.param == "small" else 20
    sizes = (image.image_size, image.patch_size, text.vocab_size, image.vocab_size, tokens)
    return hf_model, model, sizes


def hf_output(hf_model, batch, kind):
    labels = batch.lm_label_ids.masked_fill(batch.lm_label_ids == IGNORED, -100)
    image = {
        "pixel_values": batch.image,
        "bool_masked_pos": batch.image_patch_mask,
        "mim_labels": batch.image_codes.clone(),  # Hugging Face modifies it
    }
    text = {
        "input_ids": batch.input_ids,
        "input_ids_masked": batch.input_ids_masked,
        "attention_mask": batch.input_mask.long(),
        "mlm_labels": labels,
    }
    inputs = {"pair": {**image, **text, "itm_labels": batch.is_correct}, "image": image, "text": text}[kind]
    with torch.no_grad():
        return hf_model(**inputs, return_loss=True)


def skip_second_run_of_large_model(sizes, padded):
    if sizes[0] != 32 and not padded:
        pytest.skip("padded batches are enough for the large model")


def assert_close(actual, expected, name):
    assert actual.shape == expected.shape, name
    difference = (actual - expected).abs().max().item()
    print(f"{name}: {difference:.1e}")
    assert difference <= TOLERANCE, f"{name} differs by {difference:.1e}"


@pytest.mark.parametrize("size", [(48, 48), (16, 24), (72, 40)])
def test_interpolated_positions_are_equal(models, tmp_path, size):
    hf_model, model, (image_size, *_) = models
    if image_size != 32:
        pytest.skip("one model is enough")
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = hf_model.flava.image_model(image, interpolate_pos_encoding=True).last_hidden_state
        assert_close(model.flava.image_encoder(image).normed, expected, "image states")
    if size[0] == size[1]:  # resized when the weights are loaded
        save_file(dict(model.flava.state_dict()), tmp_path / "model.safetensors")
        config = replace(model.settings, image_encoder=replace(model.settings.image_encoder, image_size=size[0]))
        larger = load_pretrained(tmp_path / "model.safetensors", config=config)
        with torch.no_grad():
            assert_close(larger.image_encoder(image).normed, expected, "image states of the larger model")


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize("kind", ["pair", "image", "text"])
def test_losses_and_logits_are_equal(models, kind, padded):
    hf_model, model, sizes = models
    skip_second_run_of_large_model(sizes, padded)
    batch = make_batch(*sizes, padded=padded)
    expected = hf_output(hf_model, batch, kind)
    with torch.no_grad():
        output = model(batch.sample_list(kind))
    losses = {key.rpartition("/")[2]: value for key, value in output["losses"].items()}
    assert set(losses) == set(HF_LOSSES[kind])
    for name, hf_name in HF_LOSSES[kind].items():
        assert_close(losses[name].reshape(()), getattr(expected.loss_info, hf_name), name)
    assert_close(sum(losses.values()).reshape(()), expected.loss, "sum of the losses")
    for name in ("mim", "mlm", "mmm_image", "mmm_text", "itm"):
        assert (name in output) == (getattr(expected, f"{name}_logits") is not None)
        if name in output:
            assert_close(output[name].logits, getattr(expected, f"{name}_logits"), f"{name} logits")
    if kind == "pair":
        contrast = output["contrast"]
        logits = contrast.temperature * contrast.image @ contrast.text.T
        assert_close(logits[contrast.positive], expected.contrastive_logits_per_image, "contrastive logits")


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@torch.no_grad()
def test_hidden_states_and_embeddings_are_equal(models, padded):
    hf_model, model, sizes = models
    skip_second_run_of_large_model(sizes, padded)
    batch = make_batch(*sizes, padded=padded)
    expected = hf_output(hf_model, batch, "pair")
    core = model.flava
    arguments = (batch.image, batch.image_patch_mask, batch.input_ids, batch.input_ids_masked, batch.input_mask)
    states = core.encode_pair(*arguments)
    real = batch.input_mask  # states at padding may differ; no loss depends on them
    assert_close(states.image.hidden, expected.image_output.hidden_states[-1], "image states before the norm")
    assert_close(states.image.normed, expected.image_embeddings, "image states")
    assert_close(states.image_masked.normed, expected.image_masked_embeddings, "masked image states")
    assert_close(states.text.hidden[real], expected.text_output.hidden_states[-1][real], "text states before the norm")
    assert_close(states.text.normed[real], expected.text_embeddings[real], "text states")
    assert_close(states.text_masked.normed[real], expected.text_masked_embeddings[real], "masked text states")
    both = torch.cat([real.new_ones(len(real), 2 + batch.image_patch_mask.shape[1]), real], dim=1)
    pairs = batch.is_correct.bool()  # Hugging Face returns the states of matching pairs only
    both = both[pairs]
    assert_close(states.multimodal.normed[pairs][both], expected.multimodal_masked_embeddings[both], "pair states")
    image = normalize(hf_model.flava.image_projection(expected.image_embeddings[:, 0]), dim=-1)
    assert_close(core.encode_image(batch.image), image, "image embeddings")
    text = normalize(hf_model.flava.text_projection(expected.text_embeddings[:, 0]), dim=-1)
    assert_close(core.encode_text(batch.input_ids, batch.input_mask), text, "text embeddings")


@torch.no_grad()
def test_outputs_of_all_blocks_are_equal(models):
    """Compare all layers: the last one alone might not show that two layers are swapped."""
    hf_model, model, sizes = models
    batch = make_batch(*sizes, padded=False)
    expected = hf_output(hf_model, batch, "pair")
    core = model.flava
    for name, output, run in (
        ("image", expected.image_output, lambda: core.image_encoder(batch.image)),
        ("text", expected.text_output, lambda: core.text_encoder(batch.input_ids, batch.input_mask)),
    ):
        states: list[torch.Tensor] = []
        blocks = getattr(core, f"{name}_encoder").blocks
        hooks = [block.register_forward_hook(lambda m, i, o, states=states: states.append(o)) for block in blocks]
        run()
        for hook in hooks:
            hook.remove()
        for number, (state, hf_state) in enumerate(zip(states, output.hidden_states[1:], strict=True)):
            assert_close(state, hf_state, f"{name} block {number}")


@torch.no_grad()
def test_codes_are_equal(models):
    hf_model, model, sizes = models
    side = 8 * (sizes[0] // sizes[1])
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    logits = hf_model.image_codebook(0.8 * pixels + 0.1)  # our codebook maps the pixels itself
    assert_close(model.codebook.logits(pixels), logits, "codebook logits")
    assert torch.equal(model.codebook(pixels), logits.argmax(1).flatten(1))
