"""Hugging Face's FLAVA with random weights, loaded by us: the same states, logits, embeddings and losses."""

import pytest
import torch
from torch.nn.functional import normalize
from transformers import FlavaConfig as TheirConfig
from transformers import FlavaForPreTraining

from mmf_flava import load_pretrained
from tests.parity.batches import IGNORED, make, randomise

TOLERANCE = 2e-5
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 56}
THEIR_LOSSES = {
    "pair": {
        "flava_global_contrastive": "global_contrastive",
        "flava_mmm_image": "mmm_image",
        "flava_mmm_text": "mmm_text",
        "flava_itm": "itm",
    },
    "image": {"flava_mim": "mim"},
    "text": {"flava_mlm": "mlm"},
}


def small_config() -> TheirConfig:
    return TheirConfig(
        **{"hidden_size": 32, "projection_dim": 24, "init_codebook": True},
        image_config={**SMALL, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8, "vocab_size": 19},
        text_config={**SMALL, "num_hidden_layers": 2, "vocab_size": 41, "max_position_embeddings": 20},
        multimodal_config={**SMALL, "num_hidden_layers": 2},
        image_codebook_config={"hidden_size": 8, "vocab_size": 19},
    )


@pytest.fixture(scope="module", params=["small", "base"])
def models(request, tmp_path_factory):
    """Theirs, ours out of their files, and the sizes of a batch."""
    torch.manual_seed(0)
    config = small_config() if request.param == "small" else TheirConfig(image_codebook_config={"hidden_size": 8})
    theirs = FlavaForPreTraining(config).eval()
    randomise(theirs)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    ours = load_pretrained(folder, heads=True)
    image, text = config.image_config, config.text_config
    tokens = 11 if request.param == "small" else 20
    sizes = (image.image_size, image.patch_size, text.vocab_size, image.vocab_size, tokens)
    return theirs, ours, sizes


def their_output(model, batch, kind):
    labels = batch.lm_label_ids.masked_fill(batch.lm_label_ids == IGNORED, -100)
    image = {
        "pixel_values": batch.image,
        "bool_masked_pos": batch.image_patch_mask,
        "mim_labels": batch.image_codes.clone(),  # they write into it
    }
    text = {
        "input_ids": batch.input_ids,
        "input_ids_masked": batch.input_ids_masked,
        "attention_mask": batch.input_mask.long(),
        "mlm_labels": labels,
    }
    given = {"pair": {**image, **text, "itm_labels": batch.is_correct}, "image": image, "text": text}[kind]
    with torch.no_grad():
        return model(**given, return_loss=True)


def close(ours, theirs, what):
    assert ours.shape == theirs.shape, what
    difference = (ours - theirs).abs().max().item()
    print(f"{what}: {difference:.1e}")
    assert difference <= TOLERANCE, f"{what} differs by {difference:.1e}"


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize("kind", ["pair", "image", "text"])
def test_losses_and_logits(models, kind, padded):
    theirs, ours, sizes = models
    batch = make(*sizes, padded=padded)
    expected = their_output(theirs, batch, kind)
    with torch.no_grad():
        output = ours(batch.ours(kind))
    losses = {key.rpartition("/")[2]: value for key, value in output["losses"].items()}
    assert set(losses) == set(THEIR_LOSSES[kind])
    for name, theirs_name in THEIR_LOSSES[kind].items():
        close(losses[name].reshape(()), getattr(expected.loss_info, theirs_name), name)
    close(sum(losses.values()).reshape(()), expected.loss, "sum of the losses")
    for name in ("mim", "mlm", "mmm_image", "mmm_text", "itm"):
        assert (name in output) == (getattr(expected, f"{name}_logits") is not None)
        if name in output:
            close(output[name].logits, getattr(expected, f"{name}_logits"), f"{name} logits")
    if kind == "pair":
        contrast = output["contrast"]
        logits = contrast.temperature * contrast.image @ contrast.text.T
        close(logits[contrast.positive], expected.contrastive_logits_per_image, "contrastive logits")


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@torch.no_grad()
def test_hidden_states_and_embeddings(models, padded):
    theirs, ours, sizes = models
    batch = make(*sizes, padded=padded)
    expected = their_output(theirs, batch, "pair")
    core = ours.flava
    arguments = (batch.image, batch.image_patch_mask, batch.input_ids, batch.input_ids_masked, batch.input_mask)
    states = core.encode_pair(*arguments)
    seen = batch.input_mask  # at padding they and we compute what nobody reads
    close(states.image.hidden, expected.image_output.hidden_states[-1], "image states before the last norm")
    close(states.image.normed, expected.image_embeddings, "image states")
    close(states.image_masked.normed, expected.image_masked_embeddings, "masked image states")
    close(states.text.hidden[seen], expected.text_output.hidden_states[-1][seen], "text states before the last norm")
    close(states.text.normed[seen], expected.text_embeddings[seen], "text states")
    close(states.text_masked.normed[seen], expected.text_masked_embeddings[seen], "masked text states")
    both = torch.cat([seen.new_ones(len(seen), 2 + batch.image_patch_mask.shape[1]), seen], dim=1)
    pairs = batch.is_correct.bool()  # they keep the states of matching pairs alone
    both = both[pairs]
    close(states.multimodal.normed[pairs][both], expected.multimodal_masked_embeddings[both], "multimodal states")
    image = normalize(theirs.flava.image_projection(expected.image_embeddings[:, 0]), dim=-1)
    close(core.encode_image(batch.image), image, "image embeddings")
    text = normalize(theirs.flava.text_projection(expected.text_embeddings[:, 0]), dim=-1)
    close(core.encode_text(batch.input_ids, batch.input_mask), text, "text embeddings")


@torch.no_grad()
def test_every_block_of_every_encoder(models):
    """Hidden states layer by layer: a swapped pair of layers could hide in the last one."""
    theirs, ours, sizes = models
    batch = make(*sizes, padded=False)
    expected = their_output(theirs, batch, "pair")
    core = ours.flava
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
        for number, (our_state, their_state) in enumerate(zip(states, output.hidden_states[1:], strict=True)):
            close(our_state, their_state, f"{name} block {number}")


@torch.no_grad()
def test_codes_are_their_codebooks(models):
    theirs, ours, sizes = models
    side = 8 * (sizes[0] // sizes[1])
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    logits = theirs.image_codebook(0.8 * pixels + 0.1)  # their image processor maps the pixels, our codebook does
    close(ours.codebook.logits(pixels), logits, "codebook logits")
    assert torch.equal(ours.codebook(pixels), logits.argmax(1).flatten(1))
