"""The MMF model ``flava_classification``: FLAVA's core model and an MLP classifier on [CLS], for finetuning.

See B.2 of the FLAVA paper.

Shapes: B = batch size, T = number of tokens, D = hidden size, C = number of labels.
"""

from functools import partial
from typing import Any

from mmf.common.registry import registry
from mmf.models.base_model import BaseModel
from mmf.modules.layers import MLPClassifer
from torch import Tensor, nn

from mmf_flava.config.model import MODULES, ClassificationConfig, check_labels_are_set
from mmf_flava.config.recipes import MODEL_DEFAULTS, recipe_path
from mmf_flava.config.schema import parse_section, suggestion, to_dict
from mmf_flava.data.run_processors import initial_processors
from mmf_flava.errors import UserError
from mmf_flava.models.encoder_weights import load_encoders
from mmf_flava.models.flava import Flava
from mmf_flava.models.last_block import Positions
from mmf_flava.models.layer_decay import layer_depth
from mmf_flava.models.transformer import initialise
from mmf_flava.weights.loading import load_weights

SECTION = "model_config.flava_classification"


@registry.register_model("flava_classification")
class FlavaClassification(BaseModel):
    """FLAVA with a classifier on [CLS_M] of image-text pairs, or on [CLS] of images or of texts.

    Batches with ``image`` and ``input_ids`` are encoded by the multimodal encoder. Batches with only ``image`` or
    only ``input_ids`` are encoded by the image or the text encoder, respectively. MMF builds the losses of the config
    and computes them from ``scores`` and ``targets``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        section = {key: value for key, value in to_dict(config).items() if key != "model"}  # MMF adds the key "model"
        self.settings = parse_section(ClassificationConfig, section, SECTION)
        _check(self.settings)

    @classmethod
    def config_path(cls) -> str:
        return recipe_path(MODEL_DEFAULTS["flava_classification"])

    def build(self) -> None:
        """Build the core model and the classifier, load pretrained weights and freeze components.

        Raises:
            UserError: the pretrained weights were not found or do not match the model.
        """
        settings = self.settings
        self.flava = Flava(settings)
        hidden = settings.classifier.hidden_size
        self.classifier = MLPClassifer(
            settings.multimodal_encoder.hidden_size,
            settings.num_labels,
            hidden_dim=hidden,
            num_layers=0 if hidden is None else settings.classifier.num_layers - 1,
            dropout=settings.classifier.dropout,
            batch_norm=False,
        )
        self.classifier.apply(partial(initialise, std=settings.initializer_range))
        initial = initial_processors(in_run=True)
        allow_missing = list(initial.allow_missing or [])
        if settings.pretrained is not None:
            # the file may have no classifier, or a classifier for another task, which is not loaded
            load_weights(
                self,
                settings.pretrained,
                allow_missing=["classifier.*", *allow_missing],
                allow_extra=["classifier.*"],
                new_vocabulary=initial.new_vocabulary,
            )
        load_encoders(self.flava, settings, allow_missing)
        for name in settings.freeze:
            self._component(name).requires_grad_(False)

    def _component(self, name: str) -> nn.Module:
        return self.classifier if name == "classifier" else getattr(self.flava, name)

    def train(self, mode: bool = True) -> "FlavaClassification":
        """Set training or eval mode; frozen components always stay in eval mode, without dropout."""
        super().train(mode)
        for name in self.settings.freeze:
            self._component(name).eval()
        return self

    def forward(self, sample_list: Any) -> dict[str, Tensor]:
        """Return ``{"scores": (B, C)}`` in fp32: class logits, or the predicted values if ``num_labels`` is 1.

        Predicted values get the shape of the targets, (B,) or (B, 1): MMF's ``mse`` would broadcast different shapes.
        """
        scores = self.classifier(self.represent(sample_list)).float()
        if "targets" in sample_list:
            self._check_targets(sample_list)
            targets = sample_list["targets"]
            if self.settings.num_labels == 1 and targets.is_floating_point():
                scores = scores.view_as(targets)
        return {"scores": scores}

    def _check_targets(self, batch: Any) -> None:
        """Raise UserError if the targets have one score per label and the number of scores is not ``num_labels``."""
        targets, expected = batch["targets"], self.settings.num_labels
        if targets.ndim == 2 and targets.shape[1] != expected:
            raise UserError(
                f"{SECTION}.num_labels is {expected}, but dataset '{batch.dataset_name}' has {targets.shape[1]} "
                f"answers. Set it to {targets.shape[1]}, or use a vocabulary with {expected} answers."
            )

    def represent(self, batch: Any) -> Tensor:
        """Return the (B, D) [CLS] states after the final LayerNorm of the multimodal, image or text encoder.

        Raises:
            UserError: the batch has neither images nor tokens.
        """
        if "input_ids" not in batch and "image" not in batch:
            raise UserError(
                f"Batches of dataset '{batch.dataset_name}' have neither image nor input_ids, only "
                f"{', '.join(batch.keys())}. Add an image_processor of type flava_image_transform or a text_processor "
                "of type flava_tokens to its dataset_config."
            )
        flava = self.flava
        if "input_ids" not in batch:
            image = batch["image"]
            return flava.image_encoder(image, queries=_cls(image)).cls
        ids, mask = self._without_padding(batch["input_ids"], batch["input_mask"].bool())
        if "image" not in batch:
            return flava.text_encoder(ids, mask, _cls(ids)).cls
        image, text = flava.image_encoder(batch["image"]), flava.text_encoder(ids, mask)
        return flava.multimodal_encoder(image.hidden, text.hidden, mask, _cls(ids)).cls

    def _without_padding(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Trim the token ids and the mask to the longest text of the batch; MMF pads to ``max_length``."""
        if not self.settings.multimodal_encoder.mask_padding:  # trimming changes the output if padding is attended to
            return ids_BT, mask_BT
        longest = int(mask_BT.sum(dim=1).max())
        return ids_BT[:, :longest], mask_BT[:, :longest]

    def shard_units(self) -> list[str]:
        """Return the paths of the modules that become FSDP units."""
        return [f"flava.{path}" for path in self.flava.shard_units()] + ["classifier"]

    def checkpoint_activations(self) -> None:
        """Enable activation checkpointing."""
        self.flava.checkpoint_activations()

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        """Return one parameter group per combination of learning rate and weight decay.

        Biases and LayerNorms have no weight decay. ``layer_decay`` multiplies learning rates by layer.
        """
        settings, groups = self.settings, dict[tuple[float, bool], list[Tensor]]()
        trained = {name for name in MODULES if name not in settings.freeze and name != "classifier"}
        num_blocks = {name: len(getattr(self.flava, name).blocks) for name in trained}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                component = name.removeprefix("flava.").partition(".")[0]
                decay = settings.layer_decay ** layer_depth(name, num_blocks)
                key = (decay * settings.lr_multiplier.get(component, 1.0), parameter.ndim > 1)
                groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "lr": multiplier * config.optimizer.params.lr}
            | ({} if decayed else {"weight_decay": 0.0})
            for (multiplier, decayed), parameters in groups.items()
        ]


def _cls(batch: Tensor) -> Positions:
    return Positions.first(len(batch), batch.device)


def _check(settings: ClassificationConfig) -> None:
    check_labels_are_set(settings, SECTION)
    for loss in settings.losses or ():
        name = loss if isinstance(loss, str) else loss.get("type")
        if registry.get_loss_class(name) is None:
            hint = suggestion(str(name), registry.mapping["loss_name_mapping"])
            raise UserError(f"{SECTION}.losses: unknown loss '{name}'.{hint}")
