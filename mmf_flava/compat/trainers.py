"""The names that a recipe gives to ``training.trainer`` and ``training.callbacks``."""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure, source_has
from mmf_flava.config.nearness import did_you_mean, near
from mmf_flava.errors import UserError

# what MMF's lines call their own trainer
OWN = {"base_trainer", "mmf"}


@cure(
    "mmf.utils.build",
    when="after",
    what="an unknown training.trainer is an error that names the near misses",
    why="MMF calls None, and the traceback does not say which name nobody has",
    since="MMF 1.0.0rc1",
    until="MMF refuses unknown names itself",
)
def unknown_trainer(module: ModuleType) -> None:
    build = module.build_trainer

    @functools.wraps(build)
    def build_trainer(config: Any) -> Any:
        name, known = config.training.trainer, module.registry.mapping["trainer_name_mapping"]
        if name not in known:
            misses = sorted(OWN & {*known}) if name in OWN else near(str(name), known)
            hint = did_you_mean(misses) if misses else f"known are {', '.join(sorted(known))}"
            raise UserError(f"training.trainer: no trainer is called {name!r} in this MMF: {hint}")
        return build(config)

    vars(module)["build_trainer"] = build_trainer


@cure(
    "mmf.trainers.mmf_trainer",
    when="after",
    what="an unknown callback, or params that it does not take, are an error that says so; params may be left out",
    why="MMF calls None, and asks for params that most callbacks do not have",
    since="MMF's main branch of 2021",
    until="MMF refuses unknown names itself",
    needed=source_has("get_callback_class", "MMFTrainer.configure_callbacks"),
)
def unknown_callback(module: ModuleType) -> None:
    configure = module.MMFTrainer.configure_callbacks

    @functools.wraps(configure)
    def configure_callbacks(self: Any) -> None:
        from mmf_flava.compat.mmf_api.callbacks import check_callbacks

        check_callbacks(self.config)
        for callback in self.config.training.get("callbacks") or []:
            with module.omegaconf.open_dict(callback):
                callback.setdefault("params", {})
        configure(self)

    module.MMFTrainer.configure_callbacks = configure_callbacks


def _outgrown(module: ModuleType) -> bool:
    return "resume_from_checkpoint" not in inspect.signature(module.Trainer).parameters and source_has(
        "resume_from_checkpoint=", "LightningTrainer._load_trainer"
    )(module)


@cure(
    "mmf.trainers.lightning_trainer",
    when="after",
    what="training.trainer: lightning is refused in one sentence where its library is too new for it",
    why="MMF gives the library's Trainer what it no longer takes, after data and model are there",
    since="pytorch-lightning 2.0",
    until="MMF gives the checkpoint to Trainer.fit",
    needed=_outgrown,
)
def outgrown_lightning(module: ModuleType) -> None:
    def load(self: Any) -> None:
        raise UserError(
            "training.trainer: lightning is written for pytorch-lightning 1, and a later one is installed: choose mmf, "
            "which trains the same models, or for FLAVA flava."
        )

    module.LightningTrainer.load = load
