"""Every recipe has a header, loads, fits the schema and trains; the paper's recipes train as their small variants."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from mmf.utils.configuration import load_yaml
from mmf_cli.run import run
from omegaconf import OmegaConf
from safetensors.torch import load_file
from timm.models.beit import Beit

from mmf_flava.config.dino import DinoConfig
from mmf_flava.config.model import FlavaConfig, ImageEncoderConfig
from mmf_flava.config.processors import MulticropConfig
from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.schema import parse_section
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.data.prepare.demo import prepare_demo
from mmf_flava.errors import UserError
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.training.settings import read_settings
from mmf_flava.weights.encoders import load_image_encoder
from tests.data.image_sets.published import WRITERS

PROJECT = Path(__file__).parents[1] / "projects" / "flava"
CONFIGS = PROJECT / "configs"
PRETRAIN = CONFIGS / "pretrain"
FILES = sorted(CONFIGS.rglob("*.yaml"))
ZERO_SHOT = sorted((CONFIGS / "zero_shot").glob("*.yaml"))
DEMOS = [CONFIGS / f"{name}.yaml" for name in ("demo", "demo_photos", "demo_photos_dino", "demo_photos_mim")]
OWN = [PRETRAIN / "own.yaml", PRETRAIN / "demo_own.yaml"]
SMALL_VARIANTS = sorted(set(PRETRAIN.glob("demo_*.yaml")) - set(OWN))
PAPER = sorted(set(PRETRAIN.glob("*.yaml")) - set(SMALL_VARIANTS) - set(OWN))
LINEAR_PROBE = sorted((CONFIGS / "linear_probe").glob("*.yaml"))
RETRIEVAL = sorted((CONFIGS / "retrieval").glob("*.yaml"))
PAIRS, IMAGES, TEXT = "pmd", "imagenet", "ccnews_bookcorpus"
CONTRAST, MULTIMODAL = {"global_contrastive"}, {"global_contrastive", "mmm_image", "mmm_text", "itm"}
ALL = MULTIMODAL | {"mim", "mlm"}
# one thread is faster for these small matrices
TWO_STEPS = ["training.max_updates=2", "training.log_interval=1", "training.num_threads=1"]
FEW = ["dataset_config.pmd.splits.test=['pairs/val']"]  # 137 images instead of 360

# recipe: datasets, losses, updates, samples per update, initial weights of the image encoder
EXPECTED = {
    "text_encoder": (TEXT, {"mlm"}, 125_000, 2048, None),
    "image_encoder": (IMAGES, {"mim"}, 62_500, 2048, "dino"),
    "image_encoder_mim": (IMAGES, {"mim"}, 500_000, 2048, None),
    "image_encoder_dino": (IMAGES, {"dino"}, 500_400, 1024, None),
    "mim": (IMAGES, {"mim"}, 150_000, 8192, None),
    "mlm": (TEXT, {"mlm"}, 150_000, 8192, None),
    "flava_c_local": (PAIRS, CONTRAST, 150_000, 8192, None),
    "flava_c": (PAIRS, CONTRAST, 150_000, 8192, None),
    "flava_c_beit": (PAIRS, CONTRAST, 150_000, 8192, "beit"),
    "flava_c_dino": (PAIRS, CONTRAST, 150_000, 8192, "dino"),
    "flava_mm": (PAIRS, MULTIMODAL, 150_000, 8192, None),
    "flava_mm_beit": (PAIRS, MULTIMODAL, 150_000, 8192, "beit"),
    "flava_mm_dino": (PAIRS, MULTIMODAL, 150_000, 8192, "dino"),
    "flava_no_init": (f"{PAIRS},{IMAGES},{TEXT}", ALL, 214_286, 8192, None),
    "flava_beit": (f"{PAIRS},{IMAGES},{TEXT}", ALL, 214_286, 8192, "beit"),
    "flava": (f"{PAIRS},{IMAGES},{TEXT}", ALL, 214_286, 8192, "dino"),
    "clip": (PAIRS, CONTRAST, 150_000, 8192, None),
}


# learning rates that differ from those of the joint stage
RATES = {"text_encoder": 5e-4, "image_encoder_mim": 1.5e-3, "image_encoder_dino": 3e-3}


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_starts_with_a_comment(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", sorted({*FILES} - {*PAPER, *SMALL_VARIANTS}), ids=name_of)
def test_file_loads_on_its_own(path):
    config = load_yaml(str(path))
    if "flava" in config.get("model_config", {}):
        section = OmegaConf.merge(
            load_yaml(str(CONFIGS / "defaults.yaml")).model_config.flava, config.model_config.flava
        )
        section.codebook.path = section.text_encoder.pretrained = None  # contain ${env...}, which MMF defines
        parse_section(FlavaConfig, section, "model_config.flava")


@pytest.mark.parametrize(
    "path", [*DEMOS, *PAPER, *SMALL_VARIANTS, *OWN, *ZERO_SHOT, *LINEAR_PROBE, *RETRIEVAL], ids=name_of
)
def test_recipe_header_has_its_command_and_readme_has_a_row(path):
    header = path.read_text().partition("\nincludes:")[0]
    assert re.search(rf"mmf_run\)? config=projects/flava/configs/{name_of(path)}", header)
    table = (PROJECT / "README.md").read_text()
    assert f"](configs/{name_of(path).replace('/demo_', '/') if path in SMALL_VARIANTS else name_of(path)})" in table
    if path in PAPER:
        for word in ("accelerator hours), estimated; measured: not run", "\n# Paper: "):
            assert word in header
        score = re.search(r"# Paper: (.*) \(Table C\.1", header)
        assert score is None or score[1] in table


def test_every_recipe_of_the_paper_has_a_small_variant():
    assert {path.stem for path in PAPER} == EXPECTED.keys()
    assert {path.stem for path in SMALL_VARIANTS} == {f"demo_{name}" for name in EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_recipe_settings(name):
    config = read_recipe(str(PRETRAIN / f"{name}.yaml"))
    datasets, losses, updates, samples, initial = EXPECTED[name]
    model, training = config.model_config[config.model], config.training
    assert config.datasets == datasets
    assert {loss.type.removeprefix("flava_") for loss in model.losses} == losses
    assert (training.max_updates, training.batch_size * training.update_frequency) == (updates, samples)
    distributed = ("bf16", "ddp") if "dino" in losses else ("fp16", "fsdp")
    assert (training.precision, training.sharding, training.evaluation_interval) == (*distributed, 8000)
    assert config.optimizer.params.lr == RATES.get(name, 1e-3)
    assert (initial or "None") in str(model.image_encoder.pretrained)
    criteria = "zero_shot/accuracy" if "pmd" in datasets else f"losses/flava_{min(losses)}"
    criteria = "knn/accuracy" if "dino" in losses else criteria
    assert (training.early_stop.criteria, training.early_stop.minimize) == (criteria, criteria.startswith("losses"))
    if "," in datasets:
        assert config.multitasking.params.sampling_ratios == {PAIRS: 0.70, IMAGES: 0.15, TEXT: 0.15}
    if losses & {"mim", "mmm_image"}:
        assert model.codebook.type == "dvae"
    gradient = "local" if name in ("clip", "flava_c_local") else "global"
    assert model.losses[0].get("params", {}).get("gradient", "global") == gradient
    assert read_settings(config).datasets == datasets.split(",")
    parse_section(MODELS[config.model], model, f"model_config.{config.model}")


def test_protocol_of_dino():
    """The training arguments that were released with DINO's ViT-B/16."""
    config = read_recipe(str(PRETRAIN / "image_encoder_dino.yaml"))
    training, schedule = config.training, config.scheduler
    assert config.optimizer.params.lr == 0.00075 * training.batch_size / 256
    assert training.max_updates == 400 * (1_281_167 // training.batch_size)
    assert (schedule.type, schedule.params.warmup_epochs, schedule.params.min_lr) == ("flava_cosine", 10, 2e-6)
    assert (config.optimizer.params.weight_decay, schedule.params.weight_decay_end) == (0.04, 0.4)
    assert (training.clip_gradients, training.clip_norm_mode, training.max_grad_l2_norm) == (True, "parameter", 0.3)
    section = parse_section(MODELS["flava_dino"], config.model_config.flava_dino, "model_config.flava_dino")
    assert section == DinoConfig()
    assert (section.image_encoder.drop_path, section.head.out_dim, section.freeze_last_layer) == (0.1, 65536, 3)
    assert (section.teacher_temperature.first, section.teacher_temperature.last) == (0.04, 0.07)
    assert (section.teacher_momentum.first, section.teacher_momentum.last) == (0.996, 1.0)
    params = parse_section(
        MulticropConfig, config.dataset_config.imagenet.processors.image_processor.params, "image_processor.params"
    )
    assert params == MulticropConfig(normalisation="imagenet")
    assert (params.num_local, params.global_scale, params.local_scale) == (10, [0.25, 1.0], [0.05, 0.25])


def test_schedule_of_beit():
    config = read_recipe(str(PRETRAIN / "image_encoder_mim.yaml"))
    epoch = 1_281_167 // config.training.batch_size
    assert (config.training.max_updates, config.scheduler.params.num_warmup_steps) == (800 * epoch, 10 * epoch)
    assert (config.optimizer.params.weight_decay, config.scheduler.params.min_lr) == (0.05, 1e-5)
    assert config.model_config.flava.image_encoder.drop_path == 0.1


def test_own_pairs_start_from_the_released_weights_or_from_scratch():
    data = ["dataset_config.pmd.data_dir=/my.csv"]
    config = read_recipe(str(OWN[0]), data)
    assert (config.checkpoint.resume_file, config.checkpoint.resume_pretrained) == ("facebook/flava-full", True)
    assert config.model_config.flava.codebook.path == "facebook/flava-image-codebook"
    assert config.dataset_config.pmd.processors.text_processor.params.tokenizer == "bert-base-uncased"
    assert read_recipe(str(OWN[0]), [*data, "checkpoint.resume_file=null"]).checkpoint.resume_file is None
    assert read_recipe(str(OWN[1]), data).model_config.flava.codebook.type == "kmeans"


@pytest.mark.parametrize("folder", [None, "/elsewhere"])
def test_joint_stage_loads_the_best_checkpoint_of_the_text_stage(monkeypatch, folder):
    monkeypatch.delenv("MMF_SAVE_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("MMF_SAVE_DIR", folder)
    text, joint = (read_recipe(str(PRETRAIN / f"{name}.yaml")) for name in ("text_encoder", "flava"))
    assert text.env.save_dir == f"{folder or './save'}/text_encoder"
    assert joint.model_config.flava.text_encoder.pretrained == f"{text.env.save_dir}/checkpoints/best"


def test_beit_weights_load_with_the_allowed_differences_of_the_recipe(tmp_path):
    """BEiT's published weights have a relative position bias shared by all blocks and no absolute positions."""
    config = ImageEncoderConfig(hidden_size=8, num_layers=1, num_heads=2, mlp_size=16, image_size=32)
    beit = Beit(
        img_size=32, embed_dim=8, depth=1, num_heads=2, mlp_ratio=2, global_pool="token", init_values=0.1,
        use_abs_pos_emb=False, use_shared_rel_pos_bias=True,
    )  # fmt: skip
    torch.save({"model": beit.state_dict()}, tmp_path / "beit.pth")
    allowed = load_yaml(str(PRETRAIN / "parts" / "start_beit.yaml")).checkpoint
    with pytest.raises(UserError, match="relative_position_bias_table"):
        load_image_encoder(ImageEncoder(config), tmp_path / "beit.pth")
    load_image_encoder(ImageEncoder(config), tmp_path / "beit.pth", **OmegaConf.to_container(allowed))


# ---------------------------------------------------------------------- training for two steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of the demo's data."""
    folder = tmp_path_factory.mktemp("data")
    prepare_demo(folder / "flava_demo", progress=False)
    return folder


@pytest.fixture
def train(data, tmp_path, monkeypatch):
    """Return ``train(name, *options)``, which runs a small variant in this process and returns its run folder."""

    def train(name: str, *options: str) -> Path:
        monkeypatch.setenv("MMF_SAVE_DIR", str(tmp_path))
        for dataset in ("pmd", "imagenet", "ccnews_bookcorpus"):
            for processor in ("image_processor", "text_processor"):
                registry.unregister(f"{dataset}_{processor}")  # MMF keeps the first processors built in a process
        run(
            [
                f"config={PRETRAIN / name}.yaml",
                *TWO_STEPS,
                f"env.data_dir={data}",
                f"env.cache_dir={tmp_path}",
                *FEW,
                *options,
            ]
        )
        return tmp_path / name

    threads = torch.get_num_threads()
    yield train
    torch.set_num_threads(threads)
    torch.autograd.set_detect_anomaly(False)


def test_own_pairs_train_from_a_table_alone(train, data, tmp_path):
    """``data_dir`` is a CSV file with paths and titles; there is no validation split."""
    names = sorted((data / "flava_demo/images/train").rglob("*.png"), key=lambda path: path.name)[:40]
    rows = [f"{path},a scan of a {path.parent.name}" for path in names]
    (tmp_path / "pairs.csv").write_text("\n".join(["filepath,title", *rows]) + "\n")
    train("demo_own", f"dataset_config.pmd.data_dir={tmp_path / 'pairs.csv'}", "dataset_config.pmd.splits.test=null")
    lines = map(json.loads, (tmp_path / "demo_own_pretraining/metrics.jsonl").read_text().splitlines())
    assert [line["update"] for line in lines if line["split"] == "train"] == [1, 2]


@pytest.mark.parametrize("name", [path.stem for path in SMALL_VARIANTS])
def test_small_variant_trains_two_steps(train, name):
    folder = train(name)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    datasets, losses, *_ = EXPECTED[name.removeprefix("demo_")]
    assert [line["update"] for line in lines if line["split"] == "train"] == [1, 2]
    (val,) = (line for line in lines if line["split"] == "val")
    assert val["losses"].keys() == {f"flava_{loss}" for loss in losses}
    assert ("zero_shot" in val, "knn" in val) == ("pmd" in datasets, "dino" in losses)
    assert (folder / "checkpoints" / "best").read_text().startswith("update_00000002 ")


def test_batch_size_per_device_and_detect_anomaly(train):
    folder = train("demo_mlm", "training.batch_size_per_device=8", "training.detect_anomaly=true")
    assert torch.is_anomaly_enabled()
    assert json.loads((folder / "summary.json").read_text())["samples"] == 16


def test_joint_stage_loads_the_text_encoder(train):
    """With a learning rate of 0, the joint stage keeps the text encoder of the text stage."""
    text = train("demo_text_encoder")
    pretrained = f"model_config.flava.text_encoder.pretrained={text}"
    joint = train("demo_flava", pretrained, "optimizer.params.lr=0.0", "training.seed=2")
    text_weights, joint_weights = (
        load_file(path / "checkpoints/update_00000002/model.safetensors") for path in (text, joint)
    )
    names = [name for name in text_weights if name.startswith("flava.text_encoder.")]
    assert len(names) > 30
    assert [name for name in names if not text_weights[name].equal(joint_weights[name])] == []
    assert not text_weights["flava.text_projection.weight"].equal(joint_weights["flava.text_projection.weight"])


def test_retrieval_recipe_evaluates_a_run_folder(train, data):
    """The demo's retrieval recipe with and without re-ranking, on 137 scans and 145 captions."""
    trained = train("demo_flava_mm")
    train("../retrieval/demo_digits", f"checkpoint.resume_file={trained}", "evaluation.retrieval.rerank=3")
    found = json.loads((trained.parent / "retrieval" / "demo_digits" / "evaluation.json").read_text())["retrieval"]
    assert (found["images"], found["captions"]) == (137, 145)
    recalls = {name: value for name, value in found.items() if "_r" in name}
    assert len(recalls) == 12 and 0 < recalls["image_to_text_r10"] < 1


@pytest.fixture
def classify(data, tmp_path):
    """Return ``classify(name, weights, *options)``: run a zero-shot recipe at the demo's size; return its results."""

    def classify(name: str, weights: Path, *options: str) -> dict:
        for processor in ("image_processor", "text_processor"):
            registry.unregister(f"image_classification_{processor}")
        recipe = tmp_path / "small.yaml"
        recipe.write_text(f"includes:\n- {CONFIGS}/zero_shot/{name}.yaml\n- {CONFIGS}/models/flava_demo.yaml\n")
        tokenizer = "dataset_config.image_classification.processors.text_processor.params.tokenizer"
        overrides = [
            f"env.data_dir={data}",
            f"env.cache_dir={tmp_path}",
            f"{tokenizer}={data}/flava_demo/tokenizer",
            "training.num_workers=0",
        ]
        run([f"config={recipe}", f"checkpoint.resume_file={weights}", *overrides, *options])
        return json.loads((tmp_path / "zero_shot" / name / "evaluation.json").read_text())

    return classify


def test_zero_shot_recipes_run(train, classify, tmp_path):
    """On small datasets in their published layouts, with weights after two training steps."""
    weights = train("demo_clip")
    assert classify("demo_digits", weights)["zero_shot"]["count"] == 360
    for name, source, classes in (
        ("dtd", "DTD", ["banded", "zigzagged"]),
        ("ucf101", "UCF101", ["Apply Eye Makeup", "Yo Yo"]),
    ):
        WRITERS[source](tmp_path)
        result = classify(name, weights, f"dataset_config.image_classification.data_dir={tmp_path}")
        assert result["zero_shot"]["classes"] == classes
        assert np.array(result["zero_shot"]["confusion"]).sum(1).tolist() == [1, 1]
        assert result["losses"] == {}


def test_mismatching_classes_raise_an_error(train, classify, tmp_path):
    """The 102 class names of Flowers on a texture dataset with 2 labels."""
    WRITERS["DTD"](tmp_path)
    options = (f"dataset_config.image_classification.data_dir={tmp_path}", "evaluation.zero_shot.prompts=flowers102")
    with pytest.raises(UserError, match=r"102 classes, but dataset 'image_classification' has 2: no label 2"):
        classify("dtd", train("demo_clip"), *options)


def test_small_variant_runs_by_its_command(mmf, data, cache, tmp_path):
    """The command of the recipe's header, run in an empty folder."""
    (cache / "data").mkdir(exist_ok=True)
    shutil.copytree(data / "flava_demo", cache / "data" / "flava_demo", dirs_exist_ok=True)
    result = mmf("mmf_run", "training.max_updates=2", config="projects/flava/configs/pretrain/demo_clip.yaml")
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 2
