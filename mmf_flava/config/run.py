"""Config keys that the trainer ``flava`` adds to MMF's keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmf_flava.config.ranges import ranged
from mmf_flava.config.tasks import parse_task
from mmf_flava.errors import UserError

PRECISIONS = ("fp32", "bf16", "fp16")
SHARDINGS = ("none", "ddp", "fsdp")
PROBE_SOLVERS = ("torch", "sklearn")
PROBE_METRICS = ("accuracy", "mean_per_class")
# upper limit of the default evaluation.batch_size
MAX_EVALUATION_BATCH = 256
MAX_THREADS = 4096
MAX_MINUTES = 525_600  # a year

# removed key -> keys that replace it
REPLACED_KEYS = {"training.sampling": "multitasking.type and multitasking.params.sampling_ratios"}


@dataclass
class MultitaskingConfig:
    """``multitasking``: how the dataset of each update is selected. MMF has this section on its main branch only."""

    # false: every update uses the first dataset
    enabled: bool = True
    # round_robin | ratios (sampling with the weights params.sampling_ratios) | any strategy of MMF's main branch
    type: str = "round_robin"
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class WandbConfig:
    """``training.wandb``; null means wandb's default. MMF has this section on its main branch only."""

    enabled: bool = False
    project: str = "mmf"
    # user or team
    entity: str | None = None
    # null: training.experiment_name
    name: str | None = None
    job_type: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    # online | offline | disabled
    mode: str | None = ranged(None, choices=("online", "offline", "disabled"))
    # only false: checkpoints are not uploaded
    log_checkpoint: bool = False


@dataclass
class EmaConfig:
    """``training.ema``: exponential moving averages of the weights, saved in checkpoints as ``ema.safetensors``."""

    enabled: bool = False
    # average = momentum * average + (1 - momentum) * weight, after every update
    momentum: float = ranged(0.9999, at_least=0, below=1)
    # momentum at the end of the run, which increases to it on a cosine; null: the momentum is constant
    final_momentum: float | None = ranged(None, at_least=0, at_most=1)
    # names of the averaged modules, e.g. flava.image_encoder; the others keep their weights. Empty: all modules
    modules: list[str] = field(default_factory=list)
    # number of updates before averaging starts; until then, the averages are copies of the weights
    start: int = ranged(0, at_least=0)

    def check(self, where: str) -> None:
        """Raise UserError if the momentum would decrease."""
        if self.final_momentum is not None and self.final_momentum < self.momentum:
            raise UserError(
                f"{where}.final_momentum: {self.final_momentum:g} is below momentum {self.momentum:g}. Increase it, or "
                "set null for a constant momentum."
            )


@dataclass
class TrainingConfig:
    """Keys of ``training`` that are not in MMF's defaults."""

    precision: str = ranged("fp32", choices=PRECISIONS)
    sharding: str = ranged("none", choices=SHARDINGS)
    # recompute activations of transformer blocks in the backward pass: less memory, about a third more time
    activation_checkpointing: bool = False
    # samples per process and batch, as in MMF's main branch; null: training.batch_size is the global batch size
    batch_size_per_device: int | None = ranged(None, at_least=1)
    # let cuDNN measure its algorithms and use the fastest ones, as in MMF's main branch; no effect if deterministic
    cudnn_benchmark: bool = False
    # stop at the first NaN gradient and name the operation that produced it, as in MMF's main branch
    detect_anomaly: bool = False
    # gradient accumulation: number of batches per optimizer step. Losses and gradients are those of one large batch,
    # except that the negatives of the contrastive loss come from one batch: more negatives need a larger batch_size,
    # e.g. on several processes with sharding: ddp
    update_frequency: int = ranged(1, at_least=1)
    max_grad_l2_norm: float | None = ranged(None, above=0)
    # number of places in a dataset from which a batch is read; its largest common divisor with batch_size is used. More
    # lanes mix a sorted dataset better, but more shards are read at a time
    lanes: int = ranged(256, at_least=1)
    # skip updates whose total loss is this many standard deviations above the mean of the dataset's last 128 updates;
    # null: never
    spike_sigma: float | None = ranged(None, above=0)
    # number of torch's intra-op threads; null: torch's default
    num_threads: int | None = ranged(None, at_least=1, at_most=MAX_THREADS)
    # use TF32 (10-bit mantissa) for fp32 matrix products and convolutions on CUDA, including the codebook's
    tf32: bool = False
    # use deterministic algorithms only, so that a resumed run on CUDA is bit-identical; slower
    deterministic: bool = False
    # maximum minutes to wait for other processes, e.g. while rank 0 saves; then the run fails
    process_group_timeout: int = ranged(360, at_least=1, at_most=MAX_MINUTES)
    ema: EmaConfig = field(default_factory=EmaConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass
class ResetConfig:
    """``checkpoint.reset``: what a run that resumes from a checkpoint starts anew, see docs/resuming.md."""

    # everything except the weights
    all: bool = False
    # the optimizer's state
    optimizer: bool = False
    # updates, schedule of the learning rate, order of the data, best metric
    counts: bool = False
    # the loss scale of precision: fp16
    fp16_scaler: bool = False
    # the order of the data, if data, seed or order differ from those of the checkpoint
    data: bool = False


@dataclass
class CheckpointConfig:
    """Keys of ``checkpoint`` that are not in MMF's defaults."""

    # number of newest checkpoints to keep, in addition to the best one; -1 keeps all
    max_to_keep: int = ranged(3, at_least=1, also=-1)
    # write checkpoints in a background thread, from a copy of the state in CPU memory
    background: bool = False
    # name patterns of weights that a loaded file may lack (allow_missing) or may contain in addition (allow_extra)
    allow_missing: list[str] = field(default_factory=list)
    allow_extra: list[str] = field(default_factory=list)
    reset: ResetConfig = field(default_factory=ResetConfig)


@dataclass
class ZeroShotConfig:
    """Zero-shot classification of the images of ``dataset``, with one prompt per template and class name."""

    dataset: str = "pmd"
    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    # name of a prompt set, which defines classes and templates that are not listed: see mmf_flava/evaluation/prompts.py
    prompts: str | None = None
    # file with one class per line, or with JSON {"classes": [...], "templates": [...]}
    classes_file: str | None = None
    # true: the training captions contain the class names, so the score is reported as prompt classification
    captions_have_classes: bool = False

    def check(self, where: str) -> None:
        """Raise UserError if a template is not valid, or a class is listed twice."""
        check_templates(self.templates, f"{where}.templates")
        if repeated := next((name for name in self.classes if self.classes.count(name) > 1), None):
            raise UserError(f"{where}.classes: {repeated!r} is listed more than once. List each class once.")


def check_templates(templates: Sequence[str], where: str) -> None:
    """Raise UserError if a template does not have ``{}`` for the class name, or has other braces."""
    for template in templates:
        if "{}" not in template:
            raise UserError(f"{where}: '{template}' has no placeholder {{}} for the class name.")
        if braces := set(template.replace("{}", "")) & {"{", "}"}:
            raise UserError(
                f"{where}: '{template}' has {' and '.join(sorted(braces))} outside {{}}. Write {{}} for the "
                "class name, and no other braces."
            )


@dataclass
class RetrievalConfig:
    """Image-to-text and text-to-image retrieval on ``dataset``. All captions of an image are positives."""

    dataset: str = "pmd"
    recall_at: list[int] = ranged([1, 5, 10], at_least=1, non_empty=True)
    # true: equal captions are one candidate, and all images with this caption are positives; false: the usual protocol,
    # in which every caption has one positive image
    merge_equal_captions: bool = False
    # number of nearest candidates to re-rank with the image-text matching head; 0: none
    rerank: int = ranged(0, at_least=0)


@dataclass
class LinearProbeConfig:
    """Logistic regression on the image encoder's [CLS] states, fitted to ``dataset``'s training images."""

    dataset: str = "image_classification"
    # torch (on the run's device) | sklearn (as in the paper, on the CPU); both converge to the same solution
    solver: str = ranged("torch", choices=PROBE_SOLVERS)
    max_iterations: int = ranged(1000, at_least=1)
    # metric to select the L2 penalty: accuracy | mean_per_class (mean of the per-class accuracies)
    metric: str = ranged("accuracy", choices=PROBE_METRICS)
    # smallest and largest weight of the L2 penalty; 8 values per decade are tried
    lambdas: list[float] = ranged([1e-6, 1e6], above=0, length=2, ascending=True)
    # fraction of the training images held out to select the L2 penalty if the dataset has no val split
    val_share: float = ranged(0.2, above=0, below=1)
    # also at each validation of a run that trains, not only after it; takes as long as after it
    at_validations: bool = False


@dataclass
class KnnConfig:
    """Weighted k-nearest neighbours on the image encoder's [CLS] states, among ``dataset``'s training images."""

    dataset: str = "image_classification"
    # number of neighbours
    k: int = ranged(20, at_least=1)
    # a neighbour of cosine similarity s has the weight exp(s / temperature)
    temperature: float = ranged(0.07, above=0)


@dataclass
class AttentionMapsConfig:
    """Images of ``dataset`` that the report shows with the attention of [CLS] in the image encoder's last block."""

    dataset: str = "image_classification"
    # number of images
    images: int = ranged(8, at_least=1, at_most=64)


@dataclass
class ExamplesConfig:
    """Numbers of masked images and masked sentences that the report shows with the model's predictions."""

    images: int = ranged(8, at_least=0)
    sentences: int = ranged(8, at_least=0)


@dataclass
class EvaluationConfig:
    """Keys of ``evaluation`` that are not in MMF's defaults. An evaluation whose section is null is not run."""

    # task of the FLAVA paper whose score the report shows for comparison, e.g. cifar10: see mmf_flava.evaluation.table
    task: str | None = None
    # samples per forward pass of one process; null: training.batch_size, at most 256
    batch_size: int | None = ranged(None, at_least=1)
    # weights of the evaluation after training: best (by training.early_stop.criteria, as in MMF) | last
    weights: str = ranged("best", choices=("best", "last"))
    # folder to cache image embeddings for later evaluations of the same weights; null: no cache
    features_dir: str | None = None
    # evaluate the averages of the weights, see training.ema
    ema: bool = False
    # compute the mean of each loss over the split. The contrastive loss depends on evaluation.batch_size: its negatives
    # are the other samples of a batch
    losses: bool = True
    zero_shot: ZeroShotConfig | None = None
    retrieval: RetrievalConfig | None = None
    linear_probe: LinearProbeConfig | None = None
    knn: KnnConfig | None = None
    attention_maps: AttentionMapsConfig | None = None
    examples: ExamplesConfig | None = None

    def check(self, where: str) -> None:
        """Raise UserError if the task is unknown."""
        if self.task is not None:
            parse_task(self.task, f"{where}.task")
