"""The losses and gradients of an update do not depend on how its samples are divided into batches and processes."""

import gc
import json
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from mmf_flava.config.model import LOSSES
from mmf_flava.config.run import EvaluationConfig, WandbConfig
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.training.progress import Progress
from mmf_flava.training.update_losses import UpdateLosses
from tests.models.conftest import sample_list
from tests.processes import run_ranks
from tests.training.toys import FIELDS, batch, toy, updater

CPU, SIZE = torch.device("cpu"), 64
KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")
CONFIG = OmegaConf.create({"training": {"max_updates": 4, "tensorboard": False}})
NOT_CONTRASTIVE = [name for name in LOSSES if name != "flava_global_contrastive"]  # it depends on the batch size


class Tokens:
    """A model whose loss ``mlm`` is a mean over the tokens of a batch."""

    def loss_counts(self, batch):
        return {"mlm": int(batch["tokens"].sum())}


def update_of(*tokens):
    return UpdateLosses(Tokens(), [sample_list("texts", tokens=torch.tensor(counts)) for counts in tokens], CPU)


def test_loss_of_two_batches_is_the_mean_over_all_tokens():
    """One token with loss 4 and three tokens with loss 8: 28 / 4. A loss without counts: the mean over samples."""
    update = update_of([1], [1, 2])
    first = update.add({"train/texts/mlm": torch.tensor([4.0]), "train/texts/other": torch.tensor(3.0)})
    assert [loss.item() for loss in first.values()] == [1.0, 1.0]
    update.add({"train/texts/mlm": torch.tensor([8.0]), "train/texts/other": torch.tensor(6.0)})
    assert {key: loss.item() for key, loss in update.means.items()} == {
        "train/texts/mlm": 7.0,
        "train/texts/other": 5.0,
    }
    assert (update.count("train/texts/mlm"), update.count("train/texts/other")) == (4, 3)


def test_batch_without_tokens_does_not_count():
    update = update_of([0, 0], [2, 1])
    for loss in (0.0, 8.0):
        update.add({"mlm": torch.tensor(loss)})
    assert update.means["mlm"].item() == 8.0
    none = update_of([0], [0])
    assert none.add({"mlm": torch.tensor(0.0)})["mlm"].item() == 0.0 and none.count("mlm") == 0


def test_loss_of_one_batch_is_unchanged():
    loss = torch.tensor([0.1, 0.7])
    assert update_of([3]).add({"mlm": loss})["mlm"] == loss.mean()


def samples(kind, rows=slice(None)):
    """Return some of 64 samples: the first 16 pairs do not match, the next 16 have nothing to predict."""
    parts = [batch(kind, number) for number in range(11)]
    fields = {name: torch.cat([part[name] for part in parts])[:SIZE] for name in FIELDS[kind]}
    if "image_patch_mask" in fields:
        fields["image_patch_mask"][16:32] = False
        fields["image_patch_mask"][32:44] = True
    if "lm_label_ids" in fields:
        fields["lm_label_ids"][16:32] = -1
        fields["lm_label_ids"][50:] = fields["input_ids"][50:]
    if kind == "pmd":
        fields["is_correct"] = (torch.arange(SIZE) % 3 > 0).long() * (torch.arange(SIZE) >= 16)
    found = sample_list(kind, **{name: value[rows] for name, value in fields.items()})
    found.sample_id = list(range(SIZE))[rows]
    return found


class Samples(torch.utils.data.Dataset):
    def __init__(self, kind, numbers=range(SIZE)):
        self.kind, self.numbers = kind, numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, n):
        return self.numbers[n]

    def collate(self, numbers):
        return samples(self.kind, slice(numbers[0], numbers[-1] + 1))


def train(folder, frequency, rank=0, ranks=1, **options):
    """Train one update of each kind; return the weights after each update and the records of ``metrics.jsonl``.

    With a learning rate of 1, differences of weights are differences of gradients. They are clipped.
    """
    model = toy(losses=NOT_CONTRASTIVE)
    trained = updater(model, optimizer="SGD", lr=1.0, clip=0.5, **options)
    folder.mkdir(exist_ok=True)
    progress = Progress(folder, CONFIG, WandbConfig(), model, start=0, seconds=0.0, silent=rank > 0)
    size, states = SIZE // frequency // ranks, []
    for kind in KINDS:
        starts = [size * (ranks * number + rank) for number in range(frequency)]
        batches = [samples(kind, slice(start, start + size)) for start in starts]
        losses = UpdateLosses(model, batches, CPU)
        for part in batches:
            trained.accumulate(part, part is batches[-1], losses)
            progress.add_batch(part, waited=0.0)
        assert trained.step()
        progress.add_update(losses)
        progress.report(lr=1.0)
        states.append({name: weight.clone() for name, weight in trained.model_state().items()})
    progress.close()
    file = folder / "metrics.jsonl"
    return states, [json.loads(line)["losses"] for line in file.read_text().splitlines()] if rank == 0 else [], trained


def evaluate(model, size, numbers=range(SIZE), **options):
    datasets = {"val": {kind: Samples(kind, numbers) for kind in KINDS}}
    suite = EvaluationSuite(EvaluationConfig(batch_size=size), datasets, 0, CPU, **options)
    return suite.run(model, "val").losses


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for sharding in ("ddp", "fsdp"):
        for frequency in (1, 2, 4):
            states, records, trained = train(folder / f"{sharding}{frequency}", frequency, rank, 2, sharding=sharding)
            found[sharding, frequency] = states, records
        evaluated, together = trained.engine.evaluated, sharding == "fsdp"
        found[sharding, "losses"] = [evaluate(evaluated, size, collective=together) for size in (1, 8, SIZE)]
    if rank == 0:
        torch.save(found, folder / "found")
    gc.collect()  # FSDP keeps process groups in reference cycles
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """One process, one batch of 64."""
    states, records, trained = train(tmp_path_factory.mktemp("one") / "run", 1)
    return SimpleNamespace(states=states, records=records, losses=evaluate(trained.engine.evaluated, SIZE))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two processes."""
    folder = tmp_path_factory.mktemp("two")
    run_ranks(process, (folder,), 2)
    return torch.load(folder / "found")


def check(expected, states, records):
    assert records == [pytest.approx(losses, abs=1e-6) for losses in expected.records]
    for actual, reference in zip(states, expected.states, strict=True):
        differences = {name: (actual[name] - weight).abs().max().item() for name, weight in reference.items()}
        assert max(differences.values()) < 1e-6, differences


@pytest.mark.parametrize("frequency", [2, 4])
def test_accumulation_equals_one_batch(expected, frequency, tmp_path):
    states, records, trained = train(tmp_path / "run", frequency)
    check(expected, states, records)
    for size in (1, 8):
        assert evaluate(trained.engine.evaluated, size) == pytest.approx(expected.losses, abs=1e-6)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_equal_one_batch_of_one_process(found, expected, sharding):
    for frequency in (1, 2, 4):
        check(expected, *found[sharding, frequency])
    assert found[sharding, "losses"] == [pytest.approx(expected.losses, abs=1e-6)] * 3


def test_evaluation_loss_without_values_is_missing():
    """The samples 16 to 31 have nothing to predict, and the samples before them no matching pair."""
    assert evaluate(toy(), 8, numbers=range(16, 32)).keys() == {"flava_global_contrastive", "flava_itm"}
    assert evaluate(toy(), 8, numbers=range(8)).keys() == {"flava_itm", "flava_mim", "flava_mlm"}


def test_training_loss_without_values_is_missing(tmp_path):
    model = toy(losses=["flava_mlm"])
    progress = Progress(tmp_path, CONFIG, WandbConfig(), model, start=0, seconds=0.0)
    for rows, loss in ((slice(16, 24), 0.0), (slice(0, 8), 3.0)):
        texts = samples("ccnews_bookcorpus", rows)
        losses = UpdateLosses(model, [texts], CPU)
        losses.add({"train/texts/flava_mlm": torch.tensor(loss)})
        progress.add_batch(texts, waited=0.0)
        progress.add_update(losses)
        if rows.start == 16:
            assert progress.report(lr=1.0) == {}
            progress.add_update(losses)
    assert progress.report(lr=1.0) == {"flava_mlm": 3.0}
    progress.close()
