"""The batches of an update on MMF's main branch, for every strategy."""

from types import SimpleNamespace

import pytest
import torch

from tests.compat.loaders import Numbers, Stream, loader
from tests.mmf_versions import MMF_VERSION, needs_main

if MMF_VERSION == "main":
    from mmf.common.report import Report
    from mmf.trainers.core.training_loop import TrainerTrainingLoopMixin

pytestmark = [needs_main, pytest.mark.usefixtures("global_config")]


class Trainer(*([TrainerTrainingLoopMixin] if MMF_VERSION == "main" else [])):
    """MMF's loop, reduced to counting."""

    metrics = SimpleNamespace(required_params=[])
    device, run_type = "cpu", ["train"]

    def __init__(self, train_loader, update_frequency=1, max_updates=None, max_epochs=None, num_updates=0, **training):
        self.train_loader, self.num_updates = train_loader, num_updates
        self.dataset_loader = SimpleNamespace(seed_sampler=lambda split, epoch: None)
        self.logistics_callback = SimpleNamespace(log_interval=10**9)
        self.training_config = SimpleNamespace(
            update_frequency=update_frequency,
            max_updates=max_updates,
            max_epochs=max_epochs,
            **{"evaluation_interval": 10**9} | training,
        )
        self.max_updates = self._calculate_max_updates()
        self.updates = []  # of each update: the divisors of its batches' losses
        self.run_training_epoch()

    def run_training_batch(self, batch, loss_divisor):
        self.updates[-1].append(loss_divisor)
        report = SimpleNamespace(batch_size=2, accumulate_tensor_fields_and_loss=lambda *_: None)
        report.detach = lambda: report
        return report

    def _start_update(self):
        self.updates.append([])

    def _finish_update(self):
        self.num_updates += 1

    def on_batch_start(self):
        pass

    def on_batch_end(self, **_):
        pass

    def on_update_end(self, **_):
        pass

    def profile(self, text):
        pass


@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("strategy", ["round_robin", "random", "ratios"])
def test_loss_of_an_endless_strategy_is_divided_by_the_number_of_batches(strategy, frequency):
    trainer = Trainer(loader(strategy, a=3, b=4), frequency, max_updates=20)
    assert trainer.updates == [[frequency] * frequency] * 20


def test_divisor_after_a_resume():
    assert Trainer(loader("round_robin", a=3, b=4), 2, max_updates=20, num_updates=9).updates == [[2, 2]] * 11
    assert Trainer(loader("round_robin", a=3, b=4), 2, max_updates=20, num_updates=20).updates == []


def test_endless_strategy_with_an_iterable_dataset():
    assert Trainer(loader("round_robin", a=4, b=Stream()), 2, max_updates=9).updates == [[2, 2]] * 9


@pytest.mark.parametrize("sizes", [{"a": 3, "b": 3}, {"a": 1, "b": 7, "c": 3}, {"a": 5}])
def test_last_batch_of_every_dataset_is_counted(sizes):
    strategy = "size_proportional" if len(sizes) > 1 else "constant"
    batches = sum((size + 1) // 2 for size in sizes.values())
    assert len(loader(strategy, **sizes)) == batches
    assert Trainer(loader(strategy, **sizes), max_epochs=3).updates == [[1]] * batches * 3
    # the last update of an epoch has the remaining batches
    epoch = [[2, 2]] * (batches // 2) + [[1]] * (batches % 2)
    assert Trainer(loader(strategy, **sizes), 2, max_epochs=3).updates == epoch * 3
    assert Trainer(loader(strategy, **sizes), 2, max_updates=4, num_updates=2).updates == (epoch * 3)[:2]


def test_single_iterable_dataset_has_the_remaining_updates():
    assert Trainer(loader("constant", a=Stream()), 2, max_updates=5).updates == [[2, 2]] * 5


@pytest.mark.parametrize("strategy", ["round_robin", "size_proportional"])
def test_batch_is_loaded_after_the_previous_one_has_run(strategy):
    """Workers load while the model computes, and no update holds all its batches in memory."""
    loaded = []

    class Recorded(Numbers):
        def __getitem__(self, index):
            loaded.append(index)
            return index

    class Checking(Trainer):
        def run_training_batch(self, batch, loss_divisor):
            assert len(loaded) == 2 * self.current_iteration
            return super().run_training_batch(batch, loss_divisor)

    assert Checking(loader(strategy, a=Recorded(8), b=Recorded(8)), 4, max_updates=4).updates == [[4] * 4] * 4


def test_iterable_dataset_may_end_within_an_update():
    assert Trainer(loader("constant", a=Stream(), b=4), 3, max_updates=2).updates == [[2, 2]] * 2


@pytest.mark.parametrize("strategy", ["round_robin", "constant"])
@pytest.mark.parametrize(("result", "evaluated"), [(True, [2, 4]), (1, [2, 4, 6, 8]), ("no", [2, 4, 6, 8])])
def test_only_true_stops_the_training(strategy, result, evaluated):
    """A user's own callback may return anything, as in MMF's loop."""

    class Stopping(Trainer):
        early_stop_callback = SimpleNamespace(on_validation_end=lambda report, meter: result if report == 4 else None)

        def on_validation_start(self):
            self.evaluations = [*getattr(self, "evaluations", []), self.num_updates]

        def evaluation_loop(self, split):
            return self.num_updates, None

        def on_validation_end(self, **_):
            pass

    trainer = Stopping(loader(strategy, a=3, b=4), max_updates=8, evaluation_interval=2)
    assert trainer.evaluations == evaluated and trainer.num_updates == evaluated[-1]


def test_mmfs_own_loop_runs_where_its_count_is_correct(monkeypatch):
    calls = []
    original = TrainerTrainingLoopMixin.run_training_epoch.__wrapped__

    def record(self):
        calls.append(self)
        original(self)

    # the patch calls MMF's method for one batch an update of finite datasets, and replaces it otherwise
    patched = TrainerTrainingLoopMixin.run_training_epoch
    (cell,) = [cell for cell in patched.__closure__ if cell.cell_contents is original]
    monkeypatch.setattr(cell, "cell_contents", record)
    assert Trainer(loader("constant", a=3), max_epochs=2).updates == [[1], [1]] * 2
    assert len(calls) == 1
    Trainer(loader("constant", a=3), 2, max_epochs=1)
    Trainer(loader("round_robin", a=3, b=3), max_updates=3)
    assert len(calls) == 1


def test_loss_of_the_second_dataset_is_counted_once():
    first, second = Report(), Report()
    first.losses, second.losses = {"train/a/loss": torch.tensor(1.0)}, {"train/b/loss": torch.tensor(2.0)}
    first.accumulate_tensor_fields_and_loss(second, [])
    first.accumulate_tensor_fields_and_loss(second, [])
    assert first.losses == {"train/a/loss": 1.0, "train/b/loss": 4.0}
    assert second.losses["train/b/loss"] == 2.0
