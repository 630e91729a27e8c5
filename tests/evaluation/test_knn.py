"""Weighted nearest neighbours: by hand on unit vectors, and in blocks on scikit-learn's digits."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from mmf_flava.config.run import EvaluationConfig, KnnConfig, LinearProbeConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation import knn
from mmf_flava.evaluation.knn import check_config, nearest, run_knn, vote
from mmf_flava.evaluation.linear_probe import LabelledEmbeddings
from mmf_flava.evaluation.split_result import SplitResult
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.training.results import Results
from tests.evaluation.toys import CPU, ToyDataset, ToyModel


def angles(*degrees):
    """Return a vector for each angle; the lengths differ, because only the directions count."""
    return np.array(
        [(n * math.cos(math.radians(d)), n * math.sin(math.radians(d))) for n, d in enumerate(degrees, 1)], np.float32
    )


def test_neighbours_are_those_of_the_smallest_angle():
    similarities, indices = nearest(angles(0, 90, 30, 180), angles(10, 100), 2)
    assert indices.tolist() == [[0, 2], [1, 2]]
    expected = [[math.cos(math.radians(d)) for d in row] for row in ((10, 20), (10, 70))]
    assert similarities.flatten().tolist() == pytest.approx([cos for row in expected for cos in row], abs=1e-6)


def test_weights_are_exponentials_of_the_similarity():
    # one neighbour of class 1 at similarity 0.9 and two of class 0 at 0.8; the weights are divided by exp(0.9 / T)
    similarities, classes = torch.tensor([[0.9, 0.8, 0.8]]), torch.tensor([[1, 0, 0]])
    weights = vote(similarities, classes, 2, temperature=0.1)
    assert weights[0].tolist() == pytest.approx([2 * math.exp(-1), 1], rel=1e-5)
    assert vote(similarities, classes, 2, temperature=1.0).argmax() == 0
    assert vote(similarities, classes, 2, temperature=1e-4).isfinite().all()


@pytest.mark.parametrize(("temperature", "prediction"), [(0.07, 7), (10.0, 3)])
def test_temperature_decides_between_one_near_and_two_far_neighbours(temperature, prediction):
    train = LabelledEmbeddings(angles(0, 40, -40, 180), np.array([7, 3, 3, 7]))
    result = run_knn(train, LabelledEmbeddings(angles(0), np.array([7])), KnnConfig(k=3, temperature=temperature))
    assert result.predictions.tolist() == [prediction]
    assert result.accuracy == (prediction == 7) and (result.k, result.train, result.classes) == (3, 4, 2)


def test_blocks_give_the_neighbours_of_the_whole_matrix(monkeypatch):
    pixels, digits = load_digits(return_X_y=True)
    train = LabelledEmbeddings(pixels[:1000].astype(np.float32), digits[:1000])
    test = LabelledEmbeddings(pixels[1000:1300].astype(np.float32), digits[1000:1300])
    whole = nearest(train.embeddings, test.embeddings, 20)
    monkeypatch.setattr(knn, "TRAIN_ROWS", 300)
    monkeypatch.setattr(knn, "TEST_ROWS", 70)
    blocks = nearest(train.embeddings, test.embeddings, 20)
    assert torch.allclose(whole[0], blocks[0], atol=1e-6)
    # an independent implementation with the same weights
    peer = KNeighborsClassifier(20, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07))
    expected = peer.fit(train.embeddings, train.targets).predict(test.embeddings)
    result = run_knn(train, test, KnnConfig())
    assert (result.predictions == expected).mean() > 0.99 and result.accuracy > 0.9
    assert result.summary()["samples"] == {"train": 1000, "test": 300}


def test_few_training_images_are_all_neighbours_and_unlabelled_images_are_ignored():
    train = LabelledEmbeddings(angles(0, 90, 1), np.array([1, 2, -1]))
    result = run_knn(train, LabelledEmbeddings(angles(2, 80, 50), np.array([1, 2, -1])), KnnConfig())
    assert (result.k, result.accuracy, len(result.targets)) == (2, 1.0, 2)


@pytest.mark.parametrize("empty", ["training", "test"])
def test_datasets_without_labels_raise(empty):
    labelled, unlabelled = (LabelledEmbeddings(angles(0, 1), np.array(targets)) for targets in ([0, 1], [-1, -1]))
    train, test = (unlabelled, labelled) if empty == "training" else (labelled, unlabelled)
    with pytest.raises(UserError, match=rf"evaluation\.knn: dataset 'pets' has no labelled {empty} images"):
        run_knn(train, test, KnnConfig("pets"))


@pytest.mark.parametrize(("second", "words"), [(3, "all training images have the same class"), (4, "")])
def test_a_single_class_is_named(second, words):
    images = LabelledEmbeddings(angles(0, 1), np.array([3, second]))
    result = SplitResult(knn=run_knn(images, images, KnnConfig("pets")))
    assert ("the same class" in result.format_summary()) == bool(words) and words in result.format_summary()


def test_unknown_dataset_raises():
    with pytest.raises(
        UserError, match=r"evaluation\.knn\.dataset: unknown dataset 'imagnet'. Did you mean 'imagenet'"
    ):
        check_config(KnnConfig("imagnet"), ["imagenet"])


class Counted(ToyDataset):
    def __getitem__(self, n):
        self.config["read"] = self.config.get("read", 0) + 1
        return super().__getitem__(n)


def datasets():
    train = Counted(angles(0, 10, 90, 100).tolist(), [0, 0, 1, 1])
    held_out = {split: ToyDataset(angles(5, 95, 40).tolist(), [0, 1, 1], bad={2}) for split in ("val", "test")}
    return {"probe": {"toy": train}, **{split: {"toy": data} for split, data in held_out.items()}}


@pytest.mark.parametrize("split", ["val", "test"])
def test_neighbours_are_evaluated_during_training(split, tmp_path):
    config = EvaluationConfig(batch_size=2, losses=False, knn=KnnConfig("toy", k=2))
    result = EvaluationSuite(config, datasets(), 0, CPU, trains=True).run(ToyModel(), split)
    assert result.to_record()["knn"] == {"accuracy": 1.0, "count": 2}
    assert result.has_scores and "2-NN accuracy 1.0000 on 2 images, on 2 of 3 samples of toy" in result.format_summary()
    results = Results(tmp_path)
    results.write_evaluation(split, 1, result, None)
    assert '"knn"' in (tmp_path / "evaluation.json").read_text()
    assert results.summary_lines({split: result})[0].startswith(f"2-NN accuracy 1.0000 on 2 images ({split} split, ")


def test_linear_probe_uses_the_same_embeddings():
    probe = LinearProbeConfig("toy", max_iterations=2, lambdas=[1.0, 10.0], val_share=0.5)
    config = EvaluationConfig(batch_size=2, losses=False, knn=KnnConfig("toy"), linear_probe=probe)
    splits = datasets()
    result = EvaluationSuite(config, splits, 0, CPU).run(ToyModel(), "test")
    assert result.knn is not None and result.linear_probe is not None
    assert splits["probe"]["toy"].config["read"] == 4
