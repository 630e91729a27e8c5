"""Values of DINO's training that depend on the update: temperature and momentum of the teacher, frozen layers."""

from mmf_flava.config.dino import DinoConfig
from mmf_flava.models.averages import momentum_at


class DinoSchedule:
    """Values of an update, counted from 0 by successful optimizer steps (DINO, section 3.2 and appendix).

    Args:
        total: number of updates of the run.
        per_epoch: number of updates of an epoch, the integer quotient of samples and batch size, at least 1.
    """

    def __init__(self, config: DinoConfig, total: int, per_epoch: int) -> None:
        self.config, self.total, self.per_epoch = config, total, per_epoch

    def temperature(self, update: int) -> float:
        """Return the teacher's temperature. It changes per epoch; the last warm-up epoch has ``last``."""
        config, epoch = self.config.teacher_temperature, update // self.per_epoch
        steps = max(config.warmup_epochs - 1, 1) if config.warmup_epochs else 0
        if epoch >= steps:
            return config.last
        return epoch * ((config.last - config.first) / steps) + config.first

    def momentum(self, update: int) -> float:
        """Return the momentum of the teacher's weights."""
        config = self.config.teacher_momentum
        return momentum_at(update, config.first, config.last, self.total)

    def freezes_last_layer(self, update: int) -> bool:
        """Return whether the last layer of the student's head does not change in this update."""
        return update // self.per_epoch < self.config.freeze_last_layer
