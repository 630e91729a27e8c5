"""Patches of trainers and callbacks that reject unknown names and options that MMF's trainers do not support."""

import inspect
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.name_checks import check_trainer
from mmf_flava.compat.patch import patch, source_contains, wrap
from mmf_flava.errors import UserError


@patch(
    "mmf.utils.build",
    what="options that MMF's own trainer ignores, such as training.precision: bf16, are errors; for a "
    "learning rate warm-up that is not shorter than the run, a warning is logged",
    why="MMF ignores these options without a warning, and trains in fp32 on one process",
    since="MMF 1.0.0rc1",
    until="MMF's trainer rejects unknown keys",
)
def unsupported_options(module: Any) -> None:
    @wrap(module, "build_trainer", only_if=flava_run.is_current)
    def build_trainer(original: Any, config: Any) -> Any:
        from mmf_flava.compat import mmf_api
        from mmf_flava.config.schedule import depends_on_data, schedule_warning

        _check_mmf_trainer(config)
        # numbers of updates that are given in epochs are not known yet
        if not depends_on_data(config) and (warning := schedule_warning(config)):
            mmf_api.log(f"Warning: {warning}")
        return original(config)


def _check_mmf_trainer(config: Any) -> None:
    import torch

    from mmf_flava.compat import mmf_api
    from mmf_flava.config import mmf_trainer
    from mmf_flava.processes import world_size

    if config.training.trainer not in mmf_trainer.NAMES:
        return
    # with cuda, MMF splits batches across all GPUs that a process sees
    devices = torch.cuda.device_count() if config.training.device == "cuda" else 1
    mmf_trainer.check_mmf_trainer(config, world_size(), devices)
    if config.model == "flava" and (unread := mmf_trainer.unread_keys(config)):
        mmf_api.log(f"training.trainer: {config.training.trainer} ignores {', '.join(unread)}.")


@patch(
    "mmf.utils.build",
    what="an unknown training.trainer is an error that suggests similar names",
    why="for an unknown name, MMF calls None instead of a class, and the traceback does not contain the name",
    since="MMF 1.0.0rc1",
    until="MMF rejects unknown names itself",
)
def unknown_trainer(module: Any) -> None:
    @wrap(module, "build_trainer", only_if=flava_run.is_current)
    def build_trainer(original: Any, config: Any) -> Any:
        check_trainer(config.training.trainer, module.registry.mapping["trainer_name_mapping"])
        return original(config)


@patch(
    "mmf.trainers.mmf_trainer",
    what="an unknown callback and invalid params are one-line errors; the params of a callback are optional",
    why="for an unknown name, MMF calls None instead of a class; MMF requires params, which most callbacks do not have",
    since="MMF's main branch of 2021",
    until="MMF rejects unknown names itself",
    needed=source_contains("get_callback_class", "MMFTrainer.configure_callbacks"),
)
def unknown_callback(module: Any) -> None:
    @wrap(module.MMFTrainer, "configure_callbacks", only_if=flava_run.is_current)
    def configure_callbacks(original: Any, self: Any) -> None:
        from mmf_flava.compat.mmf_api.callbacks import check_callbacks

        check_callbacks(self.config)
        for callback in self.config.training.get("callbacks") or []:
            with module.omegaconf.open_dict(callback):
                callback.setdefault("params", {})
        original(self)


def _requires_lightning_1(module: Any) -> bool:
    return "resume_from_checkpoint" not in inspect.signature(module.Trainer).parameters and source_contains(
        "resume_from_checkpoint=", "LightningTrainer._load_trainer"
    )(module)


@patch(
    "mmf.trainers.lightning_trainer",
    what="training.trainer: lightning is a one-line error with pytorch-lightning 2 or later",
    why="after building data and model, MMF passes an argument that pytorch_lightning.Trainer has removed",
    since="pytorch-lightning 2.0",
    until="MMF passes the checkpoint to Trainer.fit",
    needed=_requires_lightning_1,
)
def outgrown_lightning(module: Any) -> None:
    @wrap(module.LightningTrainer, "load", only_if=flava_run.is_current)
    def load(original: Any, self: Any) -> None:
        raise UserError(
            "training.trainer: lightning requires pytorch-lightning 1, but a later version is installed. Set it to "
            "mmf, which trains the same models, or to flava for FLAVA."
        )


@patch(
    "mmf.trainers.mmf_trainer",
    what="training.fp16 without CUDA is a one-line error",
    why="MMF prints the traceback of an AssertionError",
    since="MMF's main branch of 2021",
    until="MMF distinguishes invalid input from its own errors",
    needed=source_contains("fp16 cannot be used on cpu", "MMFTrainer.load_fp16_scaler"),
)
def fp16_without_cuda(module: Any) -> None:
    @wrap(module.MMFTrainer, "load_fp16_scaler", only_if=flava_run.is_current)
    def load_fp16_scaler(original: Any, self: Any) -> None:
        if self.training_config.fp16 and self.device == module.torch.device("cpu"):
            raise UserError("training.fp16 requires CUDA, but this run uses the CPU. Remove training.fp16.")
        original(self)
