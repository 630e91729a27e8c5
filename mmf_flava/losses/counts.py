"""Numbers of values that the losses of a batch are means over, known before the forward pass.

The loss of several batches is the mean over the values of all batches, not the mean of the batches' losses. Therefore
figures do not depend on how samples are divided into batches.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LossCounts:
    """Numbers of values that the losses of a batch are means over, on this process.

    Attributes:
        samples: number of samples. A loss without its own count is a mean over samples.
        values: loss name -> number of values, e.g. ``{"flava_mlm": number of masked tokens}``.
    """

    samples: int
    values: dict[str, int]

    @classmethod
    def count(cls, model: Any, batch: Any) -> "LossCounts":
        """Count the values of a batch on the CPU.

        Args:
            model: a model may have a method ``loss_counts(batch)`` that returns ``values``. Its names must be the same
                for all batches of a dataset.
            batch: an MMF SampleList.
        """
        counts = getattr(model, "loss_counts", None)
        return cls(batch.get_batch_size(), {} if counts is None else counts(batch))

    def of(self, key: str) -> int:
        """Return the number of values of a loss.

        Args:
            key: name of the loss in the output of a model, e.g. ``train/pmd/flava_mlm``.
        """
        return self.values.get(loss_name(key), self.samples)


def loss_name(key: str) -> str:
    """Return the registered name of a loss from its name in the output of a model."""
    return key.rpartition("/")[2]
