"""Which keys of a recipe may differ between a checkpoint and the run that resumes from it.

``CHANGES`` decides for every key, also for keys of other models and datasets; docs/resuming.md has the same table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mmf_flava.config.default_values import fill_defaults
from mmf_flava.config.written_values import are_equal, dataset_names, is_section, show

# outcomes: not mentioned; applied, with a record in the log; an error, unless the key in checkpoint.reset is set
FREE, APPLIED = "free", "applied"
DATA, OPTIMIZER, MODEL = "refused (data)", "refused (optimizer)", "refused (model)"

# patterns of keys -> outcome; the first row with a pattern of the key decides. A name in parentheses is not a key, but
# what the files of a key contain
CHANGES: tuple[tuple[tuple[str, ...], str], ...] = (
    # the run and its folders
    (("config", "config_version", "includes", "run_type", "dataset", "env.*", "trainer.*", "checkpoint.*"), FREE),
    # processes and devices
    (("distributed.*", "device_id", "start_rank", "training.device", "training.local_rank"), FREE),
    (("training.num_workers", "training.num_threads", "training.pin_memory", "training.persistent_workers"), FREE),
    (("training.fast_read", "training.find_unused_parameters", "training.process_group_timeout"), FREE),
    # it sets training.batch_size, which is compared
    (("training.batch_size_per_device",), FREE),
    # logs and intervals
    (("training.experiment_name", "training.logger_level", "training.log_*", "training.colored_logs"), FREE),
    (("training.should_not_log", "training.stdout_capture", "training.tensorboard", "training.wandb*"), FREE),
    (("training.verbose_dump", "training.detect_anomaly", "training.*_interval", "evaluation.features_dir"), FREE),
    # the order of the samples
    (("training.seed", "training.lanes", "datasets", "multitasking*"), DATA),
    # refused if it is not a multiple of the checkpoint's lanes, or if a dataset has length_buckets
    (("training.batch_size",), APPLIED),
    (("training.*", "evaluation*", "learning_rate"), APPLIED),
    (("optimizer.type", "model_config.*.freeze"), OPTIMIZER),
    (("optimizer*", "scheduler*"), APPLIED),
    # the data: their number, content and weights; the vocabulary; the image codes
    (("dataset_config.*.splits.train (*)",), DATA),
    (("dataset_config.*.splits.val (*)", "dataset_config.*.splits.test (*)"), APPLIED),
    (("dataset_config.*.processors (vocabulary)", "model_config.*.codebook (weights)"), MODEL),
    # folders and paths of the same data
    (("dataset_config.*.data_dir", "dataset_config.*.image_dir", "dataset_config.*.splits.train*"), FREE),
    (("dataset_config.*.codes", "dataset_config.*.processors.*.params.tokenizer"), FREE),
    # if null, they are those of the checkpoint
    (("dataset_config.*.processors.*.params.mean", "dataset_config.*.processors.*.params.std"), FREE),
    (("dataset_config.*.build*", "dataset_config.*.download", "dataset_config.*.cache_bytes"), FREE),
    (("dataset_config.*.connections",), FREE),
    # evaluation data; masks, crops and limits of samples
    (("dataset_config.*.splits.val*", "dataset_config.*.splits.test*", "dataset_config.*.max_bad_share"), APPLIED),
    (
        ("dataset_config.*.params.mask*", "dataset_config.*.params.whole_word", "dataset_config.*.params.replace"),
        APPLIED,
    ),
    (("dataset_config.*.params.crop_scale", "dataset_config.*.params.max_pixels"), APPLIED),
    (("dataset_config.*.params.max_length", "dataset_config.*.params.pad_to_multiple"), APPLIED),
    (("dataset_config.*.mismatch_probability",), APPLIED),
    (("dataset_config*",), DATA),
    # initial weights, which the checkpoint replaces; another path of the same codebook
    (("model_config.*.pretrained", "model_config.*.initializer_range", "model_config.*.logit_scale_init"), FREE),
    (("model_config.*.codebook.path", "model_config.*.codebook.sha256", "model_config.*.codebook.type"), FREE),
    (("model_config.*.codebook.channels_last", "model_config.*.model"), FREE),
    # regularisation, weights of losses, numerics
    (("model_config.*.dropout", "model_config.*.attention_dropout", "model_config.*.logit_scale_max"), APPLIED),
    (("model_config.*.drop_path", "model_config.*.layer_decay"), APPLIED),
    (("model_config.*.losses.*.weight", "model_config.*.losses.*.params*", "model_config.*.lr_multiplier*"), APPLIED),
    (("model_config.*.compile", "model_config.*.codebook.dtype"), APPLIED),
    (("model", "model_config*"), MODEL),
    # other keys, which only interpolations and env.user_dir read
    (("*",), APPLIED),
)

ABSENT = object()


@dataclass(frozen=True)
class Change:
    """A key whose value differs between a checkpoint and a recipe."""

    key: str
    old: Any
    new: Any

    @property
    def row(self) -> int:
        """The first row of ``CHANGES`` that matches the key."""
        return next(
            number for number, (patterns, _) in enumerate(CHANGES) if any(fnmatchcase(self.key, p) for p in patterns)
        )

    @property
    def outcome(self) -> str:
        return CHANGES[self.row][1]

    @property
    def is_of_one_side(self) -> bool:
        """Whether only the checkpoint or only the recipe has the key."""
        return self.old is ABSENT or self.new is ABSENT

    @property
    def values(self) -> tuple[str, str]:
        """The texts of both values."""
        old, new = ("not set" if value is ABSENT else show(value) for value in (self.old, self.new))
        return old, new

    def __str__(self) -> str:
        return f"{self.key}: {' -> '.join(self.values)}"


def find_changes(old: Any, new: Any, key: str = "") -> Iterator[Change]:
    """Yield the keys whose values differ between two recipes or sections in stored form, see ``written_values``."""
    if not (is_section(old) and is_section(new)):
        if not are_equal(old, new):
            yield Change(key, old, new)
        return
    for name in [*old, *(name for name in new if name not in old)]:
        yield from find_changes(old.get(name, ABSENT), new.get(name, ABSENT), f"{key}.{name}" if key else name)


def find_recipe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the keys whose values differ between two stored recipes. A key that is not set has its default."""
    return list(find_changes(_normalise(fill_defaults(old)), _normalise(fill_defaults(new))))


def _normalise(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe in which different notations of the same order are equal."""
    training = recipe["training"]
    return {
        **recipe,
        "datasets": dataset_names(recipe),
        "training": {**training, "seed": training.get("seed") or 0},
    }
