"""The keys that ``training.trainer: flava`` adds to MMF's own sections of a recipe; ``flava_finetune`` adds a task."""

from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("fp32", "bf16", "fp16")
SHARDINGS = ("none", "ddp", "fsdp")
PROBE_SOLVERS = ("torch", "sklearn")
PROBE_METRICS = ("accuracy", "mean_per_class")


# former keys: what says it now
MOVED = {
    "training.sampling": "multitasking: {type: round_robin}, or multitasking: {type: ratios, params: {sampling_ratios: "
    "{DATASET: WEIGHT}}}",
}


@dataclass
class MultitaskingConfig:
    """``multitasking`` of MMF's main line, which 1.0.0rc10 lacks: which dataset gives which update."""

    # false: the first dataset gives all
    enabled: bool = True
    # round_robin: in turn | ratios: drawn with the weights of params.sampling_ratios | on main any registered strategy
    type: str = "round_robin"
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class WandbConfig:
    """Weights & Biases: ``training.wandb`` of MMF's main line, which 1.0.0rc10 lacks; null leaves a choice to wandb."""

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
    # MMF's main line has it for its own checkpoints; ours are folders, and are not sent
    log_checkpoint: bool = False


@dataclass
class TrainingConfig:
    """``training.*`` beside what MMF's defaults have."""

    precision: str = "fp32"
    sharding: str = "none"
    # recompute what blocks compute in the backward pass instead of keeping it: less memory, about a third more time
    activation_checkpointing: bool = False
    # samples of each process, MMF's main line has it; null: training.batch_size is what all have together
    batch_size_per_device: int | None = None
    # torch says which operation's gradient is NaN, and the run ends; MMF's main line has it
    detect_anomaly: bool = False
    # batches whose gradients are added up before one optimizer step
    update_frequency: int = 1
    max_grad_l2_norm: float | None = None
    # an update whose total loss lies so many standard deviations above its dataset's last 128 is skipped; null: none is
    spike_sigma: float | None = None
    # intra-op threads of torch; null leaves torch's own choice
    num_threads: int | None = None
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass
class CheckpointConfig:
    """``checkpoint.*`` beside what MMF's defaults have."""

    # how many of the newest checkpoints stay on disk, beside the best one; -1 keeps all
    max_to_keep: int = 3
    # copy the state at once, and write it while training goes on
    background: bool = False
    # name patterns for pretrained weights: what they may lack, and what they may have beside what is used
    allow_missing: list[str] = field(default_factory=list)
    allow_extra: list[str] = field(default_factory=list)


@dataclass
class ZeroShotConfig:
    """Classification by prompts: ``dataset``'s images and labels, one prompt per template and class name."""

    dataset: str = "pmd"
    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    # both by name where they are not given here, see mmf_flava/evaluation/prompts.py
    prompts: str | None = None
    # a class a line, or JSON {"classes": [...], "templates": [...]}
    classes_file: str | None = None


@dataclass
class RetrievalConfig:
    """Image-to-text and text-to-image recall over ``dataset``'s captions; any of an image's captions counts."""

    dataset: str = "pmd"
    recall_at: list[int] = field(default_factory=lambda: [1, 5, 10])
    # true: a caption that several images carry stands in the gallery once, and each of them counts; false: the usual
    # protocol, in which each image's captions are its own
    merge_equal_captions: bool = False
    # how many of the most similar the image-text matching head ranks anew; 0: none
    rerank: int = 0


@dataclass
class LinearProbeConfig:
    """Logistic regression on the image encoder's [CLS], from ``dataset``'s training images to those of the split."""

    dataset: str = "image_classification"
    # torch (sums on the run's device) | sklearn (the paper's, on the CPU); both end at the same place
    solver: str = "torch"
    max_iterations: int = 1000
    # what the penalty is chosen by: accuracy | mean_per_class (the mean of each class's accuracy)
    metric: str = "accuracy"
    # least and largest weight of the L2 penalty; 8 a decade are looked at
    lambdas: list[float] = field(default_factory=lambda: [1e-6, 1e6])
    # of the training images, to choose the penalty with where the dataset has no val split of its own
    val_share: float = 0.2


@dataclass
class ExamplesConfig:
    """How many masked images and sentences are filled in for the report."""

    images: int = 8
    sentences: int = 8


@dataclass
class EvaluationConfig:
    """``evaluation.*`` beside what MMF's defaults have; a section that is null is not run."""

    # row of the paper's table that the figures belong to, e.g. cifar10: see mmf_flava.evaluation.table
    task: str | None = None
    # where vectors of images stay for the next evaluation of the same weights; null: they are not kept
    features_dir: str | None = None
    # mean of each loss over the split
    losses: bool = True
    zero_shot: ZeroShotConfig | None = None
    retrieval: RetrievalConfig | None = None
    linear_probe: LinearProbeConfig | None = None
    examples: ExamplesConfig | None = None
