"""``model: flava_classification`` of MMF: FLAVA's core and an MLP on [CLS], for finetuning (B.2).

Shapes: B batch, T tokens, D width, C labels.
"""

from functools import partial
from typing import Any

from mmf.common.registry import registry
from mmf.models.base_model import BaseModel
from mmf.modules.layers import MLPClassifer
from torch import Tensor, nn

from mmf_flava.config.model import PARTS, ClassificationConfig
from mmf_flava.config.recipes import recipe
from mmf_flava.config.schema import near_miss, one_of, parse, plain, positive
from mmf_flava.errors import UserError
from mmf_flava.models.flava import Flava
from mmf_flava.models.last_block import Positions
from mmf_flava.models.pretrained import load_image_encoder, load_text_encoder, load_weights
from mmf_flava.models.transformer import initialise

SECTION = "model_config.flava_classification"


@registry.register_model("flava_classification")
class FlavaClassification(BaseModel):
    """The fields of a batch decide what is read: ``image`` and ``input_ids`` [CLS_M], one of them that encoder's [CLS].

    MMF builds the listed losses and computes them from ``scores`` and the batch's ``targets``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        given = {key: value for key, value in plain(config).items() if key != "model"}  # MMF adds the model's name
        self.settings = parse(ClassificationConfig, given, SECTION)
        _check(self.settings)

    @classmethod
    def config_path(cls) -> str:
        return recipe("finetune/defaults")

    def build(self) -> None:
        """Builds core and head, and loads what the recipe starts from.

        Raises:
            UserError: weights that are not there or do not fit.
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
        if settings.pretrained is not None:
            # the head of another task, where the source has one, is not taken
            load_weights(self, settings.pretrained, allow_missing=["classifier.*"], allow_extra=["classifier.*"])
        if settings.image_encoder.pretrained is not None:
            load_image_encoder(self.flava.image_encoder, settings.image_encoder.pretrained)
        if settings.text_encoder.pretrained is not None:
            load_text_encoder(self.flava.text_encoder, settings.text_encoder.pretrained)
        for name in settings.freeze:
            self._part(name).requires_grad_(False)

    def _part(self, name: str) -> nn.Module:
        return self.classifier if name == "classifier" else getattr(self.flava, name)

    def train(self, mode: bool = True) -> "FlavaClassification":
        """As every module's, but frozen parts stay without dropout."""
        super().train(mode)
        for name in self.settings.freeze:
            self._part(name).eval()
        return self

    def forward(self, sample_list: Any) -> dict[str, Tensor]:
        """``{"scores": (B, C)}`` in fp32: logits of the labels, or with ``num_labels: 1`` the number predicted.

        Numbers are in the shape of their targets, (B,) or (B, 1), for MMF's ``mse`` takes the difference as it is.
        """
        scores = self.classifier(self.represent(sample_list)).float()
        if "targets" in sample_list:
            self._check_targets(sample_list)
            targets = sample_list["targets"]
            if self.settings.num_labels == 1 and targets.is_floating_point():
                scores = scores.view_as(targets)
        return {"scores": scores}

    def _check_targets(self, batch: Any) -> None:
        """Targets with a score for each label must have as many as the model."""
        targets, own = batch["targets"], self.settings.num_labels
        if targets.ndim == 2 and targets.shape[1] != own:
            raise UserError(
                f"Dataset '{batch.dataset_name}' scores {targets.shape[1]} answers, the model {own}: set "
                f"{SECTION}.num_labels to {targets.shape[1]}, or take the vocabulary of answers that has {own}."
            )

    def represent(self, batch: Any) -> Tensor:
        """(B, D): [CLS] after the final LayerNorm, of the multimodal encoder or of the one whose input is there.

        Raises:
            UserError: the batch has neither images nor tokens.
        """
        if "input_ids" not in batch and "image" not in batch:
            raise UserError(
                f"Batches of dataset '{batch.dataset_name}' have neither image nor input_ids, only "
                f"{', '.join(batch.keys())}; name an image_processor of type flava_image_transform or a text_processor "
                "of type flava_tokens in dataset_config."
            )
        flava = self.flava
        if "input_ids" not in batch:
            image = batch["image"]
            return flava.image_encoder(image, read=_cls(image)).cls
        ids, mask = self._without_padding(batch["input_ids"], batch["input_mask"].bool())
        if "image" not in batch:
            return flava.text_encoder(ids, mask, _cls(ids)).cls
        image, text = flava.image_encoder(batch["image"]), flava.text_encoder(ids, mask)
        return flava.multimodal_encoder(image.hidden, text.hidden, mask, _cls(ids)).cls

    def _without_padding(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """MMF's batches are padded to ``max_length``; what lies beyond the longest text of a batch only costs time."""
        if not self.settings.multimodal_encoder.mask_padding:  # which sees the padding
            return ids_BT, mask_BT
        longest = int(mask_BT.sum(dim=1).max())
        return ids_BT[:, :longest], mask_BT[:, :longest]

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        """Groups by learning rate and weight decay, which touches neither biases nor LayerNorms."""
        groups: dict[tuple[float, bool], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = name.removeprefix("flava.").partition(".")[0]
                key = (self.settings.lr_multiplier.get(part, 1.0), parameter.ndim > 1)
                groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "lr": multiplier * config.optimizer.params.lr}
            | ({} if decayed else {"weight_decay": 0.0})
            for (multiplier, decayed), parameters in groups.items()
        ]


def _cls(batch: Tensor) -> Positions:
    return Positions.first(len(batch), batch.device)


def _check(settings: ClassificationConfig) -> None:
    positive(settings.num_labels, f"{SECTION}.num_labels")
    widths = [
        encoder.hidden_size for encoder in (settings.image_encoder, settings.text_encoder, settings.multimodal_encoder)
    ]
    if len({*widths}) > 1:
        raise UserError(
            f"{SECTION} needs one hidden_size for all three encoders, not {', '.join(map(str, widths))}: its head "
            "reads [CLS] of whichever encoder a batch is for."
        )
    head = settings.classifier
    if head.hidden_size is not None:
        positive(head.hidden_size, f"{SECTION}.classifier.hidden_size")
        positive(head.num_layers, f"{SECTION}.classifier.num_layers")
    for name in settings.freeze:
        one_of(name, PARTS, f"{SECTION}.freeze")
    for name in settings.lr_multiplier:
        one_of(name, PARTS, f"{SECTION}.lr_multiplier")
    if not settings.losses:
        raise UserError(f"{SECTION}.losses is empty; list one, such as {{type: cross_entropy}}.")
    for loss in settings.losses:
        name = loss if isinstance(loss, str) else loss.get("type")
        if registry.get_loss_class(name) is None:
            hint = near_miss(str(name), registry.mapping["loss_name_mapping"])
            raise UserError(f"{SECTION}.losses: no loss named '{name}' is registered.{hint}")
