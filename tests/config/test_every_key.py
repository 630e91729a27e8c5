"""Every key of the models and of a run has an effect: another value changes the object that is built from it."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmf.common.registry import registry
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config import model as model_config
from mmf_flava.config import run as run_config
from mmf_flava.config.schedule import set_updates_of_epochs
from mmf_flava.config.schema import parse_section
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.models.codebook import build as codebook_build
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.training import precision, settings, update
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.guard import UpdateGuard
from mmf_flava.training.monitor import Monitor

SIZE = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "mlp_size": 16}
TINY = {
    "image_encoder": {**SIZE, "image_size": 4, "patch_size": 2},
    "text_encoder": {**SIZE, "vocab_size": 11, "max_length": 6},
    "multimodal_encoder": {**SIZE},
    "projection_size": 4,
}
ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")
Probe = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def registered():
    """The models, and MMF's current config, which its losses read."""
    setup_imports()
    config = registry.get("config", no_warning=True)
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    yield
    registry.register("config", config)


def build(name: str, path: str, value: Any) -> Any:
    """Build a tiny model with another value of one key; pretrained weights are not loaded."""
    section = {**TINY, "codebook": {"vocab_size": 5}} if name == "flava" else {**TINY, "num_labels": 3}
    config = OmegaConf.create({name: section})
    OmegaConf.update(config, f"{name}.{path}", value, force_add=True)
    torch.manual_seed(0)
    model = registry.get_model_class(name)(config[name])
    if "pretrained" not in path and "compile" not in path:
        model.build()
        model.init_losses()
    return model


TRANSFORMER: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "num_layers": (3, lambda encoder: len(encoder.blocks)),
    "num_heads": (4, lambda encoder: encoder.blocks[0].attn.num_heads),
    "mlp_size": (24, lambda encoder: encoder.blocks[1].mlp.fc1.out_features),
    "dropout": (0.25, lambda encoder: encoder.blocks[0].mlp.drop1.p),
    "attention_dropout": (0.5, lambda encoder: encoder.blocks[0].attn.attn_drop.p),
    "drop_path": (0.25, lambda encoder: encoder.blocks[-1].drop_path2.drop_prob),
    "layer_norm_eps": (1e-3, lambda encoder: encoder.norm.eps),
    "hidden_size": (12, lambda encoder: encoder.norm.normalized_shape[0]),
}
IMAGE = {
    "image_size": (6, lambda encoder: encoder.patch_embed.img_size[0]),
    "patch_size": (1, lambda encoder: encoder.patch_embed.patch_size[0]),
    "position_interpolation": ("dino", lambda encoder: encoder.position_interpolation),
}
TEXT = {
    "vocab_size": (13, lambda encoder: encoder.word_embeddings.num_embeddings),
    "max_length": (9, lambda encoder: encoder.position_embeddings.num_embeddings),
    "type_vocab_size": (3, lambda encoder: encoder.token_type_embeddings.num_embeddings),
    "pad_token_id": (2, lambda encoder: encoder.word_embeddings.padding_idx),
}
MULTIMODAL = {"mask_padding": (False, lambda encoder: encoder.mask_padding)}
PROBES: dict[type, dict[str, tuple[Any, Probe]]] = {
    model_config.TransformerConfig: TRANSFORMER,
    model_config.ImageEncoderConfig: TRANSFORMER | IMAGE,
    model_config.TextEncoderConfig: TRANSFORMER | TEXT,
    model_config.MultimodalEncoderConfig: TRANSFORMER | MULTIMODAL,
}
CORE: dict[str, tuple[Any, Probe]] = {
    "projection_size": (5, lambda model: model.flava.image_projection.out_features),
    "initializer_range": (0.0, lambda model: float(model.flava.text_projection.weight.detach().std())),
    "compile": (True, lambda model: model.settings.compile),
    "logit_scale_init": (1.5, lambda model: float(model.flava.logit_scale)),
    "logit_scale_max": (3.5, lambda model: model.flava.logit_scale_max),
}
MODELS: dict[str, dict[str, tuple[Any, Probe]]] = {
    "flava": CORE | {
        "losses": (
            [{"type": "flava_mim", "weight": 2.0}, {"type": "flava_itm", "weight": 1.0}],
            lambda model: [{"type": loss.name, "weight": model.settings.losses[n].weight} for n, loss in
                           enumerate(model.losses)],
        ),
    },
    "flava_classification": CORE | {
        "num_labels": (7, lambda model: model.classifier.layers[-1].out_features),
        "pretrained": ("weights", lambda model: model.settings.pretrained),
        "freeze": (["text_encoder"], lambda model: [name for name in model_config.MODULES[:3] if not any(
            parameter.requires_grad for parameter in getattr(model.flava, name).parameters())]),
        "lr_multiplier": ({"classifier": 3.0}, lambda model: {"classifier": max(
            group["lr"] for group in model.get_optimizer_parameters(
                OmegaConf.create({"optimizer": {"params": {"lr": 1.0}}})))}),
        "layer_decay": (0.5, lambda model: sorted({
            group["lr"] for group in model.get_optimizer_parameters(
                OmegaConf.create({"optimizer": {"params": {"lr": 1.0}}}))})[-2]),
        "losses": ([{"type": "logit_bce"}], lambda model: [{"type": loss.name} for loss in model.losses.losses]),
        "classifier.hidden_size": (20, lambda model: model.classifier.layers[0].out_features),
        "classifier.num_layers": (3, lambda model: sum(
            isinstance(layer, torch.nn.Linear) for layer in model.classifier.layers)),
        "classifier.dropout": (0.4, lambda model: next(
            layer.p for layer in model.classifier.layers if isinstance(layer, torch.nn.Dropout))),
    },
}  # fmt: skip
LOSS = {
    "type": ("flava_itm", lambda loss: loss.name),
    "weight": None,  # in MODELS
    "params": ({"gradient": "local"}, lambda loss: {"gradient": loss.loss_criterion.gradient}),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_keys_of_the_encoders(name, encoder):
    schema = next(cls for cls in PROBES if cls.__name__.lower() == f"{encoder.replace('_', '')}config")
    for field in dataclasses.fields(schema):
        key = f"{encoder}.{field.name}"
        if field.name == "pretrained":
            assert getattr(build(name, key, "weights").settings, encoder).pretrained == "weights"
        elif field.name == "hidden_size" and name == "flava_classification":
            continue  # equal in all encoders; the widths of flava are independent
        else:
            value, probe = PROBES[schema][field.name]
            assert probe(getattr(build(name, key, value).flava, encoder)) == value, key


@pytest.mark.parametrize("name", MODELS)
def test_keys_of_the_models(name):
    schema = {"flava": model_config.FlavaConfig, "flava_classification": model_config.ClassificationConfig}[name]
    fields = {field.name for field in dataclasses.fields(schema)} - {*ENCODERS, "codebook", "classifier"}
    if name == "flava_classification":
        fields |= {f"classifier.{field.name}" for field in dataclasses.fields(model_config.ClassifierConfig)}
    assert fields == MODELS[name].keys()
    for key, (value, probe) in MODELS[name].items():
        assert probe(build(name, key, value)) == value, key


def test_keys_of_a_loss():
    assert {field.name for field in dataclasses.fields(model_config.LossConfig)} == LOSS.keys()
    for key in ("type", "params"):
        value, probe = LOSS[key]
        entry = {"type": "flava_global_contrastive", key: value}
        assert probe(build("flava", "losses", [entry]).losses[0]) == value


def test_keys_of_the_codebook(monkeypatch, tmp_path):
    values = {
        "type": "dvae", "path": "weights", "vocab_size": 7, "hidden_size": 4, "num_groups": 3,
        "num_blocks_per_group": 1, "dtype": "bf16", "channels_last": False, "sha256": "other",
    }  # fmt: skip
    assert values.keys() == {field.name for field in dataclasses.fields(model_config.CodebookConfig)}
    sizes = {key: values[key] for key in codebook_build.SIZES}
    read = []
    monkeypatch.setattr(
        codebook_build, "read_codebook_weights", lambda path: read.append(path) or DalleEncoder(**sizes).state_dict()
    )
    section = {key: value for key, value in values.items() if key != "sha256"}
    codebook = build("flava", "codebook", section).codebook
    assert isinstance(codebook, DalleEncoder) and read == ["weights"]
    assert codebook.blocks.output.conv.out_channels == 7 and codebook.blocks.input.out_channels == 4
    assert hasattr(codebook.blocks, "group_3") and not hasattr(codebook.blocks, "group_4")
    assert not hasattr(codebook.blocks.group_1.group, "block_2")
    assert codebook.dtype == torch.bfloat16 and codebook.memory_format == torch.contiguous_format
    with pytest.raises(codebook_build.UserError, match="but sha256 is other"):
        build("flava", "codebook", values)


# ---------------------------------------------------------------------- a run


def recipe(section: str, key: str, value: Any) -> Any:
    config = OmegaConf.create(mmf_api.defaults())
    run = {"model": "flava", "datasets": "pmd", "run_type": "train", "optimizer": {"type": "AdamW", "params": {}}}
    config = OmegaConf.merge(config, run, {"model_config": {"flava": TINY}, "training": {"trainer": "flava"}})
    config.training.clip_gradients = key == "max_grad_l2_norm"
    config.scheduler = {"type": "warmup_linear", "params": {"num_warmup_steps": 1, "num_training_steps": 9}}
    if (section, key) == ("evaluation", "ema"):
        config.training.ema = {"enabled": True}
    OmegaConf.update(config, f"{section}.{key}", value, force_add=True)
    return config


def updater(config: Any) -> update.Updater:
    model = build("flava", "projection_size", 4)
    return update.Updater(model, config, settings.read_settings(config).training, torch.device("cpu"))


def parsed(section: str, key: str) -> Callable[[Any], Any]:
    return lambda config: getattr(getattr(settings.read_settings(config), section), key)


def suite(config: Any) -> EvaluationSuite:
    names = {"val": {"pmd": None}}
    return EvaluationSuite(settings.read_settings(config).evaluation, names, 0, torch.device("cpu"))


def checkpoints(config: Any) -> CheckpointFolder:
    section = settings.read_settings(config).checkpoint
    return CheckpointFolder("folder", section.max_to_keep, section.background, print)


WANDB = {
    "enabled": False, "project": "p", "entity": "team", "name": "n", "job_type": "j", "group": "g", "tags": ["a"],
    "mode": "offline", "log_checkpoint": False,
}  # fmt: skip
EMA = {"enabled": True, "momentum": 0.5, "final_momentum": 0.75, "modules": ["flava"], "start": 3}
RESET = {"all": True, "optimizer": True, "counts": True, "fp16_scaler": True, "data": True}
RUN: dict[str, dict[str, tuple[Any, Probe]]] = {
    "training": {
        "precision": ("bf16", lambda config: "bf16" if updater(config).autocast else "fp32"),
        "sharding": ("ddp", parsed("training", "sharding")),
        "activation_checkpointing": (
            True,
            lambda config: updater(config).engine.module.flava.image_encoder.blocks[0].forward.func.__name__
            == "checkpoint",
        ),
        "batch_size_per_device": (3, lambda config: settings.read_settings(config) and config.training.batch_size),
        "cudnn_benchmark": (True, parsed("training", "cudnn_benchmark")),
        "detect_anomaly": (True, parsed("training", "detect_anomaly")),
        "update_frequency": (4, parsed("training", "update_frequency")),
        "lanes": (8, parsed("training", "lanes")),
        "max_grad_l2_norm": (0.5, lambda config: updater(config).max_norm),
        "spike_sigma": (
            6.0,
            lambda config: UpdateGuard("f", settings.read_settings(config).training.spike_sigma).sigma,
        ),
        "num_threads": (1, parsed("training", "num_threads")),
        "tf32": (True, parsed("training", "tf32")),
        "deterministic": (True, parsed("training", "deterministic")),
        "process_group_timeout": (5, lambda config: config.training.process_group_timeout),
        "ema": (EMA, lambda config: vars(settings.read_settings(config).training.ema)),
        "wandb": (WANDB, lambda config: vars(settings.read_settings(config).training.wandb)),
    },
    "checkpoint": {
        "max_to_keep": (7, lambda config: checkpoints(config).retention.max_to_keep),
        "background": (True, lambda config: checkpoints(config)._thread is not None),
        "allow_missing": (["heads.*"], parsed("checkpoint", "allow_missing")),
        "allow_extra": (["head.*"], parsed("checkpoint", "allow_extra")),
        "reset": (RESET, lambda config: vars(settings.read_settings(config).checkpoint.reset)),
    },
    "evaluation": {
        "task": ("cifar10", parsed("evaluation", "task")),
        "batch_size": (9, lambda config: suite(config).rounds.batch_size),
        "features_dir": ("/cache", lambda config: str(suite(config).extractor.folder)),
        "losses": (False, lambda config: suite(config).config.losses),
        "weights": ("last", parsed("evaluation", "weights")),
        "ema": (True, parsed("evaluation", "ema")),
        "zero_shot": (
            {
                "dataset": "pmd",
                "classes": ["a", "b"],
                "templates": ["{}"],
                "prompts": None,
                "classes_file": None,
                "captions_have_classes": True,
            },
            lambda config: vars(suite(config).config.zero_shot),
        ),
        "retrieval": (
            {"dataset": "pmd", "recall_at": [2], "merge_equal_captions": True, "rerank": 3},
            lambda config: vars(suite(config).config.retrieval),
        ),
        "linear_probe": (
            {"dataset": "pmd", "solver": "sklearn", "max_iterations": 5, "metric": "mean_per_class",
             "lambdas": [0.1, 1.0], "val_share": 0.5, "at_validations": True},
            lambda config: vars(suite(config).config.linear_probe),
        ),
        "knn": (
            {"dataset": "pmd", "k": 3, "temperature": 0.5},
            lambda config: vars(suite(config).config.knn),
        ),
        "attention_maps": (
            {"dataset": "pmd", "images": 3},
            lambda config: vars(suite(config).config.attention_maps),
        ),
        "examples": ({"images": 1, "sentences": 2}, lambda config: vars(suite(config).config.examples)),
    },
    "multitasking": {
        "enabled": (False, parsed("multitasking", "enabled")),
        "type": ("round_robin", parsed("multitasking", "type")),
        "params": ({"start_idx": 1}, parsed("multitasking", "params")),
    },
}  # fmt: skip
SECTIONS = {
    "training": run_config.TrainingConfig,
    "checkpoint": run_config.CheckpointConfig,
    "evaluation": run_config.EvaluationConfig,
    "multitasking": run_config.MultitaskingConfig,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_keys_of_a_run(section):
    assert RUN[section].keys() == {field.name for field in dataclasses.fields(SECTIONS[section])}
    for key, (value, probe) in RUN[section].items():
        default = getattr(SECTIONS[section](), key)
        assert value != default or key == "type"
        assert probe(recipe(section, key, value)) == value, key


MMF: dict[str, tuple[Any, Probe]] = {
    "lr_scheduler": (True, lambda config: updater(config).scheduler is not None),
    "early_stop.enabled": (True, lambda config: Monitor.of_run(config).patience is not None),
    "early_stop.patience": (7, lambda config: Monitor.of_run(enabled(config)).patience),
    "early_stop.criteria": ("losses/x", lambda config: Monitor.of_run(config).criteria),
    "max_epochs": (
        2,
        lambda config: (
            set_updates_of_epochs(config, {"train": {"pmd": range(1024)}}) and config.training.max_updates // 2
        ),
    ),
}


def enabled(config: Any) -> Any:
    config.training.early_stop.enabled = True
    return config


def test_keys_of_mmf():
    for key, (value, probe) in MMF.items():
        assert (
            probe(recipe("training", key, value))
            == value
            != OmegaConf.select(OmegaConf.create(mmf_api.defaults()), f"training.{key}")
        ), key


def test_every_class_has_a_table():
    nested = (run_config.WandbConfig, run_config.ZeroShotConfig, run_config.RetrievalConfig)
    nested += (run_config.KnnConfig, run_config.AttentionMapsConfig)
    nested += (run_config.LinearProbeConfig, run_config.ExamplesConfig, run_config.ResetConfig, run_config.EmaConfig)
    given = {"WandbConfig": WANDB, "ResetConfig": RESET, "EmaConfig": EMA} | {
        type_name: RUN["evaluation"][key][0]
        for type_name, key in (
            ("ZeroShotConfig", "zero_shot"),
            ("RetrievalConfig", "retrieval"),
            ("LinearProbeConfig", "linear_probe"),
            ("KnnConfig", "knn"),
            ("AttentionMapsConfig", "attention_maps"),
            ("ExamplesConfig", "examples"),
        )
    }
    for schema in nested:
        assert given[schema.__name__].keys() == {field.name for field in dataclasses.fields(schema)}
        assert vars(parse_section(schema, given[schema.__name__], "here")) == given[schema.__name__]
    tested = {*SECTIONS.values(), *nested, *PROBES, model_config.CodebookConfig, model_config.LossConfig}
    tested |= {model_config.CoreConfig, model_config.FlavaConfig}
    tested |= {model_config.ClassifierConfig, model_config.ClassificationConfig}
    classes = {
        cls
        for module in (run_config, model_config)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
    }
    assert classes == tested


def test_precision_of_a_run_is_full_without_fp16():
    assert isinstance(updater(recipe("training", "precision", "bf16")).precision, precision.FullPrecision)
