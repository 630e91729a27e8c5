"""Dataset ``ccnews_bookcorpus``: blocks of tokenized text (CCNews and BookCorpus, FLAVA paper, section 3.5).

Shapes: T = number of tokens of a block.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.config.datasets import TextCorpusConfig
from mmf_flava.data.annotations import NO_LABEL
from mmf_flava.data.order import spread_units
from mmf_flava.data.processor_calls import has_flava_interface
from mmf_flava.data.record import BadRecord
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.stream_builder import StreamBuilder
from mmf_flava.data.token_files import TokenFile
from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.download import is_remote

HASHED_TOKENS = 1024  # tokens of a block that the fingerprint of a corpus covers


class TextCorpusDataset(StreamDataset):
    """Blocks of text. Fields: targets (-1), sample_id and, each of shape (T,), input_ids, input_mask, segment_ids,
    input_ids_masked, lm_label_ids.

    A block is [CLS], T - 2 consecutive tokens, [SEP]. It may span several documents, separated by [SEP] (as in
    RoBERTa's "full sentences"). T is ``block_size``. An incomplete block at the end of a corpus is dropped.
    """

    def __init__(self, config: TextCorpusConfig, dataset_type: str, paths: Sequence[str | Path]):
        block_size = config.block_size
        for path in filter(is_remote, paths):
            raise UserError(
                f"{hide_address(path)}: remote folders of tokenized text are not supported. Download the folder and "
                "set its local path."
            )
        self.files = [TokenFile(path) for path in paths]
        self.span = block_size - 2
        self._starts = [0]
        for file in self.files:
            self._starts.append(self._starts[-1] + len(file) // self.span)
        if not self._starts[-1]:
            raise UserError(
                f"{', '.join(str(path) for path in paths)}: the text has {sum(map(len, self.files))} tokens, fewer "
                f"than one block of {block_size}. Add text or decrease block_size."
            )
        sizes = [len(file) // self.span for file in self.files]
        if config.splits.weights(dataset_type) is None:
            sizes = [sum(sizes)]
        super().__init__("ccnews_bookcorpus", config, dataset_type, [spread_units(size) for size in sizes])

    def init_processors(self) -> None:
        """Build the processor. Raises UserError if its vocabulary or max_length does not match the tokenized text."""
        super().init_processors()
        if not has_flava_interface(self.text_processor):
            raise UserError(
                f"dataset_config.{self.name}.processors.text_processor.type: the dataset has token ids, which only "
                "flava_text processes. Set it to flava_text."
            )
        if self.text_processor.max_length < self.span + 2:
            raise UserError(
                f"dataset_config.{self.name}: text_processor.params.max_length is {self.text_processor.max_length}, "
                f"smaller than block_size. Set it to at least {self.span + 2}."
            )
        for file in self.files:
            vocabulary = (file.meta["vocabulary_sha256"], file.meta["vocabulary_size"])
            if vocabulary != (self.text_processor.vocabulary_hash, self.text_processor.vocab_size):
                raise UserError(
                    f"The text in {file.folder} was tokenized with a different vocabulary "
                    f"({file.meta['vocabulary_size']} tokens) than the vocabulary of the run's tokenizer "
                    f"({self.text_processor.vocab_size} tokens). Tokenize the text again, or use the "
                    "original tokenizer."
                )

    def fingerprint(self) -> str:
        """Return a hash of the tokens: of their numbers and vocabulary, and of 64 evenly spaced blocks of each file."""
        digest = hashlib.sha256()
        for file in self.files:
            names = ("dtype", "documents", "tokens", "vocabulary_sha256", "vocabulary_size")
            digest.update(json.dumps([file.meta[name] for name in names]).encode())
            for start in np.linspace(0, max(0, len(file) - HASHED_TOKENS), 64).astype(np.int64).tolist():
                try:
                    digest.update(file.read(start, HASHED_TOKENS).tobytes())
                except BadRecord:
                    digest.update(f"{start} unreadable\n".encode())
        return digest.hexdigest()

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        number = bisect_right(self._starts, index) - 1
        file, start = self.files[number], (index - self._starts[number]) * self.span
        tokens = file.read(start, self.span)
        sample = self.text_processor({"input_ids": tokens, "rng": rng})
        # MMF computes losses only if the batch has targets
        return {**sample, "targets": NO_LABEL, "sample_id": f"{file.folder.name}:{start}"}


@registry.register_builder("ccnews_bookcorpus")
class TextCorpusBuilder(StreamBuilder):
    """Builder of the dataset ``ccnews_bookcorpus``."""

    NAME = "ccnews_bookcorpus"
    CONFIG = TextCorpusConfig

    def open_split(self, config: TextCorpusConfig, dataset_type: str, paths: list[str | Path]) -> TextCorpusDataset:
        return TextCorpusDataset(config, dataset_type, paths)
