"""The check of the complete config: mistakes in sections of ours and of MMF are one sentence that names the key."""

import argparse
import copy

import pytest
import torch
from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.compat.mmf_api.registered import check_registered
from mmf_flava.config.model import MODULES
from mmf_flava.config.recipe_check import check_recipe, resolve
from mmf_flava.config.recipes import recipe_path
from mmf_flava.config.schedule import schedule_warning
from mmf_flava.errors import UserError
from mmf_flava.evaluation.scorer import Scorer


def load(recipe, *options):
    setup_imports()
    arguments = argparse.Namespace(config_override=None, opts=[f"config={recipe_path(recipe)}", *options])
    return Configuration(arguments).config


@pytest.fixture(scope="module")
def recipes():
    return {name: load(name) for name in ("demo", "finetune/demo_vqa2")}


def check(config, **changes):
    """Check a copy of the config with other values; ``a__b`` stands for the key ``a.b``."""
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True, merge=False)
    check_recipe(config, OmegaConf.create(mmf_api.defaults()))
    check_registered(resolve(config))


def test_average_of_the_weights_is_refused_with_dino():
    with pytest.raises(UserError, match=r"training\.ema is not supported by model: flava_dino"):
        check(load("pretrain/demo_image_encoder_dino"), training__ema={"enabled": True})


FLAVA = "model_config__flava__"


def cosine(**params):
    """Changes of a recipe that set the scheduler ``flava_cosine``."""
    return {"scheduler": {"type": "flava_cosine", "params": {"num_training_steps": 9, **params}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": 0.5}, r"optimizer: must be a section \(a mapping of keys to values\), got 0\.5"),
        ({"optimizer__parms": {"lr": 1}}, "'parms' is not a key of optimizer. Did you mean 'params'"),
        ({"optimizer__params": None}, r"optimizer\.params: must be a section"),
        ({"scheduler__type": None}, r"scheduler\.type must be given"),
        ({"training__batch_size": "???"}, r"training\.batch_size must be given"),
        ({"training__num_workers": "???"}, r"training\.num_workers must be given"),
        ({"optimizer__params__lr": "???"}, r"optimizer\.params\.lr must be given"),
        ({"checkpoint__resume_file": ""}, r"checkpoint\.resume_file: must not be empty"),
        ({"optimizer__params__betas": []}, r"optimizer\.params\.betas: must be a list of 2 numbers"),
        ({"optimizer__params__betas": [0.9, 1.0]}, r"optimizer\.params\.betas: .*below 1, got \[0\.9, 1\.0\]"),
        ({"optimizer__params__lr": -1e-3}, r"optimizer\.params\.lr: must be at least 0"),
        ({"optimizer__params__lr": float("nan")}, r"optimizer\.params\.lr: must be finite"),
        ({"optimizer__params__wieght_decay": 0.1}, r"'wieght_decay' is not a key of .*params.* 'weight_decay'"),
        ({"optimizer__params__amsgrad": "yes"}, r"optimizer\.params\.amsgrad: must be true or false, got 'yes'"),
        ({"optimizer__type": "AdamV"}, r"optimizer\.type: unknown optimizer 'AdamV'\. Did you mean 'Adam"),
        ({"optimizer__type": "lr_scheduler"}, r"optimizer\.type: unknown optimizer 'lr_scheduler'"),
        ({"optimizer__type": None}, r"optimizer\.type must be given"),
        ({"optimizer__type": "SGD"}, r"'betas' is not a key of optimizer\.params"),
        ({"scheduler__params__num_warmup_step": 5}, r"'num_warmup_step' is not a key of scheduler\.params"),
        ({"scheduler__params__num_warmup_steps": -1}, r"scheduler\.params\.num_warmup_steps: must be at least 0"),
        ({"scheduler__params": {"num_warmup_steps": 1}}, r"scheduler\.params\.num_training_steps must be given"),
        ({"scheduler__type": "warmup_cosin"}, r"scheduler\.type: unknown scheduler 'warmup_cosin'.*'warmup_cosine'"),
        (cosine(num_warmup_steps=None, warmup_epochs=2, min_lr=0, weight_decay_end=0.4), None),
        (cosine(warmup_steps=1), r"'warmup_steps' is not a key of scheduler\.params\. Did you mean 'num_warmup_steps'"),
        (cosine(min_lr=-1e-6), r"scheduler\.params\.min_lr: must be at least 0, got -1e-06"),
        (cosine(warmup_epochs=1.5), r"scheduler\.params\.warmup_epochs: must be an integer, got 1\.5"),
        (cosine(weight_decay_end="high"), r"scheduler\.params\.weight_decay_end: must be a number, got 'high'"),
        ({"scheduler": {"type": "flava_cosine"}}, r"must be given for scheduler\.type: flava_cosine"),
        ({"scheduler__type": "flava_cosin"}, r"scheduler\.type: unknown scheduler 'flava_cosin'.*'flava_cosine'"),
        ({"training__clip_norm_mode": "parameter"}, None),
        (
            {"training__clip_norm_mode": "parameter", "training__clip_gradients": False},
            r"clip_norm_mode: parameter has no effect without training\.clip_gradients\. Set clip_gradients: true",
        ),
        ({"training__clip_norm_mode": "each"}, r"clip_norm_mode: each is not supported .* or to parameter, for"),
        ({FLAVA + "image_encoder__attention_dropout": 1e308}, r"image_encoder\.attention_dropout: .*below 1"),
        ({FLAVA + "text_encoder__num_heads": 0}, r"text_encoder\.num_heads: must be at least 1, got 0"),
        ({FLAVA + "text_encoder__num_heads": 5}, r"text_encoder\.num_heads: 5 does not divide hidden_size 96"),
        ({FLAVA + "image_encoder__image_size": 25}, r"image_size: 25 is not a multiple of patch_size 6. Set it to 24"),
        ({FLAVA + "logit_scale_init": 5.0}, r"logit_scale_init: 5 is above logit_scale_max"),
        ({FLAVA + "losses": [{"type": "flava_itm"}] * 2}, r"losses: flava_itm is listed 2 times.*weight: 2}"),
        (
            {FLAVA + "losses": [{"type": "flava_global_contrastive", "params": {"gradient": g}}
                                for g in ("global", "local")]},
            "flava_global_contrastive is listed 2 times.* with one set of params",
        ),
        ({FLAVA + "losses": [{"type": "flava_mi"}]}, r"losses: unknown loss 'flava_mi'\. Did you mean 'flava_mim'"),
        ({FLAVA + "losses": [{"type": "flava_itm", "params": {"x": 1}}]}, r"'x' is not a key of .*losses\[0\]\.params"),
        ({FLAVA + "losses": [{"type": "mse"}]}, None),
        ({FLAVA + "losses": ["flava_itm"]}, r"losses\[0\]: must be a section"),
        ({"model_config__flav": {}}, "'flav' is not a key of model_config. Did you mean 'flava'"),
        ({"training__max_grad_l2_norm": -1}, r"training\.max_grad_l2_norm: must be above 0, got -1"),
        ({"training__spike_sigma": -1}, r"training\.spike_sigma: must be above 0"),
        ({"training__num_workers": -1}, r"training\.num_workers: must be at least 0"),
        ({"training__batch_size": "64"}, r"training\.batch_size: must be an integer, got '64'"),
        ({"training__batch_size": None}, r"training\.batch_size: must be an integer, got None"),
        ({"training__max_updates": None}, r"training\.max_updates or training\.max_epochs must be given"),
        ({"training__log_interval": 0}, r"training\.log_interval: must be at least 1, got 0"),
        ({"training__tensorboard": "yes"}, r"training\.tensorboard: must be true or false, got 'yes'"),
        ({"training__early_stop": True}, r"training\.early_stop: must be a section"),
        ({"training__early_stop__patienc": 1}, "'patienc' is not a key of training.early_stop.*'patience'"),
        ({"training__seed": 2**32}, r"training\.seed: must be at least -1 and at most"),
        ({"training__logger_level": "loud"}, r"training\.logger_level: must be one of debug, info"),
        ({"checkpoint__max_to_keep": 0}, r"checkpoint\.max_to_keep: must be at least 1 or -1, got 0"),
        ({"checkpoint__reset__optimiser": True}, "'optimiser' is not a key of checkpoint.reset"),
        ({"evaluation__predict_file_format": "xml"}, r"evaluation\.predict_file_format: must be one of csv, json"),
        ({"evaluation__task": "cifar"}, r"evaluation\.task: unknown task 'cifar'; did you mean cifar10"),
        ({"evaluation__task": "CIFAR-10"}, None),
        ({"evaluation__zero_shot__templates": ["a {c}"]}, r"templates: 'a \{c\}' has no placeholder \{\}"),
        ({"evaluation__zero_shot__classes": ["a", "b", "a"]}, r"zero_shot\.classes: 'a' is listed more than once"),
        ({"evaluation__metrics": ["accuracy"]}, r"evaluation\.metrics is not supported by model: flava"),
        ({"checkpoint__resume_best": True}, r"checkpoint\.resume_best has no effect without checkpoint\.resume"),
        ({"checkpoint__resume_zoo": "flava_full"}, r"unknown name 'flava_full'\. Did you mean 'flava.full'"),
        ({"checkpoint__pretrained_state_mapping": {"a": "b"}}, r"mapping is not supported by model: flava\. Set"),
        ({"env__save_dir": None}, r"env\.save_dir: must be a string, got None"),
        ({FLAVA + "losses": []}, r"model_config\.flava\.losses is empty"),
        ({FLAVA + "logit_scale_max": 1000.0}, r"logit_scale_max: must be at least 0 and at most 11"),
        ({FLAVA + "losses": [{"type": "flava_global_contrastive", "params": {"gradient": "all"}}]}, "global or local"),
        ({"evaluation__zero_shot__dataset": "pmdd"}, r"evaluation\.zero_shot\.dataset: unknown dataset 'pmdd'.*'pmd'"),
        ({"env__save_dir": 5}, r"env\.save_dir: must be a string"),
        ({"env__savedir": "x"}, "'savedir' is not a key of env. Did you mean 'save_dir'"),
        ({"distributed__backend": "ncll"}, r"distributed\.backend: must be one of nccl, gloo, mpi"),
        ({"run_type": "trian_val"}, r"run_type: 'trian_val' must consist of train, val, .*did you mean train"),
    ],
)  # fmt: skip
def test_mistake_is_one_sentence_with_its_key(recipes, change, message):
    check(recipes["demo"])
    if message is None:
        check(recipes["demo"], **change)  # a loss of MMF has no attribute needs: see test_pretraining
        return
    with pytest.raises(UserError, match=message) as error:
        check(recipes["demo"], **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_config__vqa2__use_image": True}, r"'use_image' is not a key of dataset_config\.vqa2"),
        ({"dataset_config__vqa2__anotations": {}}, r"'anotations' is not a key of .*vqa2\. Did you mean 'annotations'"),
        ({"dataset_config__vqa2__annotations__trian": []}, r"'trian' is not a key of .*annotations"),
        ({"dataset_config__vqa2__use_images": "yes"}, r"dataset_config\.vqa2\.use_images: must be true or false"),
        ({"dataset_config__vqa2__max_features": True}, r"dataset_config\.vqa2\.max_features: must be a number"),
        ({"dataset_config__vqa3": {}}, r"'vqa3' is not a key of dataset_config\. Did you mean 'vqa2'"),
        ({"model_config__flava_classification__num_labels": 0}, r"num_labels: must be at least 1"),
        ({"model_config__flava_classification__losses": ["mse", {"type": "mse"}]}, "mse is listed 2 times"),
        ({"model_config__flava_classification__lr_multiplier": {"head": 2}}, r"'head' is not a key of .*lr_multiplier"),
        ({"training__sharding": "dpp"}, "training.sharding: must be one of none, ddp, fsdp"),
        ({"evaluation__metrics": ["acuracy"]}, r"evaluation\.metrics\[0\]: unknown metric 'acuracy'.*'accuracy'"),
        ({"evaluation__metrics": [{"typ": "f1"}]}, r"'typ' is not a key of evaluation\.metrics\[0\]\. .*'type'"),
        ({"training__early_stop__minimize": True}, r"minimize: true would keep the checkpoint with the worst vqa2"),
        ({"model_config__flava_classification__freeze": [*MODULES]}, r"freeze lists all modules"),
        ({"training__early_stop__criteria": "vqa2/vqa_acc"}, r"criteria: .* not compute 'vqa2/vqa_acc'.*vqa_accuracy"),
        ({"evaluation__ema": True}, r"evaluation\.ema: true .*training\.ema\.enabled is false"),
        ({"training__ema": {"momentum": 1.0}}, r"training\.ema\.momentum: must be at least 0 and below 1"),
        ({"training__ema": {"modles": []}}, r"'modles' is not a key of training\.ema\. Did you mean 'modules'"),
        ({"optimizer__params": {}}, r"optimizer\.params\.lr must be given"),
    ],
)  # fmt: skip
def test_mistake_in_a_finetuning_recipe(recipes, change, message):
    check(recipes["finetune/demo_vqa2"])
    with pytest.raises(UserError, match=message):
        check(recipes["finetune/demo_vqa2"], **change)


@pytest.mark.parametrize(
    "change",
    [
        {"training__seed": None},
        {"training__max_updates": None, "training__max_epochs": 3},
        {"checkpoint__resume_zoo": "owner/name@main"},
        {"checkpoint__max_to_keep": -1},
        {"optimizer__params__fused": True},
        {"run_type": "train_val_inference"},
        {"training__resume": True},
    ],
)
def test_valid_values(recipes, change):
    check(recipes["demo"], **change)


@pytest.mark.parametrize(
    ("key", "value"),
    [("training.batch_size", "${nope.x}"), ("optimizer.params.lr", "${oc.env:NOT_SET}"), ("env.save_dir", "${typo:x}"),
     ("evaluation.zero_shot.classes", ["a", "${nope}"]), ("model_config.flava.codebook.path", "${env.data_dirr}/x")],
)  # fmt: skip
def test_interpolation_without_a_value_names_its_key(tmp_path, key, value):
    file, content = tmp_path / "recipe.yaml", value
    for name in reversed(key.split(".")):
        content = {name: content}
    file.write_text(OmegaConf.to_yaml({"includes": [recipe_path("demo")], **content}))
    with pytest.raises(UserError, match=key.replace(".", r"\.")) as error:
        Configuration(argparse.Namespace(config_override=None, opts=[f"config={file}"]))
    assert "\n" not in str(error.value)


def test_warm_up_that_is_not_shorter_than_the_run_is_one_warning(recipes):
    config = copy.deepcopy(recipes["demo"])
    assert schedule_warning(config) is None
    config.training.max_updates, config.optimizer.params.lr = 50, 1e-3
    assert schedule_warning(config) == (
        "scheduler.params.num_warmup_steps: 50 is not less than training.max_updates, 50. The learning rate reaches at "
        "most 0.00098 instead of 0.001."
    )
    optimizer = mmf_api.build_optimizer([{"params": [torch.zeros(1, requires_grad=True)]}], config)
    scheduler, rates = mmf_api.build_scheduler(optimizer, config), []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.00098)
    config.run_type = "test"
    assert schedule_warning(config) is None


def test_schedule_that_is_shorter_than_the_run_is_a_warning(recipes):
    config = copy.deepcopy(recipes["demo"])
    config.scheduler.params.num_training_steps = 100
    assert schedule_warning(config) == (
        "scheduler.params.num_training_steps: 100 is less than training.max_updates, 1800. The schedule of the "
        "learning rate ends after 100 updates. Set it to ${training.max_updates}."
    )


@pytest.mark.parametrize("needs", [None, "contrasts"])
def test_loss_of_a_user_names_the_output_that_it_needs(recipes, needs):
    attributes = {} if needs is None else {"needs": needs}
    registry.register_loss("my_loss")(type("MyLoss", (torch.nn.Module,), attributes))
    try:
        model = registry.get_model_class("flava")(OmegaConf.create({"losses": [{"type": "my_loss"}]}))
        with pytest.raises(UserError, match=r"losses: my_loss .*needs.* contrast, mmm_image, mmm_text, itm, mim, mlm"):
            model.init_losses()
        if needs:
            with pytest.raises(UserError, match=r"my_loss needs 'contrasts'"):
                check(recipes["demo"], model_config__flava__losses=[{"type": "my_loss"}])
    finally:
        registry.mapping["loss_name_mapping"].pop("my_loss")


def test_metrics_may_be_one_name(recipes):
    criteria = {"training__early_stop__criteria": "vqa2/accuracy"}
    check(recipes["finetune/demo_vqa2"], evaluation__metrics="accuracy", **criteria)
    assert list(Scorer("accuracy", losses=False).metrics.metrics) == ["accuracy"]
