"""The MMF model ``flava_dino``: pretraining of an image encoder by self-distillation (DINO, Caron et al., 2021).

A student learns to predict the outputs of a teacher, whose weights are an average of the student's weights.

Shapes: B = batch size, C = number of crops of an image, H = image size, K = number of outputs of the heads.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.models.base_model import BaseModel
from mmf.modules.losses import MMFLoss
from torch import Tensor, nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.dino import DinoConfig
from mmf_flava.config.recipes import MODEL_DEFAULTS, recipe_path
from mmf_flava.config.schema import parse_section, suggestion, to_dict
from mmf_flava.errors import UserError
from mmf_flava.models.attention_maps import cls_attention
from mmf_flava.models.averages import WeightAverages
from mmf_flava.models.dino.network import DinoNetwork
from mmf_flava.models.dino.schedule import DinoSchedule
from mmf_flava.models.dino.teacher_outputs import TeacherMeans, TeacherSums
from mmf_flava.models.flops import encoder_products, patch_embedding_flops
from mmf_flava.models.outputs import Distillation
from mmf_flava.weights.configs import DINO_CONFIG_KEY
from mmf_flava.weights.encoders import load_image_encoder

SECTION = "model_config.flava_dino"
OUTPUT = "dino"  # the output that a loss may need
GLOBAL, LOCAL = "crops_global", "crops_local"


@registry.register_model("flava_dino")
class FlavaDino(BaseModel):
    """Student, teacher and the centre of the teacher's outputs.

    Attributes:
        student, teacher: networks with the attributes ``encoder`` and ``head``. The teacher is not trained by the
            optimizer, and has neither dropout nor drop path.
        center: (1, K) moving average of the teacher's mean logits.
    """

    center: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        section = {key: value for key, value in to_dict(config).items() if key != "model"}  # MMF adds the key "model"
        self.settings = parse_section(DinoConfig, section, SECTION)
        self._logged_warning["losses_present"] = True  # disables MMF's warning about losses in the output

    @classmethod
    def config_path(cls) -> str:
        return recipe_path(MODEL_DEFAULTS["flava_dino"])

    def build(self) -> None:
        """Build student and teacher with the same initial weights."""
        settings = self.settings
        without_dropout = replace(settings.image_encoder, dropout=0.0, attention_dropout=0.0, drop_path=0.0)
        self.student = DinoNetwork(settings.image_encoder, settings.head, settings.initializer_range)
        self.teacher = DinoNetwork(without_dropout, settings.head).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.register_buffer("center", torch.zeros(1, settings.head.out_dim))
        # listed before FSDP flattens the parameters
        self._last_layer = [name for name, _ in self.named_parameters() if name.startswith("student.head.last_layer.")]
        self._schedule: DinoSchedule | None = None
        self._update = 0
        self._teacher_sums = TeacherSums()
        self._teacher_means: TeacherMeans | None = None

    def init_losses(self) -> None:
        """Build the losses of the config from MMF's registry.

        Raises:
            UserError: a loss is not registered, or needs an output that the model does not have.
        """
        for loss in self.settings.losses:
            loss_class = registry.get_loss_class(loss.type)
            if loss_class is None:
                hint = suggestion(loss.type, registry.mapping["loss_name_mapping"])
                raise UserError(f"{SECTION}.losses: unknown loss '{loss.type}'.{hint}")
            if getattr(loss_class, "needs", None) != OUTPUT:
                raise UserError(
                    f"{SECTION}.losses: {loss.type} does not have the class attribute needs = '{OUTPUT}', the output "
                    "of flava_dino. Use flava_dino, or set the attribute."
                )
        self.losses = nn.ModuleList(
            MMFLoss({"type": loss.type, "params": loss.params}) for loss in self.settings.losses
        )

    def train(self, mode: bool = True) -> "FlavaDino":
        """Set training or evaluation mode. The teacher is always in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, sample_list: Any) -> dict[str, Any]:
        """Return the losses of a batch by name, e.g. ``train/imagenet/flava_dino``, and their inputs (``dino``).

        Args:
            sample_list: has ``crops_global``, (B, 2, 3, H, H), and may have ``crops_local``, (B, C - 2, 3, H, H) with
                another H. In evaluation, losses use the last temperature of the teacher, so that those of different
                updates can be compared.

        Raises:
            UserError: the batch has no crops, or no update has been started in training.
        """
        crops = self._crops(sample_list)
        student_NK = self.student(crops)
        with torch.no_grad():
            logits_NK = self.teacher(crops[:1])
            probabilities_NK = ((logits_NK - self.center) / self._teacher_temperature()).softmax(dim=-1)
            if self.training:
                self._teacher_sums.add(logits_NK, probabilities_NK)
        shape = (-1, len(sample_list[GLOBAL]), self.settings.head.out_dim)
        student_CBK = student_NK.view(shape) / self.settings.student_temperature
        output = {OUTPUT: Distillation(student_CBK, probabilities_NK.view(shape))}
        losses = {}
        for loss, settings in zip(self.losses, self.settings.losses, strict=True):
            losses.update({key: settings.weight * value for key, value in loss(sample_list, output).items()})
        return {**output, "losses": losses}

    def _crops(self, batch: Any) -> list[Tensor]:
        """Return the global crops and, if there are any, the local crops: first crop 0 of all images, then crop 1."""
        self._check_crops(batch)
        return [batch[name].transpose(0, 1).flatten(0, 1) for name in (GLOBAL, LOCAL) if name in batch]

    def _check_crops(self, batch: Any) -> None:
        if GLOBAL not in batch:
            raise UserError(
                f"Batches of dataset '{batch.dataset_name}' have no {GLOBAL}, which flava_dino needs. If the dataset "
                f"has images, set dataset_config.{batch.dataset_name}.processors.image_processor.type: "
                "flava_multicrop. Otherwise, remove it from the key dataset."
            )

    def _teacher_temperature(self) -> float:
        if not self.training:
            return self.settings.teacher_temperature.last
        if self._schedule is None:
            raise UserError(
                "flava_dino needs a trainer that averages the teacher's weights after every update. Set "
                "training.trainer: flava."
            )
        return self._schedule.temperature(self._update)

    def plan_updates(self, total: int, per_epoch: int) -> None:
        """Set the number of updates of the run, and of an epoch, before training starts."""
        self._schedule = DinoSchedule(self.settings, total, per_epoch)
        if self._schedule.freezes_last_layer(total - 1):
            mmf_api.log(
                f"Warning: {SECTION}.freeze_last_layer: the run has at most {self.settings.freeze_last_layer} epochs, "
                "so the last layer of the head is never trained. Decrease it, or increase training.max_updates."
            )

    def start_update(self, update: int) -> None:
        """Prepare an update, before its first forward pass.

        Args:
            update: number of completed updates. An update that was skipped is started again.
        """
        self._update = update
        self._teacher_sums.clear()

    def fixed_parameters(self) -> list[str]:
        """Return the trained parameters that the optimizer must not change in this update."""
        if self._schedule is None or not self._schedule.freezes_last_layer(self._update):
            return []
        return self._last_layer

    def averaged_modules(self) -> list[str]:
        """Return the modules whose weights ``after_step`` changes although the optimizer does not train them."""
        return ["teacher"]

    def after_step(self, weights: Mapping[str, Tensor]) -> None:
        """Update the centre and the teacher's weights after an optimizer step. Must be called by all processes.

        Args:
            weights: weights of student and teacher by name, or their slices on this process; see ``Engine.after_step``.
        """
        assert self._schedule is not None
        self._teacher_means = self._teacher_sums.means()
        self._teacher_sums.clear()
        momentum = self.settings.center_momentum
        self.center.mul_(momentum).add_(self._teacher_means.logits, alpha=1 - momentum)
        student, teacher = (
            {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
            for prefix in ("student.", "teacher.")
        )
        WeightAverages(student, self._schedule.momentum, averages=teacher).update(student, self._update)

    def output_statistics(self) -> dict[str, float]:
        """Return entropies of the teacher's outputs in the last update, see ``TeacherMeans``; {} if there was none."""
        return {} if self._teacher_means is None else self._teacher_means.statistics()

    def image_features(self, image_BCHW: Tensor) -> Tensor:
        """Return the teacher's (B, D) [CLS] states after the final LayerNorm, for linear probes."""
        return self.teacher.features(image_BCHW)

    def image_attention(self, image_BCHW: Tensor) -> Tensor:
        """Return the (B, heads, rows, columns) attention of [CLS] to the patches in the teacher's last block."""
        return cls_attention(self.teacher.encoder, image_BCHW)

    def loss_counts(self, sample_list: Any) -> dict[str, int]:
        """Return, by name of the loss, the number of values that it is a mean over: images. See ``LossCounts``."""
        self._check_crops(sample_list)
        return {loss.type: len(sample_list[GLOBAL]) for loss in self.settings.losses}

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        """Return a parameter group with weight decay, and one without for biases and LayerNorms."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        not_decayed = [parameter for parameter in trained if parameter.ndim == 1]
        return [
            {"params": [parameter for parameter in trained if parameter.ndim > 1]},
            {"params": not_decayed, "weight_decay": 0.0},
        ]

    def shard_units(self) -> list[str]:
        """Return the paths of the modules that become FSDP units: blocks, encoders and heads of both networks."""
        blocks = [f"encoder.blocks.{number}" for number in range(len(self.student.encoder.blocks))]
        return [f"{name}.{path}" for name in ("student", "teacher") for path in [*blocks, "encoder", "head"]]

    def checkpoint_activations(self) -> None:
        """Enable activation checkpointing of the student's blocks."""
        self.student.encoder.checkpoint_blocks()

    def metadata(self) -> dict[str, str]:
        """Return the configuration for the header of the weights file."""
        return {DINO_CONFIG_KEY: json.dumps(asdict(self.settings))}

    def load_pretrained(self, allow_missing: list[str], allow_extra: list[str], cache_dir: str | None) -> list[str]:
        """Load the image encoder of ``image_encoder.pretrained`` into student and teacher."""
        if (source := self.settings.image_encoder.pretrained) is None:
            return []
        keys = load_image_encoder(
            self.student.encoder,
            source,
            allow_missing=allow_missing,
            allow_extra=[*allow_extra, "mask_token"],
            cache_dir=cache_dir,
        )
        self.teacher.load_state_dict(self.student.state_dict())
        return [keys.message("image encoder", source)]

    def batch_flops(self, batch: Any, num_processes: int) -> float:
        """Return the FLOPs of a batch: forward and backward pass of the student, forward pass of the teacher.

        See ``models.flops`` for what is counted.
        """
        encoder, head = self.settings.image_encoder, self.settings.head
        products = head.hidden_size * (encoder.hidden_size + head.hidden_size + head.bottleneck_size)
        products += head.bottleneck_size * head.out_dim
        total = 0.0
        for name in (GLOBAL, LOCAL):
            if name in batch:
                crops = batch[name].shape[0] * batch[name].shape[1]
                patches = (batch[name].shape[-2] // encoder.patch_size) * (batch[name].shape[-1] // encoder.patch_size)
                forward = 2 * (encoder_products(encoder, crops, 1 + patches, used=1) + crops * products)
                embedding = patch_embedding_flops(encoder, crops * patches)
                total += 3 * forward + embedding
                if name == GLOBAL:
                    total += forward + embedding / 2  # the teacher has no backward pass
        return total
