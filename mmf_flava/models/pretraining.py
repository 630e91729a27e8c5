"""``model: flava`` of MMF: a SampleList in, FLAVA's states and losses out (§3.2, Figure 2).

Shapes: B batch, P patches, T tokens, L = 2 + P + T, N masked positions.
"""

from functools import partial
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.models.base_model import BaseModel
from mmf.modules.losses import MMFLoss
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import pad

from mmf_flava.compat import mmf_api
from mmf_flava.config import mmf_trainer
from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.recipes import recipe
from mmf_flava.config.schema import near_miss, parse, plain
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import build_codebook
from mmf_flava.models.flava import Flava
from mmf_flava.models.heads import MaskedPredictionHead, MatchingHead
from mmf_flava.models.last_block import Positions
from mmf_flava.models.outputs import Contrast, MaskedPrediction, Matching
from mmf_flava.models.transformer import Encoded, initialise
from mmf_flava.ranks import world_size

IGNORED_LABEL = -1


def _check_trainer() -> None:
    """MMF's own trainer asks nobody before it loads: a model is the first of ours that may object."""
    config = registry.get("config", None, no_warning=True)
    trainer = None if config is None else OmegaConf.select(config, "training.trainer")
    if trainer not in (mmf_trainer.NAME, mmf_trainer.FORMER) or config.model != "flava":
        return
    if trainer == mmf_trainer.FORMER:
        raise UserError(f"training.trainer: {trainer}, MMF's own, cannot pretrain FLAVA: choose flava.")
    devices = torch.cuda.device_count() if "cuda" in str(config.training.device) else 0
    mmf_trainer.check_mmf_trainer(config, world_size(), devices)
    if unread := mmf_trainer.unread_keys(config):
        mmf_api.log(f"MMF's trainer does not look at {', '.join(unread)}.")


@registry.register_model("flava")
class FlavaPretraining(BaseModel):
    """FLAVA's core, the heads that the listed losses need, and those losses with their weights.

    A batch of pairs feeds the global contrastive loss from a clean pass, MMM and ITM from a masked one; a batch of
    images feeds MIM and a batch of texts MLM, from one masked pass each.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        given = {key: value for key, value in plain(config).items() if key != "model"}  # MMF adds the model's name
        self.settings = parse(FlavaConfig, given, "model_config.flava")
        self._logged_warning["losses_present"] = True  # MMF warns of models that compute their losses themselves

    @classmethod
    def config_path(cls) -> str:
        return recipe("defaults")

    def build(self) -> None:
        """Builds encoders and codebook.

        Raises:
            UserError: the recipe asks MMF's own trainer for what it cannot do.
        """
        _check_trainer()
        self.flava = Flava(self.settings)
        self.codebook = build_codebook(self.settings.codebook)

    def init_losses(self) -> None:
        """Builds the losses that the recipe lists, by MMF's own registry, and the heads that they need."""
        for loss in self.settings.losses:
            if registry.get_loss_class(loss.type) is None:
                known = registry.mapping["loss_name_mapping"]
                hint = near_miss(loss.type, known)
                raise UserError(f"model_config.flava.losses: no loss named '{loss.type}' is registered.{hint}")
        self.losses = nn.ModuleList(
            MMFLoss({"type": loss.type, "params": loss.params}) for loss in self.settings.losses
        )
        self.needs: list[str] = [loss.loss_criterion.needs for loss in self.losses]  # type: ignore[union-attr,misc]
        self.heads = nn.ModuleDict({name: self._head(name) for name in self.needs if name != "contrast"})
        self.heads.apply(partial(initialise, std=self.settings.initializer_range))

    def _head(self, name: str) -> nn.Module:
        image, text, pair = (
            self.settings.image_encoder,
            self.settings.text_encoder,
            self.settings.multimodal_encoder,
        )
        if name == "itm":
            return MatchingHead(pair.hidden_size)
        encoder = {"mim": image, "mlm": text}.get(name, pair)
        vocabulary = self.settings.codebook.vocab_size if name in ("mim", "mmm_image") else text.vocab_size
        return MaskedPredictionHead(encoder.hidden_size, vocabulary, encoder.layer_norm_eps)

    def forward(self, sample_list: Any) -> dict[str, Any]:
        """``{"losses": {"train/pmd/flava_itm": (1,), ...}}`` and, by name, what the losses were computed from.

        ``scores`` and ``targets`` are the pairs' contrastive vectors of images and of texts, (B, E) each, where MMF's
        metrics of retrieval look for them; (0, E) in a batch without pairs.
        """
        if "image" in sample_list and "input_ids" in sample_list:
            output = self._forward_pair(sample_list)
        elif "image" in sample_list:
            output = self._forward_image(sample_list)
        else:
            output = self._forward_text(sample_list)
        losses = {}
        for need, loss, settings in zip(self.needs, self.losses, self.settings.losses, strict=True):
            if need in output:
                losses.update({key: settings.weight * value for key, value in loss(sample_list, output).items()})
        return {**output, **self._retrieval(output), "losses": losses}

    def _retrieval(self, output: dict[str, Any]) -> dict[str, Tensor]:
        """MMF collects these over a split, or over the batches of an update: nobody back-propagates through them."""
        if "contrast" not in self.needs:
            return {}
        if "contrast" in output:
            return {"scores": output["contrast"].image.detach(), "targets": output["contrast"].text.detach()}
        none = self.flava.logit_scale.detach().new_empty(0, self.settings.projection_size)
        return {"scores": none, "targets": none}

    def _forward_pair(self, batch: Any) -> dict[str, Any]:
        clean = "contrast" in self.needs
        masked = any(name in self.heads for name in ("mmm_image", "mmm_text", "itm"))
        if not (clean or masked):
            return {}
        positive = batch["is_correct"].view(-1).bool()
        masks = self._multimodal_masks(batch, positive)
        states = self.flava.encode_pair(
            batch["image"],
            batch["image_patch_mask"],
            batch["input_ids"],
            batch["input_ids_masked"],
            batch["input_mask"],
            clean=clean,
            masked=masked,
            read_BL=torch.stack(list(masks.values())).any(dim=0),
        )
        output: dict[str, Any] = {}
        if states.image is not None and states.text is not None:
            output["contrast"] = Contrast(
                self.flava.project_image(states.image),
                self.flava.project_text(states.text),
                self.flava.temperature(),
                positive,
            )
        if states.multimodal is not None:
            output |= self._multimodal_outputs(batch, states.multimodal, masks)
        return output

    def _multimodal_masks(self, batch: Any, positive_B: Tensor) -> dict[str, Tensor]:
        """(B, L) each: where a head reads the sequence [CLS_M], [CLS_I], P patches, T tokens; MMM in matching pairs."""
        image = batch["image_patch_mask"] & positive_B[:, None]
        text = (batch["lm_label_ids"] != IGNORED_LABEL) & positive_B[:, None]
        masks = {"mmm_image": pad(image, (2, text.shape[1])), "mmm_text": pad(text, (2 + image.shape[1], 0))}
        cls = torch.zeros_like(masks["mmm_image"])
        cls[:, 0] = True
        return {"itm": cls} | {name: mask for name, mask in masks.items() if name in self.heads}

    def _multimodal_outputs(self, batch: Any, states: Encoded, masks: dict[str, Tensor]) -> dict[str, Any]:
        output: dict[str, Any] = {}
        patches = batch["image_patch_mask"].shape[1]
        if "mmm_image" in self.heads:
            logits = self.heads["mmm_image"](states.at(masks["mmm_image"]))
            codes = self._codes(batch, masks["mmm_image"][:, 2 : 2 + patches])
            output["mmm_image"] = MaskedPrediction(logits, codes)
        if "mmm_text" in self.heads:
            logits = self.heads["mmm_text"](states.at(masks["mmm_text"]))
            output["mmm_text"] = MaskedPrediction(logits, batch["lm_label_ids"][masks["mmm_text"][:, 2 + patches :]])
        if "itm" in self.heads:
            output["itm"] = Matching(self.heads["itm"](states.cls), batch["is_correct"].view(-1).long())
        return output

    def _forward_image(self, batch: Any) -> dict[str, Any]:
        if "mim" not in self.heads:
            return {}
        mask = batch["image_patch_mask"]
        in_sequence = pad(mask, (1, 0))  # [CLS_I], P patches
        states = self.flava.image_encoder(batch["image"], mask, Positions.of(in_sequence))
        logits = self.heads["mim"](states.at(in_sequence))
        return {"mim": MaskedPrediction(logits, self._codes(batch, mask))}

    def _forward_text(self, batch: Any) -> dict[str, Any]:
        if "mlm" not in self.heads:
            return {}
        mask = batch["lm_label_ids"] != IGNORED_LABEL
        states = self.flava.text_encoder(batch["input_ids_masked"], batch["input_mask"], Positions.of(mask))
        return {"mlm": MaskedPrediction(self.heads["mlm"](states.at(mask)), batch["lm_label_ids"][mask])}

    def _codes(self, batch: Any, mask_BP: Tensor) -> Tensor:
        """(N,) codes where the mask is True: from the batch where they are cached, else from the codebook."""
        if "image_codes" in batch:
            return batch["image_codes"][mask_BP]
        if self.codebook is None:
            raise UserError(
                f"Batches of dataset '{batch.dataset_name}' bring no image_codes, and model_config.flava.codebook.type "
                "is 'cached'; name a codebook there, or cache the codes beside the dataset."
            )
        return self.codebook.codes_at(batch["image_for_codebook"], mask_BP)

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        """Two groups: weight decay does not touch biases, LayerNorms and the logit scale (MMF's habit for BERT)."""
        decayed: list[Tensor] = []
        free: list[Tensor] = []
        for parameter in self.parameters():
            if parameter.requires_grad:
                (decayed if parameter.ndim > 1 else free).append(parameter)
        return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """See ``Flava.encode_image``; what evaluations ask of a model."""
        return self.flava.encode_image(image_BCHW)

    def encode_text(self, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None) -> Tensor:
        """See ``Flava.encode_text``."""
        return self.flava.encode_text(input_ids_BT, input_mask_BT)

    def image_features(self, image_BCHW: Tensor) -> Tensor:
        """See ``Flava.image_features``."""
        return self.flava.image_features(image_BCHW)

    def image_states(self, image_BCHW: Tensor) -> Tensor:
        """(B, 1 + P, D) of clean images; what ``match`` takes of an image."""
        return self.flava.image_encoder(image_BCHW).hidden

    def match(self, image_states_BID: Tensor, input_ids_BT: Tensor, input_mask_BT: Tensor) -> Tensor:
        """(B,) how likely it is that a clean image and a clean text belong together, by the matching head."""
        text = self.flava.text_encoder(input_ids_BT, input_mask_BT).hidden
        cls = Positions.first(len(text), text.device)
        pair = self.flava.multimodal_encoder(image_states_BID, text, input_mask_BT, cls)
        return self.heads["itm"](pair.cls).float().softmax(-1)[:, 1]
