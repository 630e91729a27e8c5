"""Config classes of the models ``flava`` (pretraining) and ``flava_classification`` (finetuning).

The defaults are the values of the released checkpoints and of Table A.1 of the FLAVA paper.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mmf_flava.config.ranges import ranged
from mmf_flava.config.schema import check_keys, suggestion
from mmf_flava.errors import UserError


@dataclass
class TransformerConfig:
    """Config of an encoder: pre-norm transformer blocks with a final LayerNorm (section 3.1 of the paper)."""

    hidden_size: int = ranged(768, at_least=1)
    num_layers: int = ranged(12, at_least=1)
    num_heads: int = ranged(12, at_least=1)
    mlp_size: int = ranged(3072, at_least=1)
    dropout: float = ranged(0.0, at_least=0, below=1)
    attention_dropout: float = ranged(0.0, at_least=0, below=1)
    # drop path (stochastic depth): probability that a sample skips a branch of the last block, increasing linearly from
    # 0 for the first block
    drop_path: float = ranged(0.0, at_least=0, below=1)
    layer_norm_eps: float = ranged(1e-12, above=0, below=1)

    def check(self, where: str) -> None:
        """Raise UserError if the hidden size is not a multiple of the number of attention heads."""
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"{where}.num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}. Set one of them "
                "so that every attention head has the same size."
            )


POSITION_INTERPOLATIONS = ("flava", "dino")


@dataclass
class ImageEncoderConfig(TransformerConfig):
    image_size: int = ranged(224, at_least=1)
    patch_size: int = ranged(16, at_least=1)
    # interpolation of position embeddings for images of another size, see ``ImageEncoder.positions``
    position_interpolation: str = ranged("flava", choices=POSITION_INTERPOLATIONS)
    # initial weights (ViT of timm, DINO, BEiT or FLAVA): file, folder, URL or Hugging Face model ID
    pretrained: str | None = None

    def check(self, where: str) -> None:
        """Raise UserError if the image is not a grid of complete patches."""
        super().check(where)
        if self.image_size % self.patch_size:
            nearest = max(1, self.image_size // self.patch_size) * self.patch_size
            raise UserError(
                f"{where}.image_size: {self.image_size} is not a multiple of patch_size {self.patch_size}. Set it to "
                f"{nearest}, for example."
            )


@dataclass
class TextEncoderConfig(TransformerConfig):
    vocab_size: int = ranged(30522, at_least=1)
    max_length: int = ranged(512, at_least=2)
    type_vocab_size: int = ranged(2, at_least=1)
    pad_token_id: int = ranged(0, at_least=0)
    # initial weights (pre-norm text encoder): file, folder, URL or Hugging Face model ID
    pretrained: str | None = None

    def check(self, where: str) -> None:
        """Raise UserError if the padding token is not in the vocabulary."""
        super().check(where)
        if self.pad_token_id >= self.vocab_size:
            raise UserError(
                f"{where}.pad_token_id: {self.pad_token_id} is not less than vocab_size {self.vocab_size}. Set "
                "it to the ID of [PAD]."
            )


@dataclass
class MultimodalEncoderConfig(TransformerConfig):
    num_layers: int = ranged(6, at_least=1)
    # exclude [PAD] from the attention, as Hugging Face's FLAVA does since 2024; torchmultimodal does not exclude it
    mask_padding: bool = True


CODEBOOKS = ("cached", "dvae", "kmeans")


@dataclass
class CodebookConfig:
    """The image codebook, which assigns one code to each patch: the target of MIM and MMM (FLAVA paper, §3.2).

    ``type``: ``cached`` reads the codes from the batch (``image_codes``), see ``dataset_config.<name>.codes``; ``dvae``
    is DALL-E's dVAE encoder with the weights at ``path`` (file, folder or Hugging Face model ID); ``kmeans`` assigns
    each patch to the nearest of the centroids at ``path`` (safetensors, key ``centroids``) and is meant for small runs.
    """

    type: str = ranged("cached", choices=CODEBOOKS)
    path: str | None = None
    vocab_size: int = ranged(8192, at_least=1)
    # dVAE encoder: channels of the first group, number of groups, blocks per group
    hidden_size: int = ranged(256, at_least=1)
    num_groups: int = ranged(4, at_least=1, at_most=10)
    num_blocks_per_group: int = ranged(2, at_least=1)
    # dVAE encoder: fp32 | bf16 | fp16. Half precision changes some codes; mmf_flava.cache_codes prints their fraction
    dtype: str = ranged("fp32", choices=("fp32", "bf16", "fp16"))
    channels_last: bool = True
    # expected SHA-256 of the codebook's weights; other weights, and cached codes of another codebook, raise an error
    sha256: str | None = None


@dataclass
class LossConfig:
    """A registered MMF loss and its weight in the total loss."""

    type: str
    weight: float = ranged(1.0, at_least=0)
    params: dict[str, Any] = field(default_factory=dict)


LOSSES = (
    "flava_global_contrastive",
    "flava_mmm_image",
    "flava_mmm_text",
    "flava_itm",
    "flava_mim",
    "flava_mlm",
)


# outputs of the model ``flava``; each loss needs one of them
OUTPUTS = ("contrast", "mmm_image", "mmm_text", "itm", "mim", "mlm")
# what a loss may be a mean over: samples, matching pairs, masked patches or masked tokens
COUNTED = ("samples", "pairs", "patches", "tokens")


def check_needs(loss: str, needs: Any) -> None:
    """Raise UserError if a loss's attribute ``needs`` is not the name of an output of the model ``flava``."""
    if needs not in OUTPUTS:
        given = "has no class attribute needs" if needs is None else f"needs {needs!r}, which is not an output of flava"
        raise UserError(
            f"model_config.flava.losses: {loss} {given}. Set the class attribute needs to one of {', '.join(OUTPUTS)}."
        )


def check_mean_over(loss: str, mean_over: Any) -> None:
    """Raise UserError if a loss's attribute ``mean_over`` is not something that a batch of ``flava`` has."""
    if mean_over not in COUNTED:
        raise UserError(
            f"model_config.flava.losses: {loss} has mean_over = {mean_over!r}. Set this class attribute to what the "
            f"loss is a mean over: {', '.join(COUNTED)}."
        )


def check_losses_differ(losses: list[LossConfig], where: str) -> None:
    """Raise UserError if a loss is listed twice, because losses are logged by type.

    Args:
        where: full name of the model's section, for the message.
    """
    types = [loss.type for loss in losses]
    if repeated := next((name for name in types if types.count(name) > 1), None):
        entries = [loss for loss in losses if loss.type == repeated]
        remedy = f"with its total weight: {{type: {repeated}, weight: {sum(loss.weight for loss in entries):g}}}"
        if any(loss.params != entries[0].params for loss in entries):
            remedy = "with one set of params"
        raise UserError(
            f"{where}.losses: {repeated} is listed {len(entries)} times, but a model computes and logs each type "
            f"once. List it once, {remedy}."
        )


@dataclass
class CoreConfig:
    """Keys of both models: the three encoders and the contrastive projections."""

    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    multimodal_encoder: MultimodalEncoderConfig = field(default_factory=MultimodalEncoderConfig)
    # 768 as in every released checkpoint; 512 in the paper's Table A.1
    projection_size: int = ranged(768, at_least=1)
    # standard deviation of the initial weights
    initializer_range: float = ranged(0.02, at_least=0)
    # apply torch.compile to every transformer block
    compile: bool = False
    # logarithms of the inverse temperature; at most log(65504), the largest number in fp16
    logit_scale_init: float = ranged(math.log(1 / 0.07), at_least=0, at_most=11)
    logit_scale_max: float = ranged(math.log(100), at_least=0, at_most=11)

    def check(self, where: str) -> None:
        """Raise UserError if ``logit_scale_init`` is above ``logit_scale_max``."""
        if self.logit_scale_init > self.logit_scale_max:
            raise UserError(
                f"{where}.logit_scale_init: {self.logit_scale_init:g} is above logit_scale_max "
                f"{self.logit_scale_max:g}. Decrease it, or increase logit_scale_max."
            )


@dataclass
class FlavaConfig(CoreConfig):
    codebook: CodebookConfig = field(default_factory=CodebookConfig)
    losses: list[LossConfig] = field(default_factory=lambda: [LossConfig(name) for name in LOSSES])

    def check(self, where: str) -> None:
        """Raise UserError if a loss is listed twice."""
        super().check(where)
        check_losses_differ(self.losses, where)


@dataclass
class ClassifierConfig:
    """The classification head on [CLS]: an MLP with ``num_layers`` linear layers and ReLU (FLAVA paper, B.2)."""

    # size of the hidden layers; null: one linear layer
    hidden_size: int | None = ranged(1536, at_least=1)
    num_layers: int = ranged(2, at_least=1)
    # dropout probability after each hidden layer
    dropout: float = ranged(0.0, at_least=0, below=1)


# valid module names in freeze and lr_multiplier
MODULES = ("image_encoder", "text_encoder", "multimodal_encoder", "classifier")


@dataclass
class ClassificationConfig(CoreConfig):
    # null: the number of classes in the data, 1 for regression; only for datasets that set it (``SETS_LABELS``)
    num_labels: int | None = ranged(MISSING, at_least=1)
    # initial FLAVA weights: file, folder, URL or Hugging Face model ID; position embeddings are resized to image_size
    pretrained: str | None = None
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    # modules that are not trained
    freeze: list[str] = ranged([], choices=MODULES)
    # module -> factor by which optimizer.params.lr is multiplied
    lr_multiplier: dict[str, float] = ranged({}, at_least=0)
    # layer-wise learning rate decay (BEiT): factor per layer below the classifier, see models/layer_decay.py
    layer_decay: float = ranged(1.0, above=0, at_most=1)
    # registered losses, each a name or {type, params}, as in every MMF model; null: the loss of the dataset's task
    losses: list[Any] | None = ranged([{"type": "cross_entropy"}], non_empty=True)

    def check(self, where: str) -> None:
        """Raise UserError for encoders of different hidden sizes, an unknown module, or a loss that is listed twice."""
        super().check(where)
        encoders = (self.image_encoder, self.text_encoder, self.multimodal_encoder)
        widths = [encoder.hidden_size for encoder in encoders]
        if len({*widths}) > 1:
            raise UserError(
                f"{where}: hidden_size must be equal in all three encoders, got {', '.join(map(str, widths))}. Set the "
                "same value, because the classifier is applied to the [CLS] states of all encoders."
            )
        for name in self.lr_multiplier:
            if name not in MODULES:
                raise UserError(f"'{name}' is not a key of {where}.lr_multiplier.{suggestion(name, MODULES)}")
        if {*self.freeze} == {*MODULES}:
            raise UserError(f"{where}.freeze lists all modules, so there is nothing to train. Remove one of them.")
        losses = self.losses or []
        names = [check_loss_entry(loss, f"{where}.losses[{number}]") for number, loss in enumerate(losses)]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise UserError(
                f"{where}.losses: {repeated} is listed {names.count(repeated)} times, but MMF computes each "
                "type of loss only once. List it once."
            )


NULL_IS_SET_BY_DATA = "null is only supported for the dataset image_text_classification, which sets it. Set a value."


def check_labels_are_set(settings: Any, where: str) -> None:
    """Raise UserError if the number of labels or the losses of a classifier are null, and no dataset has set them."""
    if isinstance(settings, ClassificationConfig):
        for name in ("num_labels", "losses"):
            if getattr(settings, name) is None:
                raise UserError(f"{where}.{name} must be given: {NULL_IS_SET_BY_DATA}")


def check_loss_entry(entry: Any, where: str) -> str:
    """Return the type of an entry of MMF's ``losses``: a name, or ``{type: name, params: {}}``.

    Raises:
        UserError: the entry has another form.
    """
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise UserError(f"{where}: must be a name or {{type: name, params: {{}}}}, got {entry!r}.")
    check_keys(entry, ("type", "params"), where)
    return str(entry["type"])
