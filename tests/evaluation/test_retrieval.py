"""Retrieval on toy data, re-ranked by a matching head, and with several processes."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation import features, ranking, retrieval
from mmf_flava.evaluation.gallery import IncompleteGalleryError
from mmf_flava.evaluation.retrieval import check_config, retrieve
from tests.evaluation.toys import ToyDataset, ToyModel, extractor
from tests.processes import run_ranks

ABC = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}


class Texts:
    """Text processor that encodes a text as the index of its embedding."""

    def __init__(self, texts):
        self.index = {text: n for n, text in enumerate(texts)}

    def encode(self, texts):
        ids = torch.tensor([[self.index[text]] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


class PairModel(ToyModel):
    """Toy model with a matching head.

    The first element of an image is its row in the table ``match_probabilities``; the other elements are its embedding.
    """

    def __init__(self, texts, match_probabilities=None):
        super().__init__()
        self.texts, self.match_probabilities, self.pairs = torch.tensor(texts), match_probabilities, 0
        self.heads = torch.nn.ModuleDict({} if match_probabilities is None else {"itm": torch.nn.Identity()})
        self.passes = []

    def encode_image(self, image):
        self.passes.append("image")
        return super().encode_image(image[:, 1:])

    def encode_text(self, ids, mask):
        self.passes.append("text")
        return self.texts[ids[:, 0]]

    def image_states(self, image):
        self.passes.append("states")
        return image[:, :1].long()

    def match(self, states, ids, mask):
        self.passes.append("match")
        self.pairs += len(ids)
        return self.match_probabilities[states[:, 0], ids[:, 0]]


@dataclass
class CaptionDataset(ToyDataset):
    """Dataset with captions and optional sample ids."""

    names: list[str] = field(default_factory=list)

    def collate(self, samples):
        batch = super().collate(samples)
        return {**batch, "sample_id": [self.names[sample["n"]] for sample in samples]} if self.names else batch


def toy(embeddings, captions, texts=ABC, match_probabilities=None):
    images = [[float(n), *embedding] for n, embedding in enumerate(embeddings)]
    data = CaptionDataset(images, [-1] * len(embeddings), captions, Texts(texts))
    return PairModel(list(texts.values()), match_probabilities), data


def test_retrieval_in_both_directions():
    model, data = toy([[1.0, 0.1], [0.1, 1.0]], [["a"], ["b", "c"]])
    result = retrieve(model, data, RetrievalConfig("toy", [1]), extractor())
    assert result == {"images": 2, "captions": 3, "image_to_text_r1": 1.0, "text_to_image_r1": 1.0}


def test_caption_of_another_image_is_a_miss():
    model, data = toy([[1.0, 0.0], [1.0, 0.1]], [["a"], ["b"]])  # both are most similar to caption a
    result = retrieve(model, data, RetrievalConfig("toy", [1, 2]), extractor())
    assert (result["image_to_text_r1"], result["image_to_text_r2"]) == (0.5, 1.0)


@pytest.mark.parametrize(("merged", "expected"), [(False, (4, 0.0, 0.75)), (True, (3, 1.0, 1.0))])
def test_caption_of_two_images(merged, expected):
    """Unmerged, the equal caption of the other image is a tied negative. Merged, it is a positive of both images."""
    model, data = toy([[0.6, 0.8], [0.5, 0.9]], [["c", "a"], ["c", "b"]])
    result = retrieve(model, data, RetrievalConfig("toy", [1], merged), extractor())
    assert (result["captions"], result["image_to_text_r1"], result["text_to_image_r1"]) == expected


def test_gallery_with_bad_records_is_refused():
    model, data = toy([[1.0, 0.1], [0.1, 1.0], [0.1, 1.0], [0.3, 1.0]], [["a"], ["b"], ["c"], ["d"]])
    data.bad = {1, 3}
    with pytest.raises(IncompleteGalleryError, match=r"2 of 4 records are bad: s1, s3\. .* must be complete"):
        retrieve(model, data, RetrievalConfig("toy", [1]), extractor())


def test_duplicate_counts_once():
    model, data = toy([[1.0, 0.1], [0.1, 1.0], [0.1, 1.0]], [["a"], ["b"], ["b"]])
    data.names = ["s0", "s2", "s2"]
    result = retrieve(model, data, RetrievalConfig("toy", [1]), extractor())
    assert result == {"images": 2, "captions": 2, "image_to_text_r1": 1.0, "text_to_image_r1": 1.0}


def test_images_without_captions_raise():
    model, data = toy([[1.0, 0.0]] * 5, [["a"], [], [], [], []])
    with pytest.raises(UserError, match=r"4 of 5 images have no caption \(s1, s2, s3, \.\.\.\)"):
        retrieve(model, data, RetrievalConfig("toy"), extractor())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (RetrievalConfig("pmdd"), "Did you mean 'pmd'"),
    ],
)
def test_invalid_section_raises(section, words):
    with pytest.raises(UserError, match=words):
        check_config(section, ["pmd", "imagenet"])


# ---------------------------------------------------------------------- the matching head


def test_the_matching_head_reorders_the_candidates():
    """All images are most similar to b, then c, then a; the head re-ranks two, then three candidates."""
    images, probabilities = [[0.0, 1.0]] * 3, torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.9, 0.8], [0.0, 0.2, 0.7]])
    model, data = toy(images, [["a"], ["b"], ["c"]], match_probabilities=probabilities)
    two = retrieve(model, data, RetrievalConfig("toy", [1], rerank=2), extractor())
    assert (two["image_to_text_r1"], two["reranked_image_to_text_r1"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    model, data = toy(images, [["a"], ["b"], ["c"]], match_probabilities=probabilities)
    three = retrieve(model, data, RetrievalConfig("toy", [1], rerank=3), extractor())
    assert three["reranked_image_to_text_r1"] == 1.0 and three["text_to_image_r1"] == 0.0
    assert three["reranked_text_to_image_r1"] == pytest.approx(2 / 3)  # the head prefers the second image for caption c
    assert model.pairs == 9  # each pair is scored once for both directions


def test_model_without_the_head_raises():
    model, data = toy([[1.0, 0.0]], [["a"]])
    with pytest.raises(UserError, match="Add flava_itm to model_config"):
        retrieve(model, data, RetrievalConfig("toy", rerank=2), extractor())
    assert model.images == 0  # before any image is encoded


# ---------------------------------------------------------------------- processes


def large_toy():
    """Return a model and 150 images with 1 to 3 of 260 captions, shared captions and many ties, also of the head."""
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-3, 4, (150, 5)) + 0.25
    image_of = np.arange(260) % 150
    texts = {f"caption {n}": ((embeddings[image_of[n]] + rng.integers(-2, 3, 5)) / 8).tolist() for n in range(260)}
    others = rng.integers(0, 260, 150)
    captions = [[f"caption {t}" for t in {n, others[n], (n + 150) % 260}] for n in range(150)]
    probabilities = (rng.integers(0, 30, (150, 260)) + 15 * (image_of == np.arange(150)[:, None])) / 45
    return toy(embeddings.tolist(), captions, texts, torch.tensor(probabilities, dtype=torch.float32))


def reference_recalls(model, data, count):
    """Compute the recalls of both directions in NumPy, query by query."""
    images = np.array(data.embeddings)[:, 1:].astype(np.float32)
    images = ranking.round_to_grid(torch.nn.functional.normalize(torch.tensor(images), dim=-1)).double().numpy()
    owners = np.array([n for n, captions in enumerate(data.captions) for _ in captions])
    indices = np.array([data.text_processor.index[text] for captions in data.captions for text in captions])
    texts = torch.nn.functional.normalize(model.texts, dim=-1)[indices]
    similarity = images @ ranking.round_to_grid(texts).double().numpy().T
    positives = owners == np.arange(len(images))[:, None]
    probabilities = model.match_probabilities.numpy()[:, indices]
    result = {"images": len(images), "captions": len(indices)}
    for name, scores, target, head in (
        ("image_to_text", similarity, positives, probabilities),
        ("text_to_image", similarity.T, positives.T, probabilities.T),
    ):
        ranks, reranked = [], []
        for row, mask, match in zip(scores, target, head, strict=True):
            ranks.append((row[~mask] >= row[mask].max()).sum())
            best = np.argsort(-row, kind="stable")[:count]
            positive_scores = match[best][mask[best]]
            negative_scores = match[best][~mask[best]]
            reranked.append((negative_scores >= positive_scores.max()).sum() if len(positive_scores) else ranks[-1])
        for k in (1, 5, 10):
            result[f"{name}_r{k}"] = float(np.mean(np.array(ranks) < k))
            result[f"reranked_{name}_r{k}"] = float(np.mean(np.array(reranked) < k))
    return result


def retrieve_and_save(folder, rank=0, **options):
    model, data = large_toy()
    result = retrieve(model, data, RetrievalConfig("toy", rerank=7), extractor(batch_size=8, **options))
    torch.save((result, model.images, model.pairs, model.passes), f"{folder}/{rank}.pt")


def run_process(rank: int, processes: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=processes, rank=rank)
    features.CHUNK, ranking.TILE_ROWS, ranking.TILE_COLUMNS, retrieval.TEXT_BATCH_SIZE = 16, 32, 100, 30
    retrieve_and_save(folder, rank, collective=processes == 4)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_equals_numpy(processes, tmp_path):
    if processes == 1:
        retrieve_and_save(tmp_path)
    else:
        run_ranks(run_process, (processes, str(tmp_path)), processes)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    model, data = large_toy()
    expected = reference_recalls(model, data, 7)
    assert all(0 < value < 1 for name, value in expected.items() if "_r" in name)
    assert [result for result, *_ in results] == [expected] * processes
    _, images, pairs, passes = zip(*results, strict=True)
    assert max(pairs) < 1.5 * sum(pairs) / processes
    if processes < 4:
        assert sum(images) == 150
    else:  # sharded weights: all processes run the same forward passes
        assert all(of_rank == passes[0] for of_rank in passes) and sum(images) > 150
