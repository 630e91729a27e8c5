"""torchmultimodal's FLAVA with random weights, loaded by us; needs a checkout of it on PYTHONPATH.

Two of its habits are its own: its multimodal encoder attends to [PAD], its heads' LayerNorm has eps 1e-5.
"""

import pytest
import torch
from torch import nn

from mmf_flava import load_pretrained
from mmf_flava.weights.sources import read_weights
from mmf_flava.models.heads import MaskedPredictionHead
from tests.parity.batches import make, randomise
from tests.parity.test_hugging_face import close

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
    """In the place of the dVAE: hands its input back."""

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
    theirs = flava.FLAVAForPreTraining(core, Codes(), loss).eval()
    randomise(theirs)
    folder = tmp_path_factory.mktemp("torchmultimodal")
    torch.save(theirs.state_dict(), folder / "pretraining.pt")
    torch.save(core.state_dict(), folder / "model.pt")
    config = read_weights(folder / "pretraining.pt").sizes(num_heads=4 if small else None)
    config.multimodal_encoder.mask_padding = False
    ours = load_pretrained(folder / "pretraining.pt", heads=True, config=config)
    for head in ours.heads.values():
        if isinstance(head, MaskedPredictionHead):
            head.norm.eps = 1e-5
    return theirs, ours, folder, config, SIZES[request.param]


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize("kind", ["pair", "image", "text"])
@torch.no_grad()
def test_losses(models, kind, padded):
    theirs, ours, _, _, sizes = models
    batch = make(*sizes, padded=padded)
    image = {
        "image": batch.image,
        "image_for_codebook": batch.image_codes,
        "image_patches_mask": batch.image_patch_mask,
    }
    text = {"text_masked": batch.input_ids_masked, "mlm_labels": batch.lm_label_ids.clone()}
    pair = {**image, **text, "text": batch.input_ids, "itm_labels": batch.is_correct}
    expected = theirs(**{"pair": pair, "image": image, "text": text}[kind])
    output = ours(batch.ours(kind))["losses"]
    found = {key.rpartition("/")[2]: value for key, value in output.items()}
    assert set(found) == set(LOSSES[kind])
    for name, theirs_name in LOSSES[kind].items():
        close(found[name].reshape(()), getattr(expected.losses, theirs_name), f"{kind} {name}")


@torch.no_grad()
def test_states(models):
    theirs, ours, _, _, sizes = models
    batch = make(*sizes, padded=True)
    expected = theirs.model(batch.image, batch.input_ids, batch.image_patch_mask, batch.input_ids_masked)
    arguments = (batch.image, batch.image_patch_mask, batch.input_ids, batch.input_ids_masked, batch.input_mask)
    states = ours.flava.encode_pair(*arguments)
    close(states.image.hidden, expected.image.hidden_states[-1], "image states before the last norm")
    close(states.image.normed, expected.image.last_hidden_state, "image states")
    close(states.text.normed, expected.text.last_hidden_state, "text states")
    close(states.multimodal.normed, expected.multimodal_masked.last_hidden_state, "multimodal states")


@torch.no_grad()
def test_the_file_of_the_model_alone(models):
    """flava_model_unified_text_encoder.pt: shorter names, no logit scale."""
    theirs, _, folder, config, sizes = models
    core = load_pretrained(folder / "model.pt", config=config)
    batch = make(*sizes, padded=False)
    expected = nn.functional.normalize(theirs.encode_image(batch.image), dim=-1)
    close(core.encode_image(batch.image), expected, "image embeddings")
