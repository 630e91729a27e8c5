"""Numbers of masked patches and tokens of a batch, counted on the CPU workers.

The size of a boolean selection depends on the mask's values, so a forward pass without these numbers waits for the
device at each selection.
"""

from dataclasses import dataclass
from typing import Any

from mmf_flava.data.masking import IGNORED

FIELD = "mask_counts"


@dataclass(frozen=True)
class MaskCounts:
    """Counts of each sample of a batch; 0 for samples without the modality.

    patches: masked patches.
    tokens: masked tokens.
    matching: whether image and text match; True in unimodal batches.
    """

    patches: list[int]
    tokens: list[int]
    matching: list[bool]

    @classmethod
    def count(cls, batch: Any) -> "MaskCounts":
        """Count the masks of a batch; if they are on another device, the host waits for it."""
        size = len(batch["image"] if "image" in batch else batch["input_ids"])
        patches = batch["image_patch_mask"].sum(dim=1).tolist() if "image_patch_mask" in batch else [0] * size
        tokens = (batch["lm_label_ids"] != IGNORED).sum(dim=1).tolist() if "lm_label_ids" in batch else [0] * size
        matching = batch["is_correct"].view(-1).bool().tolist() if "is_correct" in batch else [True] * size
        return cls(patches, tokens, matching)

    @classmethod
    def of(cls, batch: Any) -> "MaskCounts":
        """Return the counts that ``collate`` added to the batch, or count the masks of any other batch."""
        size = len(batch["image"] if "image" in batch else batch["input_ids"])
        counts = batch[FIELD] if FIELD in batch else None
        return counts if counts is not None and len(counts.matching) == size else cls.count(batch)

    def of_matching(self) -> "MaskCounts":
        """Return the counts with 0 for pairs that do not match."""
        patches = [count * match for count, match in zip(self.patches, self.matching, strict=True)]
        tokens = [count * match for count, match in zip(self.tokens, self.matching, strict=True)]
        return MaskCounts(patches, tokens, self.matching)
