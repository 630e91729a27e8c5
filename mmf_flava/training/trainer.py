"""``training.trainer: flava``: MMF's trainer for multitask pretraining (§3.4).

``mmf_run`` calls ``load()``, then ``train()`` or ``inference()``.
"""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry

import mmf_flava
from mmf_flava.compat import mmf_api
from mmf_flava.data.quarantine import BadRecords, Quarantine, counts
from mmf_flava.data.sampling import MultitaskLoader, Ratios, RoundRobin, Strategy
from mmf_flava.errors import UserError
from mmf_flava.evaluation.suite import EvaluationSuite, SplitResult
from mmf_flava.losses.ranks import world_size
from mmf_flava.training.checkpoint import load_model, load_state, restore_rng, rng_state, start
from mmf_flava.training.checkpoint_folder import CheckpointFolder, demand_whole
from mmf_flava.training.disk import told
from mmf_flava.training.lock import RunLock
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.progress import Progress
from mmf_flava.training.results import Results
from mmf_flava.training.settings import read_settings
from mmf_flava.training.sharding import gather_objects, rank, shard, wait_for_all
from mmf_flava.training.update import Updater

SPLITS = ("train", "val", "test")


@registry.register_trainer("flava")
class FlavaTrainer:
    """Trains on several datasets by turns, each update on one of them, and evaluates inside MMF."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.settings = read_settings(config)
        self.trains = "train" in config.run_type
        self.folder = Path(mmf_api.save_dir()).absolute()
        wishes = self.settings.checkpoint
        self.checkpoints = CheckpointFolder(self.folder, wishes.max_to_keep, wishes.background, mmf_api.log)
        self.results = Results(self.folder)
        self.num_updates, self.seconds = 0, 0.0
        self.rank = rank()

    # ------------------------------------------------------------------ load

    def load(self) -> None:
        """Builds datasets, model and optimizer, and goes on from a checkpoint where the recipe says so."""
        if self.trains and self.rank == 0:
            self.lock = RunLock(self.folder, mmf_api.log)
        training = self.settings.training
        if training.num_threads is not None:
            torch.set_num_threads(training.num_threads)
        cuda = torch.cuda.is_available() and "cuda" in str(self.config.training.device)
        # MMF has set the current device, and compat the one of the local rank
        self.device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        registry.register("current_device", self.device)
        self._load_datasets()
        self.model = mmf_api.build_model(self.config).to(self.device)
        self._check_vocabulary()
        if self.rank > 0:
            torch.manual_seed(self._seed + self.rank)  # the weights are the first process's; dropout is each one's own
        engine = shard(self.model, training.sharding, self.device) if self.trains else self.model
        self.updater = Updater(self.model, engine, self.config, training, self.device)
        self.suite = EvaluationSuite(
            self.settings.evaluation,
            self.datasets,
            self.config.training.batch_size,
            self.config.training.num_workers,
            self.device,
            lambda batch: self.quarantine.note(batch),
        )
        if self.trains:
            best, losses = self.config.training.early_stop, self.model.settings.losses  # type: ignore[union-attr]
            names = [loss.type for loss in losses]  # type: ignore[union-attr]
            self.monitor = Monitor(best.criteria, best.minimize, names, self.settings.evaluation)
        self._resume()

    def _load_datasets(self) -> None:
        self.datasets: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
        for name in self.settings.datasets:
            if name not in self.config.dataset_config:
                raise UserError(f"dataset_config has no section '{name}', which datasets names.")
            for split in SPLITS if self.trains else SPLITS[1:]:
                dataset = mmf_api.build_dataset(name, self.config.dataset_config[name], split)
                if dataset is not None:
                    self.datasets[split][name] = dataset
        if not self.trains:
            return
        for name, dataset in self.datasets["train"].items():
            if len(dataset) < self.config.training.batch_size:
                raise UserError(
                    f"training.batch_size is {self.config.training.batch_size}, but dataset '{name}' has "
                    f"{len(dataset)} training samples; a batch may hold each of them once."
                )
        sampling = self.settings.training.sampling
        strategy: Strategy = RoundRobin(self.settings.datasets)
        if sampling.type == "ratios":
            strategy = Ratios(sampling.ratios, self._seed)
        self.loader = MultitaskLoader(
            self.datasets["train"],
            strategy,
            batch_size=self.config.training.batch_size,
            num_workers=self.config.training.num_workers,
            seed=self._seed,
            rank=self.rank,
            world_size=world_size(),
            pin_memory=self.config.training.pin_memory,
            batches_per_turn=self.settings.training.update_frequency,
        )

    @property
    def _seed(self) -> int:
        return self.config.training.seed or 0

    def _check_vocabulary(self) -> None:
        """A tokenizer that knows more words than the model would index beyond the embeddings, far from here."""
        rows = self.model.settings.text_encoder.vocab_size  # type: ignore[union-attr]
        for name, dataset in {**self.datasets["test"], **self.datasets["train"]}.items():
            processor = getattr(dataset, "text_processor", None)
            if processor is not None and (words := processor.vocab_size) > rows:
                raise UserError(
                    f"The tokenizer of dataset '{name}' has {words} words, model_config.flava.text_encoder.vocab_size "
                    f"is {rows}; set it to at least {words}."
                )

    def _resume(self) -> None:
        wishes = self.config.checkpoint
        path = self._own_checkpoint(wishes.resume_best) if wishes.resume else None
        own = path is not None
        weights_only = wishes.resume_file and wishes.resume_pretrained
        if path is None and wishes.resume_file and not weights_only:
            path = Path(wishes.resume_file).absolute()
            if not path.exists():
                raise UserError(
                    f"checkpoint.resume_file: there is no {path}; weights from the hub, from an address or with other "
                    "names than ours need checkpoint.resume_pretrained: true."
                )
            demand_whole(path)
        if path is None:
            if wishes.resume:
                mmf_api.log(f"checkpoint.resume: no checkpoint in {self.checkpoints.folder} yet, starting anew.")
            whole = wishes.resume_file if weights_only else None
            for line in start(self.model, whole, self.settings.checkpoint, self.config.env.cache_dir):
                mmf_api.log(line)
            return
        load_model(path, self.model)
        mmf_api.log(f"Loaded the model from {path}")
        if path.is_dir() and self.trains and not wishes.reset.all and (own or not wishes.resume_pretrained):
            state = load_state(path, None if wishes.reset.optimizer else self.updater.optimizer)
            self._check_vocabularies(state.get("vocabularies", {}), path)
            if not wishes.reset.counts:
                self._restore_counts(state)

    def _own_checkpoint(self, best: bool) -> Path | None:
        """Of this run's folder; the first process looks, and all take the same."""
        path = None
        if self.rank == 0:
            path = self.checkpoints.best() if best else self.checkpoints.latest()
        return gather_objects(path)[0]

    def _vocabularies(self) -> dict[str, str]:
        """sha256 of the vocabulary of each dataset with text."""
        processors = {name: getattr(data, "text_processor", None) for name, data in self.datasets["train"].items()}
        return {name: found.vocabulary_hash for name, found in processors.items() if found is not None}

    def _check_vocabularies(self, trained_with: dict[str, str], path: Path) -> None:
        for name, found in self._vocabularies().items():
            if trained_with.get(name, found) != found:
                raise UserError(
                    f"{path} was trained with another vocabulary than dataset_config.{name}'s tokenizer has now: "
                    "name the tokenizer that it was trained with."
                )

    def _restore_counts(self, state: dict[str, Any]) -> None:
        self.num_updates, self.seconds = state["update"], state["seconds"]
        self.updater.restore_scheduler(state["scheduler"])
        self.loader.load_state_dict(state["loader"])
        self.monitor.load_state_dict(state["best"])
        self.results.first_losses, self.results.last_losses = state["losses"]
        if self.rank < len(state["rng"]):  # a process that the saved run did not have starts with its own
            restore_rng(state["rng"][self.rank])

    # ------------------------------------------------------------------ train

    def train(self) -> None:
        """Trains to ``training.max_updates``, then evaluates on the test split and writes the report."""
        if not self.trains:
            self.inference()
            return
        training = self.config.training
        if self.rank == 0:
            if self.num_updates == 0:
                self.results.set_aside()
            self.results.write_config(self.config)
        wait_for_all()
        self._open_quarantine()
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        mmf_api.log(
            f"Training {parameters:,} parameters on {', '.join(self.settings.datasets)}, updates {self.num_updates} to "
            f"{training.max_updates} of {training.batch_size} samples, "
            f"{self.settings.training.precision} on {self.device}"
        )
        silent = self.rank > 0
        progress = Progress(
            self.folder, self.config, self.settings.training.wandb, self.model, self.num_updates, self.seconds, silent
        )
        self.model.train()
        with mmf_api.quiet_console(), told(self.folder), closing(progress):
            batches = iter(self.loader)
            while self.num_updates < training.max_updates:
                self._update(batches, progress)
                self._after_update(progress)
        self.checkpoints.wait()
        self.seconds = progress.seconds
        bad = {key: reason for part in gather_objects(self.quarantine.found) for key, reason in part.items()}
        if self.rank == 0:
            with told(self.folder):
                self._final(parameters, bad)
        wait_for_all()

    def _open_quarantine(self) -> None:
        """Each process notes the bad records of its own batches, in a file of its own."""
        file = f"quarantine_{self.rank}.jsonl" if self.rank else "quarantine.jsonl"
        limits = {name: dataset.max_bad_share for name, dataset in self.datasets["train"].items()}
        self.quarantine = Quarantine(self.folder / file, limits, mmf_api.log)

    def _update(self, batches: Any, progress: Progress) -> None:
        frequency = self.settings.training.update_frequency
        for number in range(1, frequency + 1):
            began = time.perf_counter()
            _, batch = next(batches)
            waited = time.perf_counter() - began
            self.quarantine.note(batch)
            losses = self.updater.accumulate(batch.to(self.device), last=number == frequency)
            progress.batch(losses, batch, waited)
        self.updater.step()
        self.num_updates += 1
        progress.step()

    def _after_update(self, progress: Progress) -> None:
        training, update = self.config.training, self.num_updates
        last, improved = update == training.max_updates, False
        self.checkpoints.check()
        if update % training.log_interval == 0 or last:
            losses = progress.report(self.updater.learning_rate)
            self.results.note_losses(losses)
        if update % training.evaluation_interval == 0 or last:
            if self.rank == 0:
                result = self.suite.run(self.model, "val")
                progress.write("val", result.figures())
                mmf_api.log(f"evaluation at update {update}: {result.sentence()}")
                improved = self.monitor.improved(result.figures())
            improved = gather_objects(improved)[0]
            progress.pause()
        if update % training.checkpoint_interval == 0 or last or improved:
            self.seconds = progress.seconds
            self._save(improved)
            progress.pause()

    def _save(self, best: bool) -> None:
        state = {
            "seconds": self.seconds,
            "scheduler": self.updater.scheduler_state(),
            "loader": self.loader.state_dict(),
            "losses": [self.results.first_losses, self.results.last_losses],
            "best": self.monitor.state_dict(),
            "rng": gather_objects(rng_state()),
            "vocabularies": self._vocabularies(),
            "version": mmf_flava.__version__,
        }
        if self.rank == 0:
            self.checkpoints.save(self.num_updates, self.model, self.updater.optimizer, state, best)
        wait_for_all()

    # ------------------------------------------------------------------ results

    def _final(self, parameters: int, bad: BadRecords) -> None:
        began = time.perf_counter()
        test = self.suite.run(self.model, "test")
        bad = {**bad, **self.quarantine.found}
        if (examples := self.settings.evaluation.examples) is not None:
            self.results.write_examples(self.model.eval(), self.suite, examples)
        self.results.write_summary(
            {
                "model": self.config.model,
                "parameters": parameters,
                "updates": self.num_updates,
                "seconds": round(self.seconds, 1),
                "samples": self.num_updates * self.config.training.batch_size * self.settings.training.update_frequency,
                "batch_size": self.config.training.batch_size,
                "datasets": self.settings.datasets,
                "device": str(self.device),
                "precision": self.settings.training.precision,
                "bad_records": counts(bad),
                "evaluation_seconds": round(time.perf_counter() - began, 1),
                "version": mmf_flava.__version__,
            }
        )
        self._finish(test)

    def inference(self) -> None:
        """Evaluates the loaded model on the test split (``val`` in ``run_type``: on that one); predicts if asked."""
        if self.rank > 0:
            return
        self._open_quarantine()
        split = "val" if "val" in self.config.run_type and "test" not in self.config.run_type else "test"
        if self.config.evaluation.predict:
            result = self.suite.run(self.model, split)
            if result.zero_shot is None:
                raise UserError(
                    "evaluation.predict writes zero-shot predictions; give the recipe an evaluation.zero_shot."
                )
            mmf_api.log(f"Wrote {self.results.write_predictions(split, result.zero_shot.rows())}")
            return
        self._finish(self.suite.run(self.model, split), split)

    def _finish(self, result: SplitResult, split: str = "test") -> None:
        self.results.write_evaluation(split, self.num_updates, result)
        for line in self.results.closing_lines(split, result):
            mmf_api.log(line)
