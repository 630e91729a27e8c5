"""Numbers of masked patches and tokens of a batch, computed in the data loader workers.

The output size of boolean mask indexing depends on the values of the mask. Without precomputed counts, each indexing
operation in the forward pass causes a host-device synchronisation.
"""

from dataclasses import dataclass
from typing import Any

from mmf_flava.data.masking import IGNORED

FIELD = "mask_counts"


@dataclass(frozen=True)
class MaskCounts:
    """Numbers of masked patches and tokens of each sample of a batch.

    Attributes:
        patches: number of masked patches; 0 in text-only batches.
        tokens: number of masked tokens; 0 in image-only batches.
        matching: whether image and text match; True in unimodal batches.
    """

    patches: list[int]
    tokens: list[int]
    matching: list[bool]

    @classmethod
    def count(cls, batch: Any) -> "MaskCounts":
        """Count the masked patches and tokens of a batch. On a GPU, this causes host-device synchronisation."""
        size = _batch_size(batch)
        patches = batch["image_patch_mask"].sum(dim=1).tolist() if "image_patch_mask" in batch else [0] * size
        tokens = (batch["lm_label_ids"] != IGNORED).sum(dim=1).tolist() if "lm_label_ids" in batch else [0] * size
        matching = batch["is_correct"].view(-1).bool().tolist() if "is_correct" in batch else [True] * size
        return cls(patches, tokens, matching)

    @classmethod
    def of(cls, batch: Any) -> "MaskCounts":
        """Return the counts that ``collate`` stored in the batch, or compute them if they are missing or outdated."""
        counts = batch.get(FIELD)
        return counts if counts is not None and len(counts.matching) == _batch_size(batch) else cls.count(batch)

    def totals(self) -> dict[str, int]:
        """Return the numbers of samples, of matching pairs, and of their masked patches and tokens."""
        counts = self.of_matching()
        return {
            "samples": len(counts.matching),
            "pairs": sum(counts.matching),
            "patches": sum(counts.patches),
            "tokens": sum(counts.tokens),
        }

    def of_matching(self) -> "MaskCounts":
        """Return a copy in which the counts are 0 for pairs whose image and text do not match."""
        patches = [count * match for count, match in zip(self.patches, self.matching, strict=True)]
        tokens = [count * match for count, match in zip(self.tokens, self.matching, strict=True)]
        return MaskCounts(patches, tokens, self.matching)


def _batch_size(batch: Any) -> int:
    return len(batch["image_patch_mask"] if "image_patch_mask" in batch else batch["input_ids_masked"])
