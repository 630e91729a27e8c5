"""Small finetunings on toy data: three recipes of FLAVA with dropout, and MMF's model ``cnn_lstm`` on ``clevr``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmf_flava.config.recipes import recipe_path
from tests.data import glue_toys
from tests.finetuning import stock_toys, toys

SIZES = {
    "train": 48,
    "val": 15,
    "test": 7,
}  # samples; 15 and 7 are not multiples of the batch size and of the processes
COMMON = (
    "training.batch_size=8",
    "training.num_workers=0",
    "training.log_interval=1",
    "training.tensorboard=false",
    "checkpoint.resume=true",
)
ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")
TINY = tuple(
    f"model_config.flava_classification.{encoder}.{size}"
    for encoder in ENCODERS
    for size in ("num_layers=1", "hidden_size=32", "mlp_size=64", "num_heads=2")
)
MODULES = (*ENCODERS, "classifier")


@dataclass(frozen=True)
class Finetuning:
    """A small finetuning.

    write_data: writes ``env.data_dir``.
    options: words of the command line.
    criteria: the metric of the best checkpoint.
    """

    write_data: Callable[[Path], None]
    options: tuple[str, ...]
    criteria: str

    def recipe(self, data: Path, dropout: float) -> tuple[str, ...]:
        """Write the data to the folder ``data``, unless it exists, and return the options of the run."""
        if not data.exists():
            data.mkdir(parents=True)
            self.write_data(data)
        words = (*COMMON, *self.options, f"env.data_dir={data}", f"training.early_stop.criteria={self.criteria}")
        return tuple(word.format(data=data, dropout=dropout) for word in words)


def _flava(write_data: Callable[[Path], None], name: str, criteria: str, *options: str) -> Finetuning:
    model = "model_config.flava_classification"
    dropout = (f"{model}.{module}.dropout={{dropout}}" for module in MODULES)
    config = f"config={recipe_path(f'finetune/{name}')}"
    return Finetuning(write_data, (config, *TINY, f"{model}.classifier.hidden_size=32", *dropout, *options), criteria)


def _write_memes(data: Path) -> None:
    toys.write_tokenizer(data / "flava_demo" / "tokenizer")
    toys.write_hateful_memes(data, {"train": SIZES["train"], "dev": SIZES["val"], "test": SIZES["test"]})


def _write_questions(data: Path) -> None:
    toys.write_tokenizer(data / "flava_demo" / "tokenizer")
    toys.write_vqa2(data, {"train2014": SIZES["train"], "val2014": SIZES["val"], "test2015": SIZES["test"]})


def _write_glue(data: Path) -> None:
    glue_toys.write_vocabulary(data / "flava_demo" / "tokenizer")
    glue_toys.write_tsv(data / "glue", "mrpc", train=SIZES["train"], dev=SIZES["val"], test=SIZES["test"])


def _write_clevr(data: Path) -> None:
    for split, size in SIZES.items():
        stock_toys.write_clevr(data, split, size)
    stock_toys.write_vocabularies(data)
    stock_toys.write_recipe(data / "stock.yaml", model_config={"cnn_lstm": stock_toys.WITH_DROPOUT})


SMALL_IMAGES = "model_config.flava_classification.image_encoder.image_size=24"
CLEVR = (
    "config={data}/stock.yaml", "model=cnn_lstm", "dataset=clevr", "training.trainer=flava", "training.seed=1",
    "training.early_stop.minimize=false", "model_config.cnn_lstm.classifier.params.dropout={dropout}",
    "run_type=train_val",
)  # fmt: skip
FINETUNINGS = {
    "hateful_memes": _flava(_write_memes, "demo_hateful_memes", "hateful_memes/roc_auc"),
    "vqa2": _flava(_write_questions, "demo_vqa2", "vqa2/vqa_accuracy", SMALL_IMAGES),
    "glue": _flava(_write_glue, "glue/demo_mrpc", "glue/accuracy_f1"),
    "clevr": Finetuning(_write_clevr, CLEVR, "clevr/multilabel_micro_f1"),
}
