"""MMF's own datasets in FLAVA's runs: a bad entry of an annotation file costs only itself."""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmf.common.registry import registry
from mmf.common.sample import Sample
from torch.utils.data import Dataset

from mmf_flava.data.entry_problems import explain_error, find_problem, is_caused_by_entry
from mmf_flava.data.global_generators import seeded_generators
from mmf_flava.data.misfits import Form, sample_form
from mmf_flava.data.mmf_parts import UNKNOWN, Entry, is_of_mmf, locate_entry
from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.data.run_quarantine import list_bad_records
from mmf_flava.data.stream import MAX_CONSECUTIVE_BAD
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError

PROBES = 16  # number of entries that are read to find mistakes of an entire split
HASHED = 64  # number of entries of a split that identify it
MANY = 0.1  # fraction of probed entries with the same mistake that makes it a mistake of the recipe or of the split
# mistakes of the recipe if they occur in many entries
SYSTEMATIC = {
    Reason.UNKNOWN_LABEL: "Correct the label, or increase num_labels.",
    Reason.MISFIT: "Add a label to all entries of the split or to none.",
}


class GoodEntries(Dataset):
    """View of a split of one of MMF's datasets. A bad entry is replaced by the next good entry.

    The field ``replaced`` of a sample lists each replaced entry with the reason; ``Quarantine`` counts them.
    Evaluations and predictions of MMF's own trainers leave out the samples that are replacements. The trainer ``flava``
    reads the view as a stream (see ``EntryStream``), whose evaluations do not read replacements.

    Args:
        dataset: a dataset of MMF. Its other attributes and methods are also attributes of the view.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._form: Form | None = None
        self._fields: frozenset[str] = frozenset()  # fields of all good entries that were probed

    @classmethod
    def of(cls, dataset: Any) -> Any:
        """Return a view of one of MMF's datasets. Other datasets, and None, are returned unchanged."""
        return cls(dataset) if is_of_mmf(dataset) else dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if "dataset" not in self.__dict__:  # while the view is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample of an entry or, if the entry is bad, of the next good entry.

        Raises:
            UserError: too many entries of the split are bad, or many entries contradict the recipe.
            RuntimeError: ten consecutive entries fail with an unexpected error, which is an error of the program.
        """
        size = len(self)
        replaced: list[BadRecord] = []
        errors = UnexpectedErrors(self._source, warn=None)
        errors.add_good()  # one of the probed entries is good
        for attempt in range(min(size, MAX_CONSECUTIVE_BAD)):
            number = (index + attempt) % size
            sample = self._read(number)
            if not isinstance(sample, BadRecord):
                found = {"sample_id": locate_entry(self.dataset, number).key, **sample}
                return Sample({**found, "replaced": [error.entry() for error in replaced]})
            replaced.append(sample)
            errors.add_bad(sample.failure)
        raise _as_user_error(replaced[0])

    def read_entry(self, index: int) -> Sample:
        """Return the sample of an entry.

        Raises:
            BadRecord: the entry is bad.
            UserError: many entries contradict the recipe.
        """
        sample = self._read(index)
        if isinstance(sample, BadRecord):
            raise sample
        return sample

    def prepare_batch(self, batch: Any) -> Any:
        """List the bad entries of a batch of one of MMF's trainers, and prepare it as the dataset does."""
        list_bad_records(batch)
        return self.dataset.prepare_batch(batch)

    def identifiers(self, index: int) -> dict[str, Any]:
        """Return the IDs in an entry, for example ``{"question_id": 1286}``, also if the entry is bad."""
        entry = locate_entry(self.dataset, index).content
        items = entry.items() if isinstance(entry, Mapping) else ()
        return {key: _as_number(value) for key, value in items if key == "id" or str(key).endswith("_id")}

    def entries_sha256(self) -> str:
        """Return a hash of ``HASHED`` entries of the split, by which a resumed run notices other annotations."""
        size = len(self)
        indices = sorted({number * (size - 1) // (HASHED - 1) for number in range(HASHED)})
        contents = [locate_entry(self.dataset, index).content for index in indices]
        text = "".join(repr(content) for content in contents if content is not UNKNOWN)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def _source(self) -> str:
        return f"dataset {self.dataset.dataset_name} ({self.dataset.dataset_type})"

    def _read(self, index: int, any_form: bool = False) -> Sample | BadRecord:
        """Return the sample of an entry or, if the entry is bad, the error.

        Args:
            any_form: accept a sample with other fields than most samples.
        """
        if self._form is None and not any_form:
            self._form = self._probe()
        entry = locate_entry(self.dataset, index)
        try:
            with record_boundary(lambda: entry.name):
                sample = self._load(index, entry)
                if not any_form and (form := sample_form(sample)) != self._form:
                    raise BadRecord(Reason.MISFIT, f"{entry.name}: {_difference(form, self._form or ())}")
                return sample
        except BadRecord as error:
            error.key, error.record = entry.key, index
            return error

    def _load(self, index: int, entry: Entry) -> Sample:
        try:
            sample = self.dataset[index]
        except Exception as error:
            problem = explain_error(error, entry.content, self._fields) if is_caused_by_entry(error) else None
            if problem is None:
                raise
            raise BadRecord(problem.reason, f"{entry.name} cannot be used: {problem.text}") from error
        _check_label(sample, entry)
        return sample

    def _probe(self) -> Form:
        """Read a few entries, and return the form of most samples. The state of the random generators is kept.

        Raises:
            UserError: all of these entries are bad, or many of them contradict the recipe or each other.
        """
        indices = sorted(random.Random(0).sample(range(len(self)), min(len(self), PROBES)))
        with seeded_generators(seed=0, n=0):
            samples = [self._read(index, any_form=True) for index in indices]
        bad = [sample for sample in samples if isinstance(sample, BadRecord)]
        forms = {i: sample_form(s) for i, s in zip(indices, samples, strict=True) if not isinstance(s, BadRecord)}
        if not forms:
            errors = UnexpectedErrors(self._source, warn=None)
            for error in bad:
                errors.add_bad(error.failure)
            if all(error.failure for error in bad):
                errors.stop("all entries failed with an unexpected error")
            raise _as_user_error(bad[0])
        contents = [locate_entry(self.dataset, index).content for index in forms]
        self._fields = frozenset.intersection(*(frozenset(one if isinstance(one, Mapping) else ()) for one in contents))
        usual = Counter(forms.values()).most_common(1)[0][0]
        for index, form in forms.items():
            if form != usual:
                name = locate_entry(self.dataset, index).name
                bad.append(BadRecord(Reason.MISFIT, f"{name}: {_difference(form, usual)}"))
        for reason in SYSTEMATIC:
            same = [error for error in bad if error.reason == reason]
            if len(same) > max(1, MANY * len(indices)):
                raise _as_user_error(same[0])
        return usual


registry.register("flava_good_entries", GoodEntries)


def _as_user_error(error: BadRecord) -> UserError:
    return UserError(f"{error.message}. {SYSTEMATIC.get(error.reason, 'Correct the entry.')}")


def _as_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value


def _difference(form: Form, usual: Form) -> str:
    own, others = dict(form), dict(usual)
    if missing := sorted(others.keys() - own.keys()):
        return f"this entry has no {', '.join(missing)}, unlike other entries of the split"
    if surplus := sorted(own.keys() - others.keys()):
        return f"this entry has {', '.join(surplus)}, unlike other entries of the split"
    field = next(field for field in sorted(own) if own[field] != others[field])
    return f"its {field} is {own[field]}, in other entries {others[field]}"


def _check_label(sample: Any, entry: Entry) -> None:
    """Raise BadRecord if torch has truncated a label such as 0.5 to an integer, or if the model lacks the label.

    Raises:
        UserError: the samples have scores for another number of labels than the model.
    """
    targets: Any = sample.get("targets") if isinstance(sample, Mapping) else None
    if not hasattr(targets, "numel"):
        return
    labels = _number_of_labels()
    if targets.is_floating_point():
        if labels is not None and targets.ndim == 1 and targets.numel() not in (1, labels):
            raise UserError(
                f"{entry.name}: the entry has scores for {targets.numel()} labels, but num_labels is {labels}. Set "
                f"model_config.flava_classification.num_labels={targets.numel()}."
            )
        return
    if targets.numel() != 1:
        return
    content: Any = entry.content
    if isinstance(content, Mapping) and isinstance(content.get("label"), float) and (problem := find_problem(content)):
        raise BadRecord(problem.reason, f"{entry.name}: {problem.text}")
    label = int(targets)
    is_unlabelled = label == -1 and entry.split == "test"
    if labels is not None and not 0 <= label < labels and not is_unlabelled:
        text = f"its label is {label}, but model_config.flava_classification.num_labels is {labels}"
        raise BadRecord(Reason.UNKNOWN_LABEL, f"{entry.name}: {text}")


def _number_of_labels() -> int | None:
    """Return ``num_labels`` of the model ``flava_classification``; None for other models and for regression."""
    config = registry.get("config", no_warning=True)
    if not config or config.get("model") != "flava_classification":
        return None
    labels = (config.model_config.get("flava_classification") or {}).get("num_labels")
    return labels if isinstance(labels, int) else None
