"""Collation of samples into a batch (MMF's SampleList). Texts are padded to the longest text of the batch.

Shapes: B = batch size, T = number of tokens of the longest text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmf.common.sample import SampleList
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from mmf_flava.data.mask_counts import FIELD, MaskCounts
from mmf_flava.data.masking import IGNORED


def collate(
    samples: Sequence[Mapping[str, Any]],
    dataset_name: str,
    dataset_type: str,
    pad_id: int = 0,
    pad_to_multiple: int = 1,
) -> SampleList:
    """Collate samples of one dataset into a batch.

    Text fields are padded to (B, T): token ids with ``pad_id``, ``lm_label_ids`` with -1, others with 0. T is rounded
    up to a multiple of ``pad_to_multiple``, so that a compiled model sees few different lengths. Other tensors must
    have equal shapes and are stacked. Integers become (B,) long tensors. All other fields (``sample_id``,
    ``captions``) become lists.

    Returns:
        A SampleList with ``dataset_name``, ``dataset_type`` and, for masked samples, ``mask_counts``. The first
        dimension of every tensor is B.
    """
    padding = {"input_ids": pad_id, "input_ids_masked": pad_id, "lm_label_ids": IGNORED}
    padding |= {"input_mask": 0, "segment_ids": 0}
    batch = SampleList()
    for field in samples[0]:
        if field == "record":  # only needed to name the record of a sample that cannot be collated
            continue
        values = [sample[field] for sample in samples]
        if field in padding:
            padded = pad_sequence(values, batch_first=True, padding_value=padding[field])
            batch.add_field(field, pad(padded, (0, -padded.shape[1] % pad_to_multiple), value=padding[field]))
        elif isinstance(values[0], Tensor):
            batch.add_field(field, torch.stack(values))
        elif isinstance(values[0], int):
            batch.add_field(field, torch.tensor(values))
        else:
            batch.add_field(field, values)
    if "image_patch_mask" in batch or "lm_label_ids" in batch:
        batch.add_field(FIELD, MaskCounts.count(batch))
    batch.dataset_name = dataset_name
    batch.dataset_type = dataset_type
    return batch
