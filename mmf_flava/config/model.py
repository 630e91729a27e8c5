"""Config classes of the models ``flava`` (pretraining) and ``flava_classification`` (finetuning).

The defaults are those of the released checkpoints and of Table A.1 of the FLAVA paper.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class TransformerConfig:
    """Config of an encoder: pre-norm transformer blocks with a final LayerNorm (§3.1)."""

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_size: int = 3072
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_norm_eps: float = 1e-12


@dataclass
class ImageEncoderConfig(TransformerConfig):
    image_size: int = 224
    patch_size: int = 16
    # initial weights (ViT of timm, DINO, BEiT or FLAVA): file, folder, URL or Hugging Face model ID
    pretrained: str | None = None


@dataclass
class TextEncoderConfig(TransformerConfig):
    vocab_size: int = 30522
    max_length: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    # initial weights (pre-norm text encoder): file, folder, URL or Hugging Face model ID
    pretrained: str | None = None


@dataclass
class MultimodalEncoderConfig(TransformerConfig):
    num_layers: int = 6
    # mask [PAD] in the attention, as Hugging Face since 2024; torchmultimodal does not mask it
    mask_padding: bool = True


@dataclass
class CodebookConfig:
    """The image codebook, which assigns one code to each patch: the target of MIM and MMM (§3.2).

    ``type``: ``cached`` reads the codes from the batch (``image_codes``), see ``dataset_config.<name>.codes``; ``dvae``
    is DALL-E's dVAE encoder with the weights at ``path`` (file, folder or Hugging Face model ID); ``kmeans`` assigns
    the nearest of the centroids at ``path`` (safetensors, key ``centroids``) and is meant for small runs.
    """

    type: str = "cached"
    path: str | None = None
    vocab_size: int = 8192
    # dVAE encoder: channels of the first group, number of groups, blocks per group
    hidden_size: int = 256
    num_groups: int = 4
    num_blocks_per_group: int = 2
    # dVAE encoder: fp32 | bf16 | fp16. Half precision changes some codes; mmf_flava.cache_codes prints their fraction
    dtype: str = "fp32"
    channels_last: bool = True
    # expected SHA-256 of the codebook's weights; a different hash, also of cached codes, raises an error
    sha256: str | None = None


@dataclass
class LossConfig:
    """A registered MMF loss and its weight in the total loss."""

    type: str
    weight: float = 1.0
    params: dict[str, Any] = field(default_factory=dict)


LOSSES = (
    "flava_global_contrastive",
    "flava_mmm_image",
    "flava_mmm_text",
    "flava_itm",
    "flava_mim",
    "flava_mlm",
)


@dataclass
class CoreConfig:
    """Keys of both models: the three encoders and the contrastive projections."""

    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    multimodal_encoder: MultimodalEncoderConfig = field(default_factory=MultimodalEncoderConfig)
    # 768 as in every released checkpoint; 512 in the paper's Table A.1
    projection_size: int = 768
    # standard deviation of the initial weights
    initializer_range: float = 0.02
    # apply torch.compile to every transformer block
    compile: bool = False
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = math.log(100)


@dataclass
class FlavaConfig(CoreConfig):
    codebook: CodebookConfig = field(default_factory=CodebookConfig)
    losses: list[LossConfig] = field(default_factory=lambda: [LossConfig(name) for name in LOSSES])


@dataclass
class ClassifierConfig:
    """The classification head on [CLS]: an MLP with ``num_layers`` linear layers and ReLU activations (B.2)."""

    # size of the hidden layers; null: one linear layer
    hidden_size: int | None = 1536
    num_layers: int = 2
    # dropout probability after each hidden layer
    dropout: float = 0.0


# valid module names in freeze and lr_multiplier
MODULES = ("image_encoder", "text_encoder", "multimodal_encoder", "classifier")


@dataclass
class ClassificationConfig(CoreConfig):
    num_labels: int = MISSING
    # initial FLAVA weights: file, folder, URL or Hugging Face model ID; position embeddings are resized to image_size
    pretrained: str | None = None
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    # modules that are not trained
    freeze: list[str] = field(default_factory=list)
    # module -> factor by which optimizer.params.lr is multiplied
    lr_multiplier: dict[str, float] = field(default_factory=dict)
    # names, or {type, params}, of registered losses, as in every MMF model
    losses: list[Any] = field(default_factory=lambda: [{"type": "cross_entropy"}])
