"""Baselines of demo_photos.yaml on held-out data, and its control with shuffled captions.

``python benchmarks/photos.py DATA RUN [RUN ...]`` prints Markdown: the accuracy of each run, and of the nearest
neighbour on pixels, on the test photographs; MLM and MIM losses on held-out data beside the unigram entropy of their
targets; the ITM loss on test photographs, 10 % of them with the caption of another one, beside the entropy of the
match rate. ``--shuffle OUT`` instead copies DATA to OUT with the training captions permuted.

Shapes: N = number of images, F = number of values of an image.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from mmf_flava.command import ArgumentParser, command, file_path
from mmf_flava.compat import mmf_api
from mmf_flava.config.run import KnnConfig
from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.collate import collate
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.token_files import TokenFile
from mmf_flava.evaluation.knn import run_knn
from mmf_flava.evaluation.linear_probe import LabelledEmbeddings
from mmf_flava.models.codebook.build import KMeansCodebook
from mmf_flava.weights.loading import load_checkpoint_weights
from mmf_flava.weights.weight_files import find_checkpoint

RECIPE = "projects/flava/configs/demo_photos.yaml"
SIDE = 12  # pixels of the images of the nearest neighbour
PAIRS, BATCH = 4096, 128


def read_split(data: Path, split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the image and the label of each record of a split."""
    records = open_records(data / "pairs" / split)
    for number in range(len(records)):
        record = records.read(number)
        yield decode_image(record), parse_annotation(record)[1]


def read_pixels(data: Path, split: str, side: int) -> LabelledEmbeddings:
    """Return the (N, 3 * side * side) pixel values of a split, 0 to 1, and the labels."""
    rows, labels = [], []
    for image, label in read_split(data, split):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        rows.append(np.asarray(resized, dtype=np.float32).ravel() / 255)
        labels.append(label)
    return LabelledEmbeddings(np.stack(rows), np.array(labels))


def weighted_neighbours(data: Path, centred: bool) -> float:
    """Return the accuracy of ``evaluation.knn`` if the embeddings are pixels, with the mean image subtracted or not."""
    train, test = (read_pixels(data, split, 32) for split in ("train", "test"))
    mean = train.embeddings.mean(axis=0) * centred
    train, test = (LabelledEmbeddings(part.embeddings - mean, part.targets) for part in (train, test))
    return run_knn(train, test, KnnConfig()).accuracy


def nearest_neighbour(data: Path) -> float:
    """Return the accuracy of the label of the nearest training image on the test images."""
    train, test = (read_pixels(data, split, SIDE) for split in ("train", "test"))
    (train_NF, test_NF) = (torch.from_numpy(part.embeddings) for part in (train, test))
    train_labels, test_labels = (torch.from_numpy(part.targets) for part in (train, test))
    nearest = [torch.cdist(chunk, train_NF).argmin(1) for chunk in test_NF.split(500)]
    return float((train_labels[torch.cat(nearest)] == test_labels).float().mean())


def entropy(counts: Iterable[int]) -> float:
    """Return the entropy of a distribution in nats."""
    values = np.array([count for count in counts if count], dtype=np.float64)
    shares = values / values.sum()
    return float(-(shares * np.log(shares)).sum())


def target_entropies(data: Path) -> dict[str, float]:
    """Return the unigram entropies of the targets of MLM and MIM on the held-out text and the test photographs."""
    text = TokenFile(data / "text" / "val")
    tokens = Counter(text.read(0, len(text)).tolist())
    codebook = KMeansCodebook(load_file(data / "codebook.safetensors")["centroids"])
    codes: Counter[int] = Counter()
    for image, _ in read_split(data, "test"):
        codes.update(codebook(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0].tolist())
    return {"flava_mlm": entropy(tokens.values()), "flava_mim": entropy(codes.values())}


@torch.no_grad()
def itm_loss(data: Path, run: Path) -> tuple[float, float]:
    """Return the ITM loss and the entropy of the match rate on test photographs, some of them mismatched."""
    config = read_recipe(
        RECIPE,
        [
            "dataset=pmd",
            f"dataset_config.pmd.data_dir={data}",
            "dataset_config.pmd.splits.train=['pairs/test']",
            f"dataset_config.pmd.processors.text_processor.params.tokenizer={data / 'tokenizer'}",
            f"model_config.flava.codebook.path={data / 'codebook.safetensors'}",
        ],
    )
    dataset = open_dataset(config, "pmd", "train")
    dataset.init_processors()
    model = mmf_api.build_model(config).eval()
    load_checkpoint_weights(model, find_checkpoint(run))
    total, matched = 0.0, 0
    for start in range(0, PAIRS, BATCH):
        batch = collate([dataset[number] for number in range(start, start + BATCH)], "pmd", "train")
        losses = model(batch)["losses"]
        total += next(float(value) for name, value in losses.items() if name.endswith("flava_itm")) * BATCH
        matched += int(batch.is_correct.sum())
    return total / PAIRS, entropy([matched, PAIRS - matched])


def shuffle_captions(data: Path, out: Path) -> None:
    """Copy the data with the training captions, and with them the labels, permuted. Other files are linked."""
    (out / "pairs").mkdir(parents=True)
    for path in (*data.iterdir(), data / "pairs" / "val", data / "pairs" / "test"):
        if path != data / "pairs":
            (out / path.relative_to(data)).symlink_to(path.resolve())
    records = open_records(data / "pairs" / "train")
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    for start in range(0, len(records), 2000):
        with ShardWriter(out / "pairs" / "train" / f"{start // 2000:05d}.tar") as shard:
            for number in range(start, min(start + 2000, len(records))):
                record, other = records.read(number), records.read(order[number], ("json",))
                shard.write(record.key, {**record.fields, "json": other.fields["json"]})


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python benchmarks/photos.py", description=__doc__)
    parser.add_argument("data", type=file_path, help="folder written by `prepare photos`")
    parser.add_argument("runs", nargs="*", type=file_path, help="run folders of demo_photos.yaml")
    parser.add_argument("--shuffle", type=file_path, metavar="OUT", help="write the data of the control to OUT")
    parsed = parser.parse_args(arguments)
    if parsed.shuffle is not None:
        shuffle_captions(parsed.data, parsed.shuffle)
        return
    limits = target_entropies(parsed.data)
    print(f"Nearest neighbour on {SIDE} x {SIDE} pixels: {nearest_neighbour(parsed.data):.4f}\n")
    for words, centred in (("", False), (" minus the mean image", True)):
        print(f"20 nearest neighbours on 32 x 32 pixels{words}: {weighted_neighbours(parsed.data, centred):.4f}\n")
    print("| run | accuracy | MLM / entropy | MIM / entropy | ITM / entropy |\n|---|---|---|---|---|", flush=True)
    for run in parsed.runs:
        found = json.loads((run / "evaluation.json").read_text())
        pairs = [f"{found['losses'][name]:.3f} / {limit:.3f}" for name, limit in limits.items()]
        itm, match_entropy = itm_loss(parsed.data, run)
        assert math.isfinite(itm)
        cells = [run.name, f"{found['zero_shot']['accuracy']:.4f}", *pairs, f"{itm:.3f} / {match_entropy:.3f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
