"""Config classes of the model ``flava_dino``, which pretrains an image encoder by self-distillation (DINO).

The defaults are the published protocol for ViT-B/16: Caron et al., "Emerging Properties in Self-Supervised Vision
Transformers" (2021), section 3, and the training arguments released with its ViT-B/16.
"""

from dataclasses import dataclass, field

from mmf_flava.config.model import POSITION_INTERPOLATIONS, ImageEncoderConfig, LossConfig, check_losses_differ
from mmf_flava.config.ranges import ranged
from mmf_flava.errors import UserError


@dataclass
class DinoEncoderConfig(ImageEncoderConfig):
    """The image encoder of student and teacher. Dropout and drop path apply to the student only."""

    drop_path: float = ranged(0.1, at_least=0, below=1)
    layer_norm_eps: float = ranged(1e-6, above=0, below=1)
    position_interpolation: str = ranged("dino", choices=POSITION_INTERPOLATIONS)


@dataclass
class DinoHeadConfig:
    """The projection head: an MLP of three layers, and a linear layer with weights of unit length."""

    hidden_size: int = ranged(2048, at_least=1)
    bottleneck_size: int = ranged(256, at_least=1)
    # number of outputs, K in the paper
    out_dim: int = ranged(65536, at_least=2)
    # false: the weights of each output of the last layer also have a trained length, which starts at 1
    norm_last_layer: bool = True


@dataclass
class TeacherTemperatureConfig:
    """The temperature of the teacher's softmax, which increases linearly per epoch from ``first`` to ``last``."""

    first: float = ranged(0.04, above=0)
    last: float = ranged(0.07, above=0)
    # the number of epochs that have a temperature of the increase; 0: the temperature is ``last`` from the start
    warmup_epochs: int = ranged(50, at_least=0)


@dataclass
class TeacherMomentumConfig:
    """The momentum of the teacher's weights: a cosine per update from ``first`` to ``last`` at the end of the run."""

    first: float = ranged(0.996, at_least=0, below=1)
    last: float = ranged(1.0, at_least=0, at_most=1)

    def check(self, where: str) -> None:
        """Raise UserError if the momentum would decrease."""
        if self.last < self.first:
            raise UserError(f"{where}.last: {self.last:g} is below first {self.first:g}. Increase it.")


@dataclass
class DinoConfig:
    image_encoder: DinoEncoderConfig = field(default_factory=DinoEncoderConfig)
    head: DinoHeadConfig = field(default_factory=DinoHeadConfig)
    # standard deviation of the initial weights
    initializer_range: float = ranged(0.02, at_least=0)
    student_temperature: float = ranged(0.1, above=0)
    teacher_temperature: TeacherTemperatureConfig = field(default_factory=TeacherTemperatureConfig)
    teacher_momentum: TeacherMomentumConfig = field(default_factory=TeacherMomentumConfig)
    # momentum of the centre, the mean of the teacher's outputs
    center_momentum: float = ranged(0.9, at_least=0, below=1)
    # number of epochs in which the last layer of the student's head does not change
    freeze_last_layer: int = ranged(3, at_least=0)
    losses: list[LossConfig] = field(default_factory=lambda: [LossConfig("flava_dino")])

    def check(self, where: str) -> None:
        """Raise UserError if a loss is listed twice."""
        check_losses_differ(self.losses, where)
