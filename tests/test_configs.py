"""Every recipe opens with what it is, loads, fits the schema, and trains: the paper's by their small twins."""

import json
import re
import shutil
from dataclasses import fields
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

from mmf_flava.config.model import ClassificationConfig, CoreConfig, FlavaConfig, ImageEncoderConfig
from mmf_flava.config.schema import parse
from mmf_flava.data.build.demo import build_demo
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.data.image_sets.catalogue import SETS
from mmf_flava.errors import UserError
from mmf_flava.evaluation.linear_probe import check
from mmf_flava.evaluation.prompts import Prompts, by_name
from mmf_flava.evaluation.table.paper import paper_table, rows
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.models.pretrained import load_image_encoder
from mmf_flava.training.settings import read_settings
from tests.data.image_sets.published import MAKERS

PROJECT = Path(__file__).parents[1] / "projects" / "flava"
CONFIGS = PROJECT / "configs"
PRETRAIN = CONFIGS / "pretrain"
FILES = sorted(CONFIGS.rglob("*.yaml"))
ZERO_SHOT = sorted((CONFIGS / "zero_shot").glob("*.yaml"))
IMAGE_SETS = sorted((CONFIGS / "datasets" / "image_classification").glob("*.yaml"))
TWINS = sorted(PRETRAIN.glob("demo_*.yaml"))
PAPER = sorted(set(PRETRAIN.glob("*.yaml")) - set(TWINS))
LINEAR_PROBE = sorted((CONFIGS / "linear_probe").glob("*.yaml"))
RETRIEVAL = sorted((CONFIGS / "retrieval").glob("*.yaml"))
PAIRS, IMAGES, TEXT = "pmd", "imagenet", "ccnews_bookcorpus"
CONTRAST, MULTIMODAL = {"global_contrastive"}, {"global_contrastive", "mmm_image", "mmm_text", "itm"}
ALL = MULTIMODAL | {"mim", "mlm"}
# on one thread: small matrices on several cost more than they save
TWO_STEPS = ["training.max_updates=2", "training.log_interval=1", "training.num_threads=1"]
FEW = ["dataset_config.pmd.splits.test=['pairs/val']"]  # 137 instead of 360

# recipe: datasets, losses, updates, batch size, what the image encoder starts from
SAID = {
    "text_encoder": (TEXT, {"mlm"}, 125_000, 2048, None),
    "image_encoder": (IMAGES, {"mim"}, 62_500, 2048, "dino"),
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


FINETUNE = CONFIGS / "finetune"
# recipe: dataset, row of the table, labels, loss, updates, batch size, learning rate, image size, metrics
FINETUNED = {
    "hateful_memes": ("hateful_memes", "hateful_memes", 2, "cross_entropy", 24_000, 256, 1e-5, 224, "roc_auc accuracy"),
    "snli_ve": ("visual_entailment", "snli_ve", 3, "cross_entropy", 24_000, 256, 1e-5, 224, "accuracy macro_f1"),
    "vqa2": ("vqa2", "vqav2", 3129, "logit_bce", 44_000, 256, 1e-4, 480, "vqa_accuracy"),
    "imagenet": ("image_classification", None, 1000, "cross_entropy", 25_000, 1024, 1e-4, 224, "accuracy"),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_opens_with_a_comment(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", sorted({*FILES} - {*PAPER, *TWINS}), ids=name_of)
def test_a_file_loads_by_itself(path):
    config = load_yaml(str(path))
    if "flava" in config.get("model_config", {}):
        section = OmegaConf.merge(
            load_yaml(str(CONFIGS / "defaults.yaml")).model_config.flava, config.model_config.flava
        )
        section.codebook.path = section.text_encoder.pretrained = None  # hold ${env...}, which MMF defines
        parse(FlavaConfig, section, "model_config.flava")


@pytest.mark.parametrize(
    "path", [CONFIGS / "demo.yaml", *PAPER, *TWINS, *ZERO_SHOT, *LINEAR_PROBE, *RETRIEVAL], ids=name_of
)
def test_a_recipe_opens_with_its_command_and_has_a_row_in_the_table(path):
    opening = path.read_text().partition("\nincludes:")[0]
    assert re.search(rf"mmf_run\)? config=projects/flava/configs/{name_of(path)}", opening)
    table = (PROJECT / "README.md").read_text()
    assert f"](configs/{name_of(path).replace('/demo_', '/') if path in TWINS else name_of(path)})" in table
    if path in PAPER:
        for word in ("accelerator hours), estimated; measured: not run", "\n# Paper: "):
            assert word in opening
        score = re.search(r"# Paper: (.*) \(Table C\.1", opening)
        assert score is None or score[1] in table


@pytest.mark.parametrize("path", sorted(FINETUNE.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_finetuning_recipe_opens_with_its_command_and_has_a_row_in_the_table(path):
    name = path.stem.removeprefix("demo_")
    if name == "defaults":
        return
    opening = path.read_text().partition("\nincludes:")[0].partition("\nmodel:")[0]
    assert f"mmf_run config=projects/flava/configs/{name_of(path)}" in opening.replace("$(which mmf_run)", "mmf_run")
    assert name in FINETUNED and (FINETUNE / f"demo_{name}.yaml").is_file()
    assert f"](configs/finetune/{name}.yaml)" in (PROJECT / "README.md").read_text()
    if path.stem == name:
        assert "accelerator hours), estimated; measured: not run" in opening and "\n# Paper: " in opening


@pytest.mark.parametrize("name", FINETUNED)
def test_what_a_finetuning_recipe_says(name):
    registry.unregister("config")  # another test's, which MMF would ask for its folders
    config = read_recipe(str(FINETUNE / f"{name}.yaml"))
    dataset, task, labels, loss, updates, batch_size, rate, size, metrics = FINETUNED[name]
    training, optimizer = config.training, config.optimizer
    assert (config.model, config.datasets, config.evaluation.task) == ("flava_classification", dataset, task)
    assert (training.trainer, training.max_updates, training.batch_size) == ("flava_finetune", updates, batch_size)
    assert (optimizer.type, optimizer.params.lr, config.scheduler.type) == ("AdamW", rate, "warmup_cosine")
    assert (training.early_stop.criteria, training.early_stop.minimize) == (f"{dataset}/{metrics.split()[0]}", False)
    assert config.evaluation.metrics == metrics.split()
    section = {key: value for key, value in config.model_config.flava_classification.items() if key != "model"}
    settings = parse(ClassificationConfig, section, "model_config.flava_classification")
    assert (settings.num_labels, settings.losses, settings.image_encoder.image_size) == (labels, [{"type": loss}], size)
    assert settings.pretrained == "facebook/flava-full"
    assert config.dataset_config[dataset].processors.image_processor.params.image_size == size
    if task is not None:  # the paper's (B.2)
        assert (settings.classifier.hidden_size, settings.classifier.num_layers) == (1536, 2)
        assert (optimizer.params.weight_decay, config.scheduler.params.num_warmup_steps) == (0.01, 2000)
        assert task in {one for row in rows() for tasks in row.tasks for one in tasks}


def test_finetuning_starts_from_the_sizes_of_pretraining():
    defaults = load_yaml(str(FINETUNE / "defaults.yaml")).model_config.flava_classification
    core = [field.name for field in fields(CoreConfig)]
    pretraining = load_yaml(str(CONFIGS / "models" / "flava_base.yaml")).model_config.flava
    assert {name: defaults[name] for name in core} == {name: pretraining[name] for name in core}
    small = load_yaml(str(FINETUNE / "parts" / "demo.yaml")).model_config.flava_classification
    demo = load_yaml(str(CONFIGS / "models" / "flava_demo.yaml")).model_config.flava
    assert {name: small[name] for name in core if name in small} == {name: demo[name] for name in core if name in demo}


def test_every_image_set_of_the_paper_has_a_zero_shot_recipe_and_a_linear_probe():
    names = {path.stem for path in IMAGE_SETS}
    assert len(names) == 22  # section 7's list, as in Table C.1
    assert {path.stem for path in ZERO_SHOT} == {*names, "demo_digits"}
    assert {path.stem for path in LINEAR_PROBE} == {*names, "demo_digits"}


@pytest.mark.parametrize("path", ZERO_SHOT, ids=lambda path: path.stem)
def test_what_a_zero_shot_recipe_says(path, monkeypatch):
    monkeypatch.setenv("MMF_SAVE_DIR", "/elsewhere")
    config = read_recipe(str(path))
    section, settings = config.dataset_config.image_classification, read_settings(config)
    assert (config.model, config.datasets, config.run_type) == ("flava", "image_classification", "test")
    assert (settings.evaluation.task, config.env.save_dir) == (path.stem, f"/elsewhere/zero_shot/{path.stem}")
    assert config.checkpoint.resume_pretrained
    assert parse(FlavaConfig, config.model_config.flava, "model_config.flava").losses == []
    if section.source is not None:
        splits = [split for listed in section.splits.values() for split in listed]
        assert len(splits) == len({*splits}) >= 2
        assert {*splits} <= {*SETS[section.source].splits}
    zero_shot = settings.evaluation.zero_shot
    found = Prompts(zero_shot.classes, zero_shot.templates) if zero_shot.prompts is None else by_name(zero_shot.prompts)
    assert found.templates
    if path.stem != "demo_digits":
        said = re.search(r": [\d,]+ images, ([\d,]+) classes", path.read_text())[1]
        listed = (CONFIGS / "datasets" / "image_classification" / path.name).read_text()
        assert f": {said} classes; the test split has" in listed
        assert len(found.classes) in (0, int(said.replace(",", "")))


@pytest.mark.parametrize("path", LINEAR_PROBE, ids=lambda path: path.stem)
def test_what_a_linear_probe_says(path, monkeypatch):
    monkeypatch.setenv("MMF_SAVE_DIR", "/elsewhere")
    config = read_recipe(str(path))
    section, settings = config.dataset_config.image_classification, read_settings(config)
    evaluation = settings.evaluation
    assert (config.model, config.datasets, config.run_type) == ("flava", "image_classification", "test")
    assert (evaluation.task, config.env.save_dir) == (path.stem, f"/elsewhere/linear_probe/{path.stem}")
    assert (evaluation.losses, evaluation.features_dir) == (False, f"{config.env.cache_dir}/flava_features")
    assert config.checkpoint.resume_pretrained
    assert parse(FlavaConfig, config.model_config.flava, "model_config.flava").losses == []
    check(evaluation.linear_probe, settings.datasets)
    by_class = path.stem in ("aircraft", "caltech101", "flowers102", "pets")  # CLIP's
    assert evaluation.linear_probe.metric == ("mean_per_class" if by_class else "accuracy")
    train, val, test = (section.splits[split] or [] for split in ("train", "val", "test"))
    assert train and test and len({*train, *val, *test}) == len(train + val + test)
    if section.source is not None:
        published = {*SETS[section.source].splits}
        assert {*train, *val, *test} <= published
        assert {*val} == {"val", "valid"} & published - {*test}  # a set's own, where it has one
    if path.stem == "demo_digits":
        return
    assert evaluation.linear_probe.lambdas == [1e-6, 1e6] and evaluation.linear_probe.max_iterations == 1000
    said = path.read_text()
    images, classes = re.search(r" and ([\d,]+) test images, ([\d,]+) classes", said).groups()
    listed = (CONFIGS / "datasets" / "image_classification" / path.name).read_text()
    assert f": {classes} classes; the test split has {images} images" in listed
    (row,) = (row.name for row in rows() if row.section == "linear_probe" and (path.stem,) in row.tasks)
    score = f"{paper_table('table_c1').cells[row]['FLAVA']:.2f}"
    assert f", estimated; measured: not run. Paper: accuracy {score} (Table C.1, column 12)." in said
    (line,) = (
        line for line in (PROJECT / "README.md").read_text().splitlines() if f"linear_probe/{path.name})" in line
    )
    assert line.endswith(f" | {images} | {re.search(r'accelerator, (.*?);', said)[1]} | not run | {score} |")


def test_every_recipe_of_the_paper_has_a_twin():
    assert {path.stem for path in PAPER} == SAID.keys()
    assert {path.stem for path in TWINS} == {f"demo_{name}" for name in SAID}


@pytest.mark.parametrize("name", SAID)
def test_what_a_recipe_says(name):
    config = read_recipe(str(PRETRAIN / f"{name}.yaml"))
    datasets, losses, updates, batch_size, start = SAID[name]
    model, training = config.model_config.flava, config.training
    assert config.datasets == datasets
    assert {loss.type.removeprefix("flava_") for loss in model.losses} == losses
    assert (training.max_updates, training.batch_size) == (updates, batch_size)
    assert (training.precision, training.sharding, training.evaluation_interval) == ("fp16", "fsdp", 8000)
    assert config.optimizer.params.lr == (5e-4 if name == "text_encoder" else 1e-3)
    assert (start or "None") in str(model.image_encoder.pretrained)
    criteria = "zero_shot/accuracy" if "pmd" in datasets else f"losses/flava_{min(losses)}"
    assert (training.early_stop.criteria, training.early_stop.minimize) == (criteria, "pmd" not in datasets)
    if "," in datasets:
        assert training.sampling.ratios == {PAIRS: 0.70, IMAGES: 0.15, TEXT: 0.15}
    if losses & {"mim", "mmm_image"}:
        assert model.codebook.type == "dvae"
    gradient = "local" if name in ("clip", "flava_c_local") else "global"
    assert model.losses[0].get("params", {}).get("gradient", "global") == gradient
    assert read_settings(config).datasets == datasets.split(",")
    parse(FlavaConfig, model, "model_config.flava")


@pytest.mark.parametrize("folder", [None, "/elsewhere"])
def test_the_joint_stage_starts_from_the_folder_of_the_text_stage(monkeypatch, folder):
    monkeypatch.delenv("MMF_SAVE_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("MMF_SAVE_DIR", folder)
    text, joint = (read_recipe(str(PRETRAIN / f"{name}.yaml")) for name in ("text_encoder", "flava"))
    assert text.env.save_dir == f"{folder or './save'}/text_encoder"
    assert joint.model_config.flava.text_encoder.pretrained == text.env.save_dir


def test_beits_file_fits_what_the_start_allows(tmp_path):
    """BEiT as its authors pretrained it: relative positions that all blocks share, no absolute ones."""
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


@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_what_a_retrieval_recipe_says(name):
    path = CONFIGS / "retrieval" / f"{name}.yaml"
    config = read_recipe(str(path))
    settings = read_settings(config)
    assert (config.run_type, settings.datasets, settings.evaluation.task) == ("test", ["karpathy"], name)
    recall = settings.evaluation.retrieval
    assert (recall.dataset, recall.recall_at[:2], recall.rerank, recall.merge_equal_captions) == (
        "karpathy",
        [1, 5],
        0,
        False,
    )
    data = config.dataset_config.karpathy
    assert (data.splits.test, data.captions_per_image) == ([f"dataset_{name}.json"], 5)
    parse(FlavaConfig, config.model_config.flava, "model_config.flava")
    score = re.search(r"# Paper: (.*) \(Table C\.1, column 12\)", path.read_text())
    assert score is not None and score[1] in (PROJECT / "README.md").read_text()


# ---------------------------------------------------------------------- two steps each


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The demo's data."""
    folder = tmp_path_factory.mktemp("data")
    build_demo(folder / "flava_demo", progress=False)
    return folder


@pytest.fixture
def train(data, tmp_path, monkeypatch):
    """``train(name, *options)`` runs a twin in this process, as ``mmf_run`` would, and returns its folder."""

    def train(name: str, *options: str) -> Path:
        monkeypatch.setenv("MMF_SAVE_DIR", str(tmp_path))
        for dataset in ("pmd", "imagenet", "ccnews_bookcorpus"):
            for processor in ("image_processor", "text_processor"):
                registry.unregister(f"{dataset}_{processor}")  # MMF keeps the first ones that a process ever built
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


@pytest.mark.parametrize("name", [path.stem for path in TWINS])
def test_a_twin_trains_two_steps(train, name):
    folder = train(name)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    datasets, losses, *_ = SAID[name.removeprefix("demo_")]
    assert [line["update"] for line in lines if line["split"] == "train"] == [1, 2]
    (val,) = (line for line in lines if line["split"] == "val")
    assert val["losses"].keys() == {f"flava_{loss}" for loss in losses}
    assert ("zero_shot" in val) == ("pmd" in datasets)
    assert (folder / "checkpoints" / "best").read_text().startswith("update_00000002 ")


def test_stages_chain(train):
    """At a learning rate of 0 the joint stage leaves its text encoder as the text stage made it."""
    text = train("demo_text_encoder")
    start = f"model_config.flava.text_encoder.pretrained={text}"
    joint = train("demo_flava", start, "optimizer.params.lr=0.0", "training.seed=2")
    made, taken = (load_file(path / "checkpoints/update_00000002/model.safetensors") for path in (text, joint))
    names = [name for name in made if name.startswith("flava.text_encoder.")]
    assert len(names) > 30
    assert [name for name in names if not made[name].equal(taken[name])] == []
    assert not made["flava.text_projection.weight"].equal(taken["flava.text_projection.weight"])


def test_retrieval_of_what_a_twin_trained(train, data):
    """The demo's retrieval recipe on a run's folder: both rankings of the 137 scans among captions that they share."""
    trained = train("demo_flava_mm")
    train("../retrieval/demo_digits", f"checkpoint.resume_file={trained}", "evaluation.retrieval.rerank=3")
    found = json.loads((trained.parent / "retrieval" / "demo_digits" / "evaluation.json").read_text())["retrieval"]
    assert (found["images"], found["captions"]) == (137, 145)
    recalls = {name: value for name, value in found.items() if "_r" in name}
    assert len(recalls) == 12 and 0 < recalls["image_to_text_r10"] < 1


@pytest.fixture
def classify(data, tmp_path):
    """``classify(name, weights, *options)`` runs a zero-shot recipe at the demo's size; returns its figures."""

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
    """On sets in small, as they lie on disk, with weights of two steps."""
    weights = train("demo_clip")
    assert classify("demo_digits", weights)["zero_shot"]["count"] == 360
    for name, source, classes in (
        ("dtd", "DTD", ["banded", "zigzagged"]),
        ("ucf101", "UCF101", ["Apply Eye Makeup", "Yo Yo"]),
    ):
        MAKERS[source](tmp_path)
        result = classify(name, weights, f"dataset_config.image_classification.data_dir={tmp_path}")
        assert result["zero_shot"]["classes"] == classes
        assert np.array(result["zero_shot"]["confusion"]).sum(1).tolist() == [1, 1]
        assert result["losses"] == {}


def test_classes_that_do_not_fit_end_before_the_run(train, classify, tmp_path):
    """Flowers' prompts on textures: 102 names for 2 labels."""
    MAKERS["DTD"](tmp_path)
    options = (f"dataset_config.image_classification.data_dir={tmp_path}", "evaluation.zero_shot.prompts=flowers102")
    with pytest.raises(UserError, match=r"102 classes, dataset 'image_classification' has 2: no label 2"):
        classify("dtd", train("demo_clip"), *options)


def test_a_twin_by_its_command(mmf, data, cache, tmp_path):
    """The command of its opening, in an empty folder."""
    (cache / "data").mkdir(exist_ok=True)
    shutil.copytree(data / "flava_demo", cache / "data" / "flava_demo", dirs_exist_ok=True)
    result = mmf("mmf_run", "training.max_updates=2", config="projects/flava/configs/pretrain/demo_clip.yaml")
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 2
