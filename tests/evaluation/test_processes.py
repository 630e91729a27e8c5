"""Losses, metrics and predictions are equal to the bit for one, two and three processes. Each sample counts once."""

import math
from itertools import chain

import pytest
import torch
import torch.distributed as dist
from mmf.common.batch_collator import BatchCollator
from mmf.common.registry import registry
from mmf.common.sample import Sample
from mmf.models.base_model import BaseModel
from omegaconf import OmegaConf

import mmf_flava.plugin  # noqa: F401  registers the metrics
from mmf_flava.config.run import EvaluationConfig
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError
from mmf_flava.evaluation import rounds
from mmf_flava.evaluation.rounds import EvaluationStopped, Rounds
from mmf_flava.evaluation.scorer import has_labels
from mmf_flava.evaluation.split_result import SampleCount
from mmf_flava.evaluation.suite import EvaluationSuite
from tests.evaluation.toys import CPU, ToyDataset, ToyModel, extractor
from tests.processes import run_ranks

METRICS = ["accuracy", "macro_f1", "roc_auc"]
SIZES = {"memes": 7, "posts": 13}  # batches of two
BAD = {"memes": {5}, "posts": {2, 3, 8}}  # a complete batch of the posts is bad


@pytest.mark.parametrize(
    ("targets", "expected"),
    [(-1, False), (0, True), (-1.4, True), (torch.tensor(-1), False), (torch.tensor([-1.0, 2.0]), True), (None, False)],
)
def test_minus_one_marks_a_split_without_labels(targets, expected):
    sample = {} if targets is None else {"targets": targets}
    assert has_labels([sample]) is expected


class Entries(torch.utils.data.Dataset):
    """Entries with random features and labels. The entries ``bad`` are bad."""

    dataset_type = "val"

    def __init__(self, name, size, bad=(), labels=2):
        self.dataset_name, self.bad = name, bad
        generator = torch.Generator().manual_seed(size)
        self.features = torch.randn(size, 4, generator=generator)
        self.targets = torch.randint(0, labels, (size,), generator=generator) if labels else None

    def __len__(self):
        return len(self.features)

    def read_sample(self, n):
        if n in self.bad:
            error = BadRecord(Reason.NO_IMAGE, f"entry {n}: no image", f"k{n}")
            error.record = n
            raise error
        sample = Sample({"x": self.features[n], "id": torch.tensor(100 + n)})
        if self.targets is not None:
            sample["targets"] = self.targets[n]
        return sample

    def collate(self, samples):
        return BatchCollator(self.dataset_name, self.dataset_type)(samples)

    def identifiers(self, n):
        return {"id": 100 + n}

    def format_for_prediction(self, report):
        rows = zip(report.id.tolist(), report.scores.softmax(1)[:, 1].tolist(), strict=True)
        return [{"id": key, "proba": value} for key, value in rows]


class Classifier(BaseModel):
    """A linear classifier; MMF computes its loss from scores and targets."""

    def __init__(self):
        super().__init__(OmegaConf.create({"losses": ["cross_entropy"]}))
        registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
        self.init_losses()
        self.linear = torch.nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.arange(8).view(2, 4).sin())
        self.passes = 0

    def build(self):
        pass

    def forward(self, batch):
        self.passes += 1
        return {"scores": self.linear(batch["x"])}


def suite(names=SIZES, metrics=METRICS, bad=BAD, labels=2, **options):
    datasets = {"val": {name: Entries(name, SIZES[name], bad.get(name, ()), labels) for name in names}}
    return EvaluationSuite(EvaluationConfig(batch_size=2), datasets, 0, CPU, metrics=metrics, **options)


def evaluate(names=SIZES, **options):
    evaluation, model = suite(names, **options), Classifier()
    return evaluation.run(model, "val"), evaluation.predict(model, "val"), model.passes


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for processes in (2, 3):
        if rank < processes:
            dist.init_process_group("gloo", f"file://{folder}/{processes}", world_size=processes, rank=rank)
            found = evaluate(), evaluate(["memes"], collective=True)
            torch.save(found, f"{folder}/{processes}-{rank}.pt")
            dist.barrier()
            dist.destroy_process_group()


def test_results_are_equal_for_one_two_and_three_processes(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (expected, rows, _), (memes, _, _) = evaluate(), evaluate(["memes"])
    torch.set_num_threads(threads)
    assert expected.samples == {"memes": SampleCount(6, 1), "posts": SampleCount(10, 3)}
    assert list(expected.metrics) == [f"{name}/{metric}" for name in SIZES for metric in METRICS]
    assert list(memes.metrics) == METRICS and memes.metrics["roc_auc"] == expected.metrics["memes/roc_auc"]
    assert [row["id"] for row in rows["posts"]] == list(range(100, 113))
    assert [row.get("error") for row in rows["memes"]] == [None] * 5 + ["no image: entry 5: no image", None]
    run_ranks(run_process, (str(tmp_path),), 3)
    for processes in (2, 3):
        ranks = [torch.load(tmp_path / f"{processes}-{r}.pt", weights_only=False) for r in range(processes)]
        assert [result for (result, _, _), _ in ranks] == [expected] * processes
        assert [found for (_, found, _), _ in ranks] == [rows, *[{"memes": [], "posts": []}] * (processes - 1)]
        assert sum(passes for (_, _, passes), _ in ranks) == 2 * (4 + 6)  # batches with samples, twice
        # with sharded weights, all processes run equally many forward passes
        assert [result for _, (result, _, _) in ranks] == [memes] * processes
        assert [passes for _, (_, _, passes) in ranks] == [2 * math.ceil(4 / processes)] * processes


def test_scores_are_those_of_the_samples():
    """Computed in one batch with torch and sklearn."""
    from sklearn.metrics import f1_score, roc_auc_score

    result, rows, _ = evaluate(["posts"])
    data, good = Entries("posts", 13), [n for n in range(13) if n not in BAD["posts"]]
    scores, targets = Classifier().linear(data.features[good]).detach(), data.targets[good]
    assert result.losses == {"cross_entropy": pytest.approx(torch.nn.functional.cross_entropy(scores, targets).item())}
    assert result.metrics["macro_f1"] == pytest.approx(f1_score(targets, scores.argmax(1), average="macro"))
    assert result.metrics["roc_auc"] == pytest.approx(roc_auc_score(targets, scores[:, 1] - scores[:, 0]))
    assert [row["proba"] for row in rows["posts"] if "error" not in row] == pytest.approx(scores.softmax(1)[:, 1])


def test_split_without_labels_is_not_scored(monkeypatch):
    messages = []
    monkeypatch.setattr("mmf_flava.compat.mmf_api.log", messages.append)
    result, rows, passes = evaluate(["memes"], labels=0)
    assert not result.has_scores and "The val split of memes has no labels" in messages[0]
    assert len(rows["memes"]) == 7 and passes == 4  # only the predictions


def test_missing_field_of_a_metric_is_named():
    with pytest.raises(UserError, match=r"evaluation\.metrics: vqa_evalai_accuracy needs answers, which neither"):
        evaluate(["memes"], metrics=["vqa_evalai_accuracy"])


def test_modes_of_modules_are_restored_and_a_signal_stops_every_process():
    evaluation, model = suite(), Classifier().train()
    model.linear.eval()
    asked = iter([False, False, True])
    assert evaluation.run(model, "val", lambda: next(asked)) is None
    assert model.training and not model.linear.training and model.passes == 2
    assert evaluation.run(model, "val").has_scores  # it is not asked again


@pytest.mark.parametrize(("size", "processes"), [(7, 2), (7, 3), (1, 3), (4, 2)])
def test_sharded_model_runs_equally_many_passes_on_every_process(size, processes, monkeypatch):
    """The first and the last batch have no good samples."""
    data = ToyDataset([[float(n), 1.0] for n in range(size)], [0] * size, bad={0, 1} if size > 2 else set())
    monkeypatch.setattr(rounds, "world_size", lambda: processes)
    calls, chunks = [], []
    for rank in range(processes):
        monkeypatch.setattr(rounds, "rank", lambda rank=rank: rank)
        model, seen = ToyModel(), []
        model.image_features = lambda image, seen=seen: seen.append(len(image)) or image
        chunks.append(list(extractor(collective=True).chunks(model, data, "encoder")))
        calls.append(len(seen))
    assert calls == [math.ceil(math.ceil(size / 2) / processes)] * processes
    found = sorted(chain.from_iterable(chunk.ids for chunk in chain.from_iterable(chunks)))
    assert found == [f"s{n}" for n in range(size) if n not in data.bad]


def test_items_are_dealt_round_robin(monkeypatch):
    monkeypatch.setattr(rounds, "world_size", lambda: 2)
    dealt = {}
    for rank, collective in ((0, False), (1, False), (1, True)):
        monkeypatch.setattr(rounds, "rank", lambda rank=rank: rank)
        dealt[rank, collective] = list(Rounds(1, collective=collective).deal("abc"))
    assert dealt[0, False] == [("a", True), ("c", True)]
    assert dealt[1, False] == [("b", True), (None, False)] and dealt[1, True] == [("b", True), ("c", False)]
    work = Rounds(1)
    work.stopped = iter([False, True]).__next__
    monkeypatch.setattr(rounds, "rank", lambda: 1)
    items = work.deal("abc")
    assert next(items) == ("b", True)
    with pytest.raises(EvaluationStopped):
        next(items)  # also in a round without an item
