"""Weights, checkpoints, token folders and cached codes."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from mmf_flava.data.code_writer import CodeWriter
from mmf_flava.data.codes import CodeFile, build_header
from mmf_flava.data.record import BadRecord, record_boundary
from mmf_flava.data.token_files import TokenFile, write_tokens
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece
from mmf_flava.files.checksums import verify_folder, write_checksums
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.training.checkpoint import load_state, restore_rng, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.weights.loading import load_checkpoint_weights
from mmf_flava.weights.weight_files import read_tensors
from tests.faults.file_format import COUNT, Delivered, Format


def tensor_bytes(tensors: Iterable[tuple[str, Any]]) -> Delivered:
    return {key: (str(value.dtype), tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes())
            for key, value in tensors if value.numel()}  # fmt: skip


class Safetensors(Format):
    """Weights in safetensors, compared with the bytes at the offsets of the header."""

    name, targets = "safetensors", ("a.safetensors",)

    def make(self, folder: Path, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            "a.weight": torch.randn(4, 6, generator=generator),
            "a.bias": torch.randn(6, generator=generator).half(),
        }
        save_file(tensors, folder / "a.safetensors", {"format": "pt", "seed": str(seed)})

    def read(self, folder: Path) -> Delivered:
        return tensor_bytes(read_tensors(folder / "a.safetensors")[0].items())

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        (size,) = struct.unpack("<Q", after[:8])
        header, data = json.loads(after[8 : 8 + size]), after[8 + size :]
        for key, (_, shape, content) in delivered.items():
            start, end = header[key]["data_offsets"]
            assert (list(shape), content) == (header[key]["shape"], data[start:end]), f"{key} differs"


class TorchFile(Safetensors):
    """Weights in PyTorch's format, whose pickles are not executed."""

    name, targets = "PyTorch weights", ("a.pt",)

    def make(self, folder: Path, seed: int) -> None:
        torch.save({"model": {"a.weight": torch.full((4, 6), float(seed))}, "epoch": 3}, folder / "a.pt")

    def read(self, folder: Path) -> Delivered:
        return tensor_bytes(read_tensors(folder / "a.pt")[0].items())

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        """The format has no checksums that PyTorch verifies."""


@dataclass
class Checkpoint(Format):
    """A checkpoint of ours. Its checksums find every change; with ``hostile``, they are written again."""

    hostile: bool = False
    targets = (
        "checkpoints/update_00000001/model.safetensors",
        "checkpoints/update_00000001/optimizer.safetensors",
        "checkpoints/update_00000001/state.json",
    )

    def __post_init__(self) -> None:
        self.name = "checkpoint with new checksums" if self.hostile else "checkpoint"
        if not self.hostile:
            self.targets = (*self.targets, "checkpoints/update_00000001/checksums.sha256")

    @staticmethod
    def model(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Linear(3, 2)
        nn.init.constant_(model.weight, value)
        nn.init.constant_(model.bias, value)
        optimizer = torch.optim.AdamW(model.parameters())
        for parameter in model.parameters():
            moments = {name: torch.full_like(parameter, value) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(value), **moments}
        return model, optimizer

    def make(self, folder: Path, seed: int) -> None:
        CheckpointFolder(folder).save(1, *self.model(float(seed)), {"rng": [rng_state()]})

    def after_change(self, folder: Path) -> None:
        if self.hostile:
            write_checksums(folder / "checkpoints" / "update_00000001")

    def read(self, folder: Path) -> Delivered:
        path = folder / "checkpoints" / "update_00000001"
        verify_folder(path)
        model, optimizer = self.model(-1.0)
        load_checkpoint_weights(model, path)
        with damaged_file(path, "checkpoint", "Use another one."):  # as in RunState.resume
            state = load_state(path, optimizer)
            restore_rng(state["rng"][0])
        return {**tensor_bytes(model.state_dict().items()), "update": state["update"]}

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        if not self.hostile:
            assert valid == delivered


class Tokens(Format):
    """A token folder. Untouched blocks are delivered, and all ids are in the vocabulary."""

    name, targets = "token folder", ("tokens.bin", "documents.npy", "meta.json")
    BLOCK = 8

    def make(self, folder: Path, seed: int) -> None:
        tokenizer = build_wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])
        rng = np.random.default_rng(seed)
        write_tokens(folder, [" ".join(rng.choice(list("abc"), size=5)) for _ in range(40)], tokenizer)

    def read(self, folder: Path) -> Delivered:
        file, delivered = TokenFile(folder), {}
        for start in range(0, len(file), self.BLOCK):
            try:
                with record_boundary(f"block {start}"):
                    delivered[start] = file.read(start, self.BLOCK).tolist()
            except BadRecord:
                continue
        return {**delivered, "documents": file.read_documents(0, file.meta["documents"] + 1).tolist()}

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        for start, ids in valid.items():
            data = slice(0) if target != "tokens.bin" or start == "documents" else slice(2 * start, 2 * start + 16)
            if start != "documents" and before[data] == after[data] and target != "meta.json":
                assert delivered.get(start) == ids, f"block {start} was changed"
            assert start == "documents" or max(delivered.get(start, [0])) < 2**32


class Codes(Format):
    """Cached codes. Untouched views are delivered, and all codes are in the codebook."""

    name, targets = "codes", ("pmd-train.codes", "pmd-train.json")
    HEADER = build_header(COUNT, 2, 9, "ab", {"codebook_size": 24}, {"type": "kmeans", "sha256": "c", "vocab_size": 64})

    def make(self, folder: Path, seed: int) -> None:
        codes = np.random.default_rng(seed).integers(64, size=(COUNT, 2, 9))
        with CodeWriter(folder, "pmd-train", self.HEADER) as writer:
            for record in range(COUNT):
                writer.write(record, codes[record])
            writer.finish()

    def read(self, folder: Path) -> Delivered:
        file, delivered = CodeFile(folder, "pmd-train", self.HEADER), {}
        for record, view in np.ndindex(COUNT, 2):
            try:
                with record_boundary(f"record {record}"):
                    delivered[record, view] = file.read(record, view).tolist()
            except BadRecord:
                continue
        return delivered

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        for number, (name, codes) in enumerate(valid.items()):
            data = slice(18 * number, 18 * (number + 1))
            if target.endswith(".json") or before[data] == after[data]:
                assert delivered.get(name) == codes, f"view {name} was changed"
            assert max(delivered.get(name, [0])) < 64
