"""Rendering of a model card as Markdown, with the front matter of the Hugging Face Hub."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from mmf_flava import __version__
from mmf_flava.hub_folder.facts import CardFacts
from mmf_flava.report import wording
from mmf_flava.report.values import as_mapping, as_number, as_numbers

UNKNOWN_LICENCE = "unknown"  # the Hub's identifier
PREFIXES = ("model_config.", "training.", "optimizer.", "scheduler.", "multitasking.")
# keys of ``training`` that determine the weights; the others concern the machine and the run folder
TRAINING = (
    "seed",
    "batch_size",
    "update_frequency",
    "max_updates",
    "max_epochs",
    "precision",
    "max_grad_l2_norm",
    "clip_norm_mode",
)
PLACES = (".path", ".pretrained", ".codes")  # ends of the keys of files and folders
PATH_MARKS = ("/", "~", ".", "$", "\\")  # beginnings of local paths and of interpolations
NAME = "USER/MODEL"  # stands for the model ID in the examples

TRANSFORMERS = f'''\
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import FlavaModel, FlavaProcessor

name = "{NAME}"  # the model ID on the Hub, or the folder that contains this file
model, processor = FlavaModel.from_pretrained(name).eval(), FlavaProcessor.from_pretrained(name)
texts = ["a dog on a beach", "a bowl of fruit"]
inputs = processor(text=texts, images=Image.open("photo.jpg").convert("RGB"), padding=True, return_tensors="pt")
with torch.no_grad():
    image = model.image_model(inputs["pixel_values"]).last_hidden_state[:, 0]
    text = model.text_model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[:, 0]
    print(normalize(model.image_projection(image)) @ normalize(model.text_projection(text)).T)
'''
EMBEDDER = f'''\
from mmf_flava import Embedder

flava = Embedder("{NAME}")
print(flava.images(["photo.jpg"]) @ flava.texts(["a dog on a beach", "a bowl of fruit"]).T)
'''


def render_card(facts: CardFacts, licence: str = UNKNOWN_LICENCE) -> str:
    """Return the content of README.md.

    Args:
        licence: identifier of the licence of the weights, as in ``bsd-3-clause``.
    """
    sections = (
        _front_matter(facts, licence),
        _introduction(facts, licence),
        _loading(),
        _training(facts),
        _data(facts),
        _losses(facts),
        _scores(facts),
        _recipe(facts),
        _citation(),
    )
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section))) + "\n"


def _front_matter(facts: CardFacts, licence: str) -> Iterable[str]:
    yield "---"
    yield f"license: {licence}"
    yield "library_name: transformers"
    yield "pipeline_tag: feature-extraction"
    yield "tags: [flava, multimodal, vision-language, mmf_flava]"
    if facts.base_model is not None:
        yield f"base_model: {json.dumps(facts.base_model.partition('@')[0])}"
    yield "---"


def _introduction(facts: CardFacts, licence: str) -> Iterable[str]:
    image, text = facts.model.image_encoder, facts.model.text_encoder
    yield f"# {_escape(facts.name)}"
    yield ""
    yield (
        "[FLAVA](https://arxiv.org/abs/2112.04482), one model for images, text, and image-text pairs, with "
        f"{wording.format_short(facts.parameters)} parameters: images of {image.image_size} x {image.image_size} "
        f"pixels in patches of {image.patch_size}, a vocabulary of {text.vocab_size:,} tokens, encoders of "
        f"{image.num_layers} (image), {text.num_layers} (text) and {facts.model.multimodal_encoder.num_layers} "
        f"(multimodal) layers of width {image.hidden_size}. Trained with mmf_flava, converted with version "
        f"{__version__}."
    )
    notes = []
    if facts.averaged:
        notes.append("The weights are exponential moving averages of the trained weights.")
    if facts.base_model is not None:
        notes.append(f"The training started from the weights of {_escape(facts.base_model)}.")
    if facts.missing_heads:
        notes.append(f"These pretraining heads are missing: {', '.join(facts.missing_heads)}.")
    if facts.skipped:
        modules = sorted({name.partition(".")[0] for name in facts.skipped})
        notes.append(f"Parts that this format does not have are not included: {_escape(', '.join(modules))}.")
    if licence == UNKNOWN_LICENCE:
        notes.append("No licence was stated for these weights.")
    if notes:
        yield ""
        yield " ".join(notes)


def _loading() -> Iterable[str]:
    yield "## How to load it"
    yield ""
    for text, code in (("With transformers:", TRANSFORMERS), ("\nWith mmf_flava:", EMBEDDER)):
        yield text
        yield ""
        yield f"```python\n{code}```"


def _training(facts: CardFacts) -> Iterable[str]:
    summary = facts.summary
    finished = summary.updates is not None and summary.updates == facts.update
    rows = [
        ("Updates", wording.format_count(facts.update) if facts.update is not None else None),
        ("Samples", wording.format_count(summary.samples) if finished and summary.samples else None),
        ("Batch size", wording.format_count(summary.batch_size) if summary.batch_size else None),
        ("Precision", summary.precision),
        ("Device", summary.device),
        ("Training time", wording.format_duration(summary.seconds) if finished and summary.seconds else None),
        ("mmf_flava", summary.version),
    ]
    if known := [(label, value) for label, value in rows if value]:
        yield "## Training"
        yield ""
        yield from _table(("", ""), known)


def _data(facts: CardFacts) -> Iterable[str]:
    if not facts.records:
        return
    yield "## Data"
    yield ""
    splits = ("train", "val", "test")
    rows = [(name, *(wording.format_count(counts.get(split)) for split in splits)) for name, counts in
            facts.records.items()]  # fmt: skip
    yield from _table(("dataset", *(f"{split} records" for split in splits)), rows)
    if facts.parts:
        yield ""
        yield "The licences are those of the data, as recorded when they were prepared."
        yield ""
        parts = [
            (part.dataset, part.split, part.name, _counts(part.counts), part.licence or "not recorded")
            for part in facts.parts
        ]
        yield from _table(("dataset", "split", "part", "content", "licence"), parts)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or wording.NO_VALUE


def _losses(facts: CardFacts) -> Iterable[str]:
    first, last = facts.summary.first_losses, facts.summary.last_losses
    measured = {str(content["split"]): as_numbers(content.get("losses")) for content in facts.evaluations}
    measured = {split: losses for split, losses in measured.items() if losses}
    names = list(dict.fromkeys([*first, *last, *(name for losses in measured.values() for name in losses)]))
    if not names:
        return
    yield "## Losses"
    yield ""
    rows = [
        (
            name,
            wording.format_loss(first.get(name)),
            wording.format_loss(last.get(name)),
            *(wording.format_loss(losses.get(name)) for losses in measured.values()),
        )
        for name in names
    ]
    yield from _table(("loss", "first of training", "last of training", *(f"{s} split" for s in measured)), rows)


def _scores(facts: CardFacts) -> Iterable[str]:
    rows = [(str(content["split"]), *row) for content in facts.evaluations for row in _score_rows(content)]
    yield "## Scores"
    yield ""
    if rows:
        yield f"As measured with these weights after update {facts.update:,}."
        yield ""
        yield from _table(("split", "score", "value", "measured on"), rows)
    elif facts.other_scores:
        yield "Not measured with these weights; the run has scores of other weights."
    else:
        yield "Not measured."


def _score_rows(content: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    zero_shot, probe, retrieval = (as_mapping(content.get(key)) for key in ("zero_shot", "linear_probe", "retrieval"))
    if (accuracy := as_number(zero_shot.get("accuracy"))) is not None:
        classes = len(zero_shot.get("classes") or ())
        images = f"{wording.format_count(as_number(zero_shot.get('count')))} images of {classes} classes"
        yield "zero-shot accuracy", f"{accuracy:.4f}", images
    for key, value in as_numbers(retrieval).items():
        if key.rpartition("_r")[2].isdigit():
            sizes = (wording.format_count(as_number(retrieval.get(kind))) for kind in ("images", "captions"))
            name, _, depth = key.replace("_to_", " to ").rpartition("_r")
            yield f"{name.replace('_', ' ')} recall@{depth}", f"{value:.4f}", "{} images, {} captions".format(*sizes)
    for key in ("accuracy", "mean_per_class"):
        if (fitted := as_number(probe.get(key))) is not None:
            yield f"linear probe {key.replace('_', ' ')}", f"{fitted:.4f}", wording.NO_VALUE
    for key, value in as_numbers(content.get("metrics")).items():
        yield key, f"{value:.4f}", wording.NO_VALUE


def _recipe(facts: CardFacts) -> Iterable[str]:
    lines = [f"{key}: {value}" for key, value in facts.recipe.items() if _is_shown(key, value)]
    if lines:
        yield "## Recipe"
        yield ""
        yield "Keys of the recipe that determine the weights; local paths are left out."
        yield ""
        yield "```text"
        yield from (line.replace("```", "'''") for line in lines)
        yield "```"


def _is_shown(key: str, value: str) -> bool:
    if not key.startswith(PREFIXES) or key.endswith(PLACES) or value in ("null", "{}", "[]"):
        return False
    if value.startswith(PATH_MARKS) or "${" in value:
        return False
    return not key.startswith("training.") or key.removeprefix("training.") in TRAINING


def _citation() -> Iterable[str]:
    yield "## Citation"
    yield ""
    yield (
        "The method is that of Singh et al., *FLAVA: A Foundational Language And Vision Alignment Model*, CVPR 2022, "
        "[arXiv:2112.04482](https://arxiv.org/abs/2112.04482)."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(_escape, row))} |"


def _escape(text: str) -> str:
    """Return a text in one line, without the meaning of its characters in Markdown and HTML."""
    text = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{char}" if char in "\\`*[]|" else char for char in text)
