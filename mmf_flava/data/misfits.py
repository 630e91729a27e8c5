"""Samples that cannot be collated, because their fields differ from those of the other samples of a batch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmf_flava.data.record import BadRecord, Reason

# padded to the longest text of a batch
TEXT_FIELDS = ("input_ids", "input_ids_masked", "input_mask", "lm_label_ids", "segment_ids")
BOOKKEEPING = ("record", "replaced")

Form = tuple[tuple[str, str], ...]  # (field, description) of the fields of a sample, sorted by field


def sample_form(sample: Mapping[str, Any]) -> Form:
    """Return what collation requires to be equal in all samples: the fields, and the dtype and shape of tensors."""
    form = {field: _describe(field, value) for field, value in sample.items() if field not in BOOKKEEPING}
    if len({len(sample[field]) for field in TEXT_FIELDS if isinstance(sample.get(field), Tensor)}) > 1:
        form["text"] = "fields of different lengths"
    return tuple(sorted(form.items()))


def _describe(field: str, value: object) -> str:
    if isinstance(value, Tensor):
        shape = f"{value.dim()} dimensions" if field in TEXT_FIELDS else f"shape {tuple(value.shape)}"
        return f"{str(value.dtype).removeprefix('torch.')} of {shape}"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "int of more than 64 bits"
    return "other"


def find_misfits(samples: Sequence[Mapping[str, Any]], seen: Counter[Form]) -> dict[int, BadRecord]:
    """Return the samples that do not fit the others of their batch, by position. At least one sample fits.

    Args:
        samples: the samples of a batch.
        seen: number of samples of each form so far. It is updated, and decides which form of a batch is the usual one.
    """
    forms = [sample_form(sample) for sample in samples]
    seen.update(forms)
    usual = max(dict.fromkeys(forms), key=lambda form: seen[form])
    return {position: _misfit(samples[position], form, usual) for position, form in enumerate(forms) if form != usual}


def _misfit(sample: Mapping[str, Any], form: Form, usual: Form) -> BadRecord:
    own, others = dict(form), dict(usual)
    field = next(field for field in sorted(own.keys() | others.keys()) if own.get(field) != others.get(field))
    key = str(sample.get("sample_id", f"record {sample.get('record')}"))
    difference = f"{field} is {own.get(field, 'missing')}, in other samples {others.get(field, 'missing')}"
    error = BadRecord(Reason.MISFIT, f"{key}: the sample does not fit the batch ({difference})", key)
    error.record = sample.get("record", -1)
    return error


def replace_misfits(samples: Sequence[Mapping[str, Any]], seen: Counter[Form]) -> Sequence[Mapping[str, Any]]:
    """Replace the samples that do not fit the others by the next sample that does, and list them in ``replaced``."""
    misfits = find_misfits(samples, seen)
    if not misfits:
        return samples
    size = len(samples)
    fitting = [position for position in range(size) if position not in misfits]
    result = [dict(sample) for sample in samples]
    for position, error in misfits.items():
        other = min(fitting, key=lambda candidate: (candidate - position) % size)
        replaced = [*samples[position].get("replaced", []), error.entry()]
        result[position] = {**samples[other], "replaced": replaced}
    return result
