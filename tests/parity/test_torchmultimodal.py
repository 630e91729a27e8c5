"""torchmultimodal's FLAVA with random weights, loaded here; needs a checkout of it on PYTHONPATH.

Two differences are set for the comparison: its multimodal encoder attends to [PAD], its heads' LayerNorm has eps 1e-5.
"""

import pytest
import torch
from torch import nn

from mmf_flava import load_pretrained
from mmf_flava.models.heads import MaskedPredictionHead
from mmf_flava.weights.sources import read_weights
from tests.parity.batches import make_batch, randomise
from tests.parity.test_hugging_face import assert_close

flava = pytest.importorskip("torchmultimodal.models.flava.model")
losses = pytest.importorskip("torchmultimodal.modules.losses.flava")

LOSSES = {
    "pair": {
        "flava_global_contrastive": "global_contrastive_loss",
        "flava_mmm_image": "mmm_image_loss",
        "flava_mmm_text": "mmm_text_loss",
        "flava_itm": "itm_loss",
    },
    "image": {"flava_mim": "mim_loss"},
    "text": {"flava_mlm": "mlm_loss"},
}
SIZES = {"small": (32, 8, 41, 19, 11), "base": (224, 16, 30522, 8192, 20)}  # image, patch, words, codes, tokens


class Codes(nn.Module):
    """A replacement for the dVAE that returns its input."""

    def forward(self, codes):
        return codes.clone()


def small_model():
    size = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 56}
    arguments = {f"{part}_{key}": value for part in ("image", "text", "multimodal") for key, value in size.items()}
    core = flava.flava_model(
        **arguments,
        **{"image_num_hidden_layers": 3, "text_num_hidden_layers": 2, "multimodal_num_hidden_layers": 2},
        **{"image_size": 32, "patch_size": 8, "vocab_size": 41, "max_position_embeddings": 20},
        text_and_image_proj_size=24,
    )
    return core, losses.FLAVAPretrainingLoss(hidden_size=32, text_vocab_size=41, image_vocab_size=19)


@pytest.fixture(scope="module", params=["small", "base"])
def models(request, tmp_path_factory):
    torch.manual_seed(0)
    small = request.param == "small"
    core, loss = small_model() if small else (flava.flava_model(), losses.FLAVAPretrainingLoss())
    peer = flava.FLAVAForPreTraining(core, Codes(), loss).eval()
    randomise(peer)
    folder = tmp_path_factory.mktemp("torchmultimodal")
    torch.save(peer.state_dict(), folder / "pretraining.pt")
    torch.save(core.state_dict(), folder / "model.pt")
    config = read_weights(folder / "pretraining.pt").infer_config(num_heads=4 if small else None)
    config.multimodal_encoder.mask_padding = False
    model = load_pretrained(folder / "pretraining.pt", heads=True, config=config)
    for head in model.heads.values():
        if isinstance(head, MaskedPredictionHead):
            head.norm.eps = 1e-5
    return peer, model, folder, config, SIZES[request.param]


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize("kind", ["pair", "image", "text"])
@torch.no_grad()
def test_losses_are_equal(models, kind, padded):
    peer, model, _, _, sizes = models
    batch = make_batch(*sizes, padded=padded)
    image = {
        "image": batch.image,
        "image_for_codebook": batch.image_codes,
        "image_patches_mask": batch.image_patch_mask,
    }
    text = {"text_masked": batch.input_ids_masked, "mlm_labels": batch.lm_label_ids.clone()}
    pair = {**image, **text, "text": batch.input_ids, "itm_labels": batch.is_correct}
    expected = peer(**{"pair": pair, "image": image, "text": text}[kind])
    output = model(batch.sample_list(kind))["losses"]
    found = {key.rpartition("/")[2]: value for key, value in output.items()}
    assert set(found) == set(LOSSES[kind])
    for name, peer_name in LOSSES[kind].items():
        assert_close(found[name].reshape(()), getattr(expected.losses, peer_name), f"{kind} {name}")


@torch.no_grad()
def test_states_are_equal(models):
    peer, model, _, _, sizes = models
    batch = make_batch(*sizes, padded=True)
    expected = peer.model(batch.image, batch.input_ids, batch.image_patch_mask, batch.input_ids_masked)
    arguments = (batch.image, batch.image_patch_mask, batch.input_ids, batch.input_ids_masked, batch.input_mask)
    states = model.flava.encode_pair(*arguments)
    assert_close(states.image.hidden, expected.image.hidden_states[-1], "image states before the last norm")
    assert_close(states.image.normed, expected.image.last_hidden_state, "image states")
    assert_close(states.text.normed, expected.text.last_hidden_state, "text states")
    assert_close(states.multimodal.normed, expected.multimodal_masked.last_hidden_state, "multimodal states")


@torch.no_grad()
def test_file_of_the_core_is_loaded(models):
    """Its keys have no prefix, and it has no logit scale, like flava_model_unified_text_encoder.pt."""
    peer, _, folder, config, sizes = models
    core = load_pretrained(folder / "model.pt", config=config)
    batch = make_batch(*sizes, padded=False)
    expected = nn.functional.normalize(peer.encode_image(batch.image), dim=-1)
    assert_close(core.encode_image(batch.image), expected, "image embeddings")
