"""Keys that ``training.trainer: flava`` adds to MMF's sections of a recipe; ``flava_finetune`` adds a task."""

from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("fp32", "bf16", "fp16")
SHARDINGS = ("none", "ddp", "fsdp")
PROBE_SOLVERS = ("torch", "sklearn")
PROBE_METRICS = ("accuracy", "mean_per_class")
# upper limit of the default of evaluation.batch_size
MAX_EVALUATION_BATCH = 256

# removed keys -> the keys that replace them
REPLACED_KEYS = {"training.sampling": "multitasking.type and multitasking.params.sampling_ratios"}


@dataclass
class MultitaskingConfig:
    """``multitasking``, a section of MMF's main branch that 1.0.0rc10 lacks: the dataset of each update."""

    # false: every update uses the first dataset
    enabled: bool = True
    # round_robin | ratios: sampled with the weights params.sampling_ratios | on main, any registered strategy
    type: str = "round_robin"
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class WandbConfig:
    """``training.wandb``, a section of MMF's main branch that 1.0.0rc10 lacks; null means wandb's own default."""

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
    mode: str | None = None
    # accepted because MMF's main branch has it; has no effect: the checkpoints of this trainer are not uploaded
    log_checkpoint: bool = False


@dataclass
class TrainingConfig:
    """``training.*``: the keys that MMF's defaults do not have."""

    precision: str = "fp32"
    sharding: str = "none"
    # recompute the activations of transformer blocks in the backward pass: less memory, about a third more time
    activation_checkpointing: bool = False
    # samples per process and batch, as in MMF's main branch; null: training.batch_size is the global batch size
    batch_size_per_device: int | None = None
    # stop at the first NaN gradient and name the operation that produced it, as in MMF's main branch
    detect_anomaly: bool = False
    # gradient accumulation: batches per optimizer step
    update_frequency: int = 1
    max_grad_l2_norm: float | None = None
    # skip updates whose total loss is this many standard deviations above the mean of the dataset's last 128 updates;
    # null: never
    spike_sigma: float | None = None
    # intra-op threads of torch; null: torch's default
    num_threads: int | None = None
    # CUDA: fp32 matrix products and convolutions, also the codebook's, use TF32, which has 10 bits of mantissa
    tf32: bool = False
    # use deterministic algorithms only, so that a resumed run on CUDA is bit-identical; slower
    deterministic: bool = False
    # minutes that a process waits for the others, e.g. while rank 0 evaluates with ddp, before the run ends
    process_group_timeout: int = 360
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass
class CheckpointConfig:
    """``checkpoint.*``: the keys that MMF's defaults do not have."""

    # number of newest checkpoints to keep, in addition to the best one; -1 keeps all
    max_to_keep: int = 3
    # copy the state to the CPU and write it in a thread while training continues
    background: bool = False
    # name patterns of keys that pretrained weights may lack, and of keys that they may have in addition
    allow_missing: list[str] = field(default_factory=list)
    allow_extra: list[str] = field(default_factory=list)


@dataclass
class ZeroShotConfig:
    """Zero-shot classification of the images of ``dataset``, with one prompt per template and class name."""

    dataset: str = "pmd"
    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    # name of a set of classes and templates for whichever is not listed here: see mmf_flava/evaluation/prompts.py
    prompts: str | None = None
    # one class per line, or JSON {"classes": [...], "templates": [...]}
    classes_file: str | None = None


@dataclass
class RetrievalConfig:
    """Image-to-text and text-to-image recall on ``dataset``; each caption of an image is a positive."""

    dataset: str = "pmd"
    recall_at: list[int] = field(default_factory=lambda: [1, 5, 10])
    # true: a caption of several images is in the gallery once, and all of its images are positives; false: the usual
    # protocol, in which every caption has one positive image
    merge_equal_captions: bool = False
    # number of nearest candidates to re-rank with the image-text matching head; 0: none
    rerank: int = 0


@dataclass
class LinearProbeConfig:
    """Logistic regression on the image encoder's [CLS], fitted to ``dataset``'s training images."""

    dataset: str = "image_classification"
    # torch (on the run's device) | sklearn (the paper's, on the CPU); both converge to the same solution
    solver: str = "torch"
    max_iterations: int = 1000
    # metric that selects the penalty: accuracy | mean_per_class (mean of the per-class accuracies)
    metric: str = "accuracy"
    # smallest and largest weight of the L2 penalty; 8 values per decade are tried
    lambdas: list[float] = field(default_factory=lambda: [1e-6, 1e6])
    # fraction of the training images held out to select the penalty if the dataset has no val split
    val_share: float = 0.2


@dataclass
class ExamplesConfig:
    """Number of masked images and sentences whose predictions are shown in the report."""

    images: int = 8
    sentences: int = 8


@dataclass
class EvaluationConfig:
    """``evaluation.*``: the keys that MMF's defaults do not have; a null section is skipped."""

    # row of the paper's table to compare with, e.g. cifar10: see mmf_flava.evaluation.table
    task: str | None = None
    # samples per forward pass, for any number of processes; null: training.batch_size, at most 256
    batch_size: int | None = None
    # cache of image embeddings for later evaluations of the same weights; null: no cache
    features_dir: str | None = None
    # compute the mean of each loss over the split
    losses: bool = True
    zero_shot: ZeroShotConfig | None = None
    retrieval: RetrievalConfig | None = None
    linear_probe: LinearProbeConfig | None = None
    examples: ExamplesConfig | None = None
