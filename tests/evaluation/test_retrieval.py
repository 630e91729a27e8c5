"""Retrieval by hand, re-ranked by a matching head, and by any number of processes."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation import features, ranking, retrieval
from mmf_flava.evaluation.retrieval import check, retrieve
from tests.evaluation.toys import Model, Vectors, extraction

ABC = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}


class Texts:
    """A text is the number of its vector."""

    def __init__(self, texts):
        self.number = {text: n for n, text in enumerate(texts)}

    def encode(self, texts):
        ids = torch.tensor([[self.number[text]] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


class PairModel(Model):
    """Embeds texts by number; the first number of an image is not embedded, it is the row of the table of matches."""

    def __init__(self, texts, likely=None):
        super().__init__()
        self.texts, self.likely, self.pairs = torch.tensor(texts), likely, 0
        self.heads = torch.nn.ModuleDict({} if likely is None else {"itm": torch.nn.Identity()})

    def encode_image(self, image):
        return super().encode_image(image[:, 1:])

    def encode_text(self, ids, mask):
        return self.texts[ids[:, 0]]

    def image_states(self, image):
        return image[:, :1].long()

    def match(self, states, ids, mask):
        self.pairs += len(ids)
        return self.likely[states[:, 0], ids[:, 0]]


@dataclass
class Captioned(Vectors):
    """Vectors with captions, and names of their own where an image stands in for another."""

    names: list[str] = field(default_factory=list)

    def collate(self, numbers):
        batch = super().collate(numbers)
        return {**batch, "sample_id": [self.names[n] for n in numbers]} if self.names else batch


def toy(vectors, captions, texts=ABC, likely=None):
    numbered = [[float(n), *vector] for n, vector in enumerate(vectors)]
    data = Captioned(numbered, [-1] * len(vectors), captions, Texts(texts))
    return PairModel(list(texts.values()), likely), data


def test_retrieval_in_both_directions():
    model, data = toy([[1.0, 0.1], [0.1, 1.0]], [["a"], ["b", "c"]])
    result = retrieve(model, data, RetrievalConfig("toy", [1]), extraction())
    assert result == {"images": 2, "captions": 3, "image_to_text_r1": 1.0, "text_to_image_r1": 1.0}


def test_a_caption_of_the_other_image_is_a_miss():
    model, data = toy([[1.0, 0.0], [1.0, 0.1]], [["a"], ["b"]])  # both look like caption a
    result = retrieve(model, data, RetrievalConfig("toy", [1, 2]), extraction())
    assert (result["image_to_text_r1"], result["image_to_text_r2"]) == (0.5, 1.0)


@pytest.mark.parametrize(("merged", "expected"), [(False, (4, 0.0, 0.75)), (True, (3, 1.0, 1.0))])
def test_a_caption_that_two_images_carry(merged, expected):
    """Each its own: the other's is as similar, and comes before. Merged: it is both images', and each counts for it."""
    model, data = toy([[0.6, 0.8], [0.5, 0.9]], [["c", "a"], ["c", "b"]])
    result = retrieve(model, data, RetrievalConfig("toy", [1], merged), extraction())
    assert (result["captions"], result["image_to_text_r1"], result["text_to_image_r1"]) == expected


def test_an_image_that_stands_in_for_a_bad_record_counts_once():
    model, data = toy([[1.0, 0.1], [0.1, 1.0], [0.1, 1.0]], [["a"], ["b"], ["b"]])
    data.names = ["s0", "s2", "s2"]
    result = retrieve(model, data, RetrievalConfig("toy", [1]), extraction())
    assert result == {"images": 2, "captions": 2, "image_to_text_r1": 1.0, "text_to_image_r1": 1.0}


def test_images_without_captions_are_named():
    model, data = toy([[1.0, 0.0]] * 5, [["a"], [], [], [], []])
    with pytest.raises(UserError, match=r"4 of 5 images have no caption \(s1, s2, s3, \.\.\.\)"):
        retrieve(model, data, RetrievalConfig("toy"), extraction())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (RetrievalConfig("pmdd"), "Did you mean 'pmd'"),
        (RetrievalConfig("pmd", []), "recall_at is empty"),
        (RetrievalConfig("pmd", [0]), "recall_at is 0"),
        (RetrievalConfig("pmd", rerank=-1), "rerank is -1"),
    ],
)
def test_a_section_that_cannot_be_run_is_refused(section, words):
    with pytest.raises(UserError, match=words):
        check(section, ["pmd", "imagenet"])


# ---------------------------------------------------------------------- the matching head


def test_the_matching_head_reorders_the_candidates():
    """All images look most like b, then c, then a; the head knows better, but sees two candidates of three."""
    images, likely = [[0.0, 1.0]] * 3, torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.9, 0.8], [0.0, 0.2, 0.7]])
    model, data = toy(images, [["a"], ["b"], ["c"]], likely=likely)
    two = retrieve(model, data, RetrievalConfig("toy", [1], rerank=2), extraction())
    assert (two["image_to_text_r1"], two["reranked_image_to_text_r1"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    model, data = toy(images, [["a"], ["b"], ["c"]], likely=likely)
    three = retrieve(model, data, RetrievalConfig("toy", [1], rerank=3), extraction())
    assert three["reranked_image_to_text_r1"] == 1.0 and three["text_to_image_r1"] == 0.0
    assert three["reranked_text_to_image_r1"] == pytest.approx(2 / 3)  # of caption c the head prefers the second image
    assert model.pairs == 9  # each once for both directions


def test_a_model_without_the_head_is_refused():
    model, data = toy([[1.0, 0.0]], [["a"]])
    with pytest.raises(UserError, match="flava_itm under model_config"):
        retrieve(model, data, RetrievalConfig("toy", rerank=2), extraction())
    assert model.images == 0  # before any work


# ---------------------------------------------------------------------- processes


def many():
    """150 images with 1 to 3 of 260 captions, several of which two images carry, and many ties, also of the head."""
    rng = np.random.default_rng(0)
    vectors = rng.integers(-3, 4, (150, 5)) + 0.25
    near = np.arange(260) % 150
    texts = {f"caption {n}": ((vectors[near[n]] + rng.integers(-2, 3, 5)) / 8).tolist() for n in range(260)}
    others = rng.integers(0, 260, 150)
    captions = [[f"caption {t}" for t in {n, others[n], (n + 150) % 260}] for n in range(150)]
    likely = (rng.integers(0, 30, (150, 260)) + 15 * (near == np.arange(150)[:, None])) / 45
    return toy(vectors.tolist(), captions, texts, torch.tensor(likely, dtype=torch.float32))


def by_hand(model, data, count):
    """Both directions as the documentation says, query by query, in plain numpy."""
    images = np.array(data.vectors)[:, 1:].astype(np.float32)
    images = ranking.on_grid(torch.nn.functional.normalize(torch.tensor(images), dim=-1)).double().numpy()
    own = np.array([n for n, captions in enumerate(data.captions) for _ in captions])
    number = np.array([data.text_processor.number[text] for captions in data.captions for text in captions])
    texts = torch.nn.functional.normalize(model.texts, dim=-1)[number]
    similarity = images @ ranking.on_grid(texts).double().numpy().T
    relevant, likely = own == np.arange(len(images))[:, None], model.likely.numpy()[:, number]
    result = {"images": len(images), "captions": len(number)}
    for name, scores, target, head in (
        ("image_to_text", similarity, relevant, likely),
        ("text_to_image", similarity.T, relevant.T, likely.T),
    ):
        ranks, reranked = [], []
        for row, mine, match in zip(scores, target, head, strict=True):
            ranks.append((row[~mine] >= row[mine].max()).sum())
            best = np.argsort(-row, kind="stable")[:count]
            among = match[best][mine[best]]
            place = (match[best][~mine[best]] >= among.max()).sum() if len(among) else ranks[-1]
            reranked.append(place)
        for k in (1, 5, 10):
            result[f"{name}_r{k}"] = float(np.mean(np.array(ranks) < k))
            result[f"reranked_{name}_r{k}"] = float(np.mean(np.array(reranked) < k))
    return result


def retrieve_many(folder, rank=0):
    model, data = many()
    result = retrieve(model, data, RetrievalConfig("toy", rerank=7), extraction(batch_size=8, shared=True))
    torch.save((result, model.images, model.pairs), f"{folder}/{rank}.pt")


def one_of_many(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=ranks, rank=rank)
    features.CHUNK, ranking.ROWS, ranking.COLUMNS, retrieval.TEXTS = 16, 32, 100, 30
    retrieve_many(folder, rank)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_processes_equals_plain_numpy(ranks, tmp_path):
    if ranks == 1:
        retrieve_many(tmp_path)
    else:
        multiprocessing.spawn(one_of_many, (ranks, str(tmp_path)), nprocs=ranks)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    model, data = many()
    expected = by_hand(model, data, 7)
    assert all(0 < value < 1 for name, value in expected.items() if "_r" in name)
    assert [result for result, _, _ in found] == [expected] * ranks
    assert sum(images for _, images, _ in found) == 150
    assert max(pairs for _, _, pairs in found) < 1.5 * sum(pairs for _, _, pairs in found) / ranks
