"""The samples of a dataset for evaluation: bad records are left out, instead of being replaced by other records."""

import copy
from collections import Counter
from collections.abc import MutableMapping, Sequence
from typing import Any

from mmf.common.sample import SampleList
from torch.utils.data import Dataset

from mmf_flava.data.look_ahead import later_samples
from mmf_flava.data.misfits import Form, find_misfits
from mmf_flava.data.quarantine import LEFT_OUT
from mmf_flava.data.record import BadRecord


class EvaluationSamples(Dataset):
    """View of a dataset. Its batches contain the good ones of the requested samples.

    A batch has the field ``left_out``: for each requested sample, None or, if its record is bad, its entry in the list
    of bad records. A batch without good samples has no field with values of samples.

    Args:
        dataset: dataset with ``collate(samples)``. If it has no method ``read_sample(n)``, no sample is left out.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._can_leave_out = hasattr(dataset, "read_sample")
        self._forms: Counter[Form] = Counter()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, n: int) -> Any:
        """Return sample n or, if its record is bad, the error."""
        if not self._can_leave_out:
            return self.dataset[n]
        try:
            return self.dataset.read_sample(n)
        except BadRecord as error:
            return error

    def __getitems__(self, batch: Sequence[int]) -> list[Any]:
        """Return the samples of a batch, and prepare for reading those that it lists as later; see ``Batch``."""
        if hasattr(self.dataset, "read_ahead"):
            self.dataset.read_ahead(later_samples(batch))
        return [self[n] for n in batch]

    def collate(self, samples: Sequence[Any]) -> Any:
        """Collate the good samples into a batch. A sample that does not fit the others is bad."""
        items = list(samples)
        if self._can_leave_out:
            good = [position for position, item in enumerate(items) if not isinstance(item, BadRecord)]
            misfits = find_misfits([items[position] for position in good], self._forms) if good else {}
            for position, error in misfits.items():
                items[good[position]] = error
        kept = [item for item in items if not isinstance(item, BadRecord)]
        batch = self.dataset.collate(kept) if kept else SampleList()
        if isinstance(batch, MutableMapping):  # a batch of another type has no fields
            batch[LEFT_OUT] = [item.entry() if isinstance(item, BadRecord) else None for item in items]
        if not kept:
            batch["dataset_name"], batch["dataset_type"] = self.dataset.dataset_name, self.dataset.dataset_type
        return batch


def count_samples(batch: Any) -> int:
    """Return the number of samples in a batch of an evaluation, without those that were left out."""
    return batch[LEFT_OUT].count(None)


def whole_images(dataset: Any) -> Any:
    """Return a view of a dataset whose samples have no crops for DINO, which take most of the time of a sample."""
    processor: Any = getattr(dataset, "image_processor", None)
    if not hasattr(processor, "without_crops"):
        return dataset
    view = copy.copy(dataset)
    view.image_processor = processor.without_crops()
    return view
