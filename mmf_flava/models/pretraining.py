"""The MMF model ``flava``: FLAVA's core model with pretraining heads and losses (FLAVA paper, §3.2, Figure 2).

Shapes: B = batch size, P = number of patches, T = number of tokens, L = 2 + P + T = length of the multimodal sequence,
N = number of masked positions, D = hidden size, E = projection size.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.models.base_model import BaseModel
from mmf.modules.losses import MMFLoss
from torch import Tensor, nn
from torch.nn.functional import pad

from mmf_flava.config.model import FlavaConfig, check_mean_over, check_needs
from mmf_flava.config.recipes import MODEL_DEFAULTS, recipe_path
from mmf_flava.config.schema import parse_section, suggestion, to_dict
from mmf_flava.data.codes import OPENED_CODES
from mmf_flava.data.mask_counts import MaskCounts
from mmf_flava.data.masking import IGNORED
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import build_codebook
from mmf_flava.models.encoder_weights import load_encoders
from mmf_flava.models.flava import Flava
from mmf_flava.models.flops import batch_flops
from mmf_flava.models.heads import MaskedPredictionHead, MatchingHead
from mmf_flava.models.last_block import Positions, select
from mmf_flava.models.outputs import Contrast, MaskedPrediction, Matching
from mmf_flava.models.transformer import Encoded, initialise
from mmf_flava.weights.configs import CONFIG_KEY, config_to_dict


@registry.register_model("flava")
class FlavaPretraining(BaseModel):
    """FLAVA for pretraining: the core model, the losses of the config, and the prediction heads that they need.

    The losses depend on the batch. Image-text pairs: the global contrastive loss on unmasked inputs, and MMM and ITM on
    masked inputs. Images only: MIM. Texts only: MLM.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        section = {key: value for key, value in to_dict(config).items() if key != "model"}  # MMF adds the key "model"
        self.settings = parse_section(FlavaConfig, section, "model_config.flava")
        self._logged_warning["losses_present"] = True  # disables MMF's warning about losses in the output

    @classmethod
    def config_path(cls) -> str:
        return recipe_path(MODEL_DEFAULTS["flava"])

    def build(self) -> None:
        """Build the core model and the codebook.

        Raises:
            UserError: the codebook's weights were not found or do not match its configuration.
        """
        self.flava = Flava(self.settings)
        self.codebook = build_codebook(self.settings.codebook, registry.get(OPENED_CODES, default={}, no_warning=True))

    def init_losses(self) -> None:
        """Build the losses of the config from MMF's registry, and the prediction heads that they need.

        Raises:
            UserError: a loss is not registered, or needs an output that the model does not have.
        """
        for loss in self.settings.losses:
            if registry.get_loss_class(loss.type) is None:
                known = registry.mapping["loss_name_mapping"]
                hint = suggestion(loss.type, known)
                raise UserError(f"model_config.flava.losses: unknown loss '{loss.type}'.{hint}")
        self.losses = nn.ModuleList(
            MMFLoss({"type": loss.type, "params": loss.params}) for loss in self.settings.losses
        )
        self.needs: list[str] = [getattr(loss.loss_criterion, "needs", None) for loss in self.losses]  # type: ignore[misc]
        self.mean_over = [getattr(loss.loss_criterion, "mean_over", "samples") for loss in self.losses]  # type: ignore[union-attr]
        for loss, need, mean_over in zip(self.settings.losses, self.needs, self.mean_over, strict=True):
            check_needs(loss.type, need)
            check_mean_over(loss.type, mean_over)
        self.heads = nn.ModuleDict({name: self._head(name) for name in self.needs if name != "contrast"})
        self.heads.apply(partial(initialise, std=self.settings.initializer_range))

    def _head(self, name: str) -> nn.Module:
        sizes = self.settings
        image, text, pair = sizes.image_encoder, sizes.text_encoder, sizes.multimodal_encoder
        if name == "itm":
            return MatchingHead(pair.hidden_size)
        encoder = {"mim": image, "mlm": text}.get(name, pair)
        vocabulary = sizes.codebook.vocab_size if name in ("mim", "mmm_image") else text.vocab_size
        return MaskedPredictionHead(encoder.hidden_size, vocabulary, encoder.layer_norm_eps)

    def forward(self, sample_list: Any) -> dict[str, Any]:
        """Return the losses of a batch, the inputs of the losses, and the embeddings for MMF's retrieval metrics.

        Returns:
            ``losses``: loss tensors by name, e.g. ``train/pmd/flava_itm``, multiplied by their loss weights. ``mim``,
            ``contrast`` etc.: the inputs of the losses (see ``models.outputs``). ``scores`` and ``targets``: the
            contrastive embeddings of images and of texts, (B, projection size); they are empty for batches without
            pairs.
        """
        counts = MaskCounts.of(sample_list)
        if "image" in sample_list and "input_ids" in sample_list:
            output = self._forward_pair(sample_list, counts)
        elif "image" in sample_list:
            output = self._forward_image(sample_list, counts)
        else:
            output = self._forward_text(sample_list, counts)
        losses = {}
        for need, loss, settings in zip(self.needs, self.losses, self.settings.losses, strict=True):
            if need in output:
                losses.update({key: settings.weight * value for key, value in loss(sample_list, output).items()})
        return {**output, **self._retrieval(output), "losses": losses}

    def loss_counts(self, sample_list: Any) -> dict[str, int]:
        """Return, by name of the loss, the number of values in a batch that it is a mean over. See ``LossCounts``."""
        totals = MaskCounts.of(sample_list).totals()
        return {loss.type: totals[name] for loss, name in zip(self.settings.losses, self.mean_over, strict=True)}

    def _retrieval(self, output: dict[str, Any]) -> dict[str, Tensor]:
        """Return the detached ``scores`` and ``targets`` of ``forward``. MMF stores them for many batches."""
        if "contrast" not in self.needs:
            return {}
        if "contrast" in output:
            return {"scores": output["contrast"].image.detach(), "targets": output["contrast"].text.detach()}
        empty = self.flava.logit_scale.detach().new_empty(0, self.settings.projection_size)
        return {"scores": empty, "targets": empty}

    def _forward_pair(self, batch: Any, counts: MaskCounts) -> dict[str, Any]:
        clean = "contrast" in self.needs
        masked = any(name in self.heads for name in ("mmm_image", "mmm_text", "itm"))
        if not (clean or masked):
            return {}
        positive = batch["is_correct"].view(-1).bool()
        masks, counts = self._multimodal_masks(batch, positive), counts.of_matching()
        states = self.flava.encode_pair(
            batch["image"],
            batch["image_patch_mask"],
            batch["input_ids"],
            batch["input_ids_masked"],
            batch["input_mask"],
            clean=clean,
            masked=masked,
            queries=Positions.from_mask(torch.stack(list(masks.values())).any(dim=0), self._num_queries(counts)),
        )
        output: dict[str, Any] = {}
        if states.image is not None and states.text is not None:
            output["contrast"] = Contrast(
                self.flava.project_image(states.image),
                self.flava.project_text(states.text),
                self.flava.temperature(),
                torch.nonzero_static(positive, size=sum(counts.matching)).squeeze(1),
            )
        if states.multimodal is not None:
            output |= self._multimodal_outputs(batch, states.multimodal, masks, counts)
        return output

    def _num_queries(self, counts: MaskCounts) -> list[int]:
        """Return, for each sample, the number of positions used by a prediction head, including [CLS_M]."""
        patches = counts.patches if "mmm_image" in self.heads else [0] * len(counts.patches)
        tokens = counts.tokens if "mmm_text" in self.heads else [0] * len(counts.tokens)
        return [1 + image + text for image, text in zip(patches, tokens, strict=True)]

    def _multimodal_masks(self, batch: Any, positive_B: Tensor) -> dict[str, Tensor]:
        """Return, for each multimodal head, a (B, L) mask of its input positions.

        The sequence is [CLS_M], [CLS_I], patches, tokens. The MMM heads use matching pairs only.
        """
        image = batch["image_patch_mask"] & positive_B[:, None]
        text = (batch["lm_label_ids"] != IGNORED) & positive_B[:, None]
        masks = {"mmm_image": pad(image, (2, text.shape[1])), "mmm_text": pad(text, (2 + image.shape[1], 0))}
        cls = torch.zeros_like(masks["mmm_image"])
        cls[:, 0] = True
        return {"itm": cls} | {name: mask for name, mask in masks.items() if name in self.heads}

    def _multimodal_outputs(
        self, batch: Any, states: Encoded, masks: dict[str, Tensor], counts: MaskCounts
    ) -> dict[str, Any]:
        output: dict[str, Any] = {}
        patches = batch["image_patch_mask"].shape[1]
        if "mmm_image" in self.heads:
            logits = self.heads["mmm_image"](states.at(masks["mmm_image"], sum(counts.patches)))
            codes = self._codes(batch, masks["mmm_image"][:, 2 : 2 + patches], counts.patches)
            output["mmm_image"] = MaskedPrediction(logits, codes)
        if "mmm_text" in self.heads:
            count = sum(counts.tokens)
            logits = self.heads["mmm_text"](states.at(masks["mmm_text"], count))
            labels = select(batch["lm_label_ids"], masks["mmm_text"][:, 2 + patches :], count)
            output["mmm_text"] = MaskedPrediction(logits, labels)
        if "itm" in self.heads:
            output["itm"] = Matching(self.heads["itm"](states.cls), batch["is_correct"].view(-1).long())
        return output

    def _forward_image(self, batch: Any, counts: MaskCounts) -> dict[str, Any]:
        if "mim" not in self.heads:
            return {}
        mask = batch["image_patch_mask"]
        in_sequence = pad(mask, (1, 0))  # [CLS_I], P patches
        states = self.flava.image_encoder(batch["image"], mask, Positions.from_mask(in_sequence, counts.patches))
        logits = self.heads["mim"](states.at(in_sequence, sum(counts.patches)))
        return {"mim": MaskedPrediction(logits, self._codes(batch, mask, counts.patches))}

    def _forward_text(self, batch: Any, counts: MaskCounts) -> dict[str, Any]:
        if "mlm" not in self.heads:
            return {}
        labels, count = batch["lm_label_ids"], sum(counts.tokens)
        mask = labels != IGNORED
        queries = Positions.from_mask(mask, counts.tokens)
        states = self.flava.text_encoder(batch["input_ids_masked"], batch["input_mask"], queries)
        return {"mlm": MaskedPrediction(self.heads["mlm"](states.at(mask, count)), select(labels, mask, count))}

    def _codes(self, batch: Any, mask_BP: Tensor, counts: list[int]) -> Tensor:
        """Return the (N,) codes of masked patches: cached codes of the batch if available, otherwise computed codes."""
        if "image_codes" in batch:
            return select(batch["image_codes"], mask_BP, sum(counts))
        if self.codebook is None:
            raise UserError(
                f"Batches of dataset '{batch.dataset_name}' have no image_codes, but model_config.flava.codebook.type "
                "is 'cached'. Cache the codes with `python -m mmf_flava.cache_codes`, or set codebook.type and "
                "codebook.path."
            )
        return self.codebook.codes_at(batch["image_for_codebook"], mask_BP, counts)

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        """Return a parameter group with weight decay, and one without for biases, LayerNorms and the logit scale.

        MMF's BERT models use the same groups.
        """
        decayed: list[Tensor] = []
        not_decayed: list[Tensor] = []
        for parameter in self.parameters():
            if parameter.requires_grad:
                (decayed if parameter.ndim > 1 else not_decayed).append(parameter)
        return [{"params": decayed}, {"params": not_decayed, "weight_decay": 0.0}]

    def shard_units(self) -> list[str]:
        """Return the paths of the modules that become FSDP units."""
        return [f"flava.{path}" for path in self.flava.shard_units()] + [f"heads.{name}" for name in self.heads]

    def replicated_modules(self) -> list[str]:
        """Return the modules that FSDP does not shard: the codebook, which is frozen."""
        return ["codebook"]

    def checkpoint_activations(self) -> None:
        """Enable activation checkpointing."""
        self.flava.checkpoint_activations()

    def metadata(self) -> dict[str, str]:
        """Return the configuration for the header of the weights file, so that no recipe is needed to load it."""
        return {CONFIG_KEY: json.dumps(config_to_dict(self.settings))}

    def fingerprints(self) -> dict[str, str]:
        """Return the hash of the codebook's weights, also if its codes are cached; {} if there is no codebook."""
        opened: Mapping[str, Any] = registry.get(OPENED_CODES, default={}, no_warning=True)
        cached = [header["codebook"]["sha256"] for header in opened.values() if header is not None]
        sha256 = getattr(self.codebook, "sha256", None) or next(iter(cached), None)
        return {} if sha256 is None else {"codebook": str(sha256)}

    def batch_flops(self, batch: Any, num_processes: int) -> float:
        """See ``flops.batch_flops``."""
        return batch_flops(self.settings, self.needs, batch, num_processes)

    def load_pretrained(self, allow_missing: list[str], allow_extra: list[str], cache_dir: str | None) -> list[str]:
        """Load every encoder whose config sets ``pretrained``, see ``load_encoders``."""
        return load_encoders(self.flava, self.settings, allow_missing, allow_extra, cache_dir)

    def after_step(self, weights: Mapping[str, Tensor]) -> None:
        """Clamp the logit scale after an optimizer step, so that the saved value is the one that the model uses.

        Args:
            weights: trained weights by name, or their slices on this process; see ``Engine.after_step``.
        """
        if "flava.logit_scale" in weights:
            self.flava.clamp_logit_scale(weights["flava.logit_scale"])

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """See ``Flava.encode_image``."""
        return self.flava.encode_image(image_BCHW)

    def encode_text(self, input_ids_BT: Tensor, input_mask_BT: Tensor | None = None) -> Tensor:
        """See ``Flava.encode_text``."""
        return self.flava.encode_text(input_ids_BT, input_mask_BT)

    def image_features(self, image_BCHW: Tensor) -> Tensor:
        """See ``Flava.image_features``."""
        return self.flava.image_features(image_BCHW)

    def image_attention(self, image_BCHW: Tensor) -> Tensor:
        """See ``Flava.image_attention``."""
        return self.flava.image_attention(image_BCHW)

    def image_states(self, image_BCHW: Tensor) -> Tensor:
        """Return the states of [CLS_I] and the patches of unmasked images, an input of the method ``match``."""
        return self.flava.image_encoder(image_BCHW).hidden

    def match(self, image_states_BID: Tensor, input_ids_BT: Tensor, input_mask_BT: Tensor) -> Tensor:
        """Return the (B,) probabilities that unmasked images and texts match, predicted by the matching head."""
        text = self.flava.text_encoder(input_ids_BT, input_mask_BT).hidden
        cls = Positions.first(len(text), text.device)
        pair = self.flava.multimodal_encoder(image_states_BID, text, input_mask_BT, cls)
        return self.heads["itm"](pair.cls).float().softmax(-1)[:, 1]
