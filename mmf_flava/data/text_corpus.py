"""``ccnews_bookcorpus``: text without images (the paper's CCNews and BookCorpus, section 3.5), from token folders.

Shapes: T tokens of a block.
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.data.mixture import Part
from mmf_flava.data.stream import StreamBuilder, StreamDataset
from mmf_flava.data.token_files import TokenFile
from mmf_flava.errors import UserError
from mmf_flava.files.download import is_remote


class TextCorpusDataset(StreamDataset):
    """Blocks of text: fields input_ids, input_mask, input_ids_masked, lm_label_ids, (T,) each, and sample_id.

    A block is [CLS], T - 2 consecutive tokens, [SEP]; it may cross from one document into the next, whose border is a
    [SEP] (RoBERTa's "full sentences"). T is ``block_size``. What is left at the end of a token folder is not used.
    """

    NEEDS = ("text_processor",)

    def __init__(self, config: Any, dataset_type: str, paths: Sequence[str | Path]):
        block_size = int(config.get("block_size", 512))
        if block_size < 3:
            raise UserError(f"block_size is {block_size}; a block needs room for [CLS], one token and [SEP].")
        for path in filter(is_remote, paths):
            raise UserError(f"{path} is remote, but token folders are read from disk: download it and name the folder.")
        self.files = [TokenFile(path) for path in paths]
        self.span = block_size - 2
        self._starts = [0]
        for file in self.files:
            self._starts.append(self._starts[-1] + len(file) // self.span)
        if not self._starts[-1]:
            raise UserError(
                f"{', '.join(str(path) for path in paths)} holds {sum(map(len, self.files))} tokens, less than one "
                f"block of {block_size}."
            )
        block = config.get("shuffle_block", 1024)
        parts = [Part(len(file) // self.span, block) for file in self.files]
        super().__init__("ccnews_bookcorpus", config, dataset_type, self._starts[-1], block, parts)

    def init_processors(self) -> None:
        """Builds the processor; UserError when its vocabulary or length does not fit the token files."""
        super().init_processors()
        if self.text_processor.max_length < self.span + 2:
            raise UserError(
                f"dataset_config.{self.name}: block_size is {self.span + 2}, but text_processor.params.max_length "
                f"is {self.text_processor.max_length}; set it to {self.span + 2}."
            )
        for file in self.files:
            if file.meta["vocabulary_sha256"] != self.text_processor.vocabulary_hash:
                raise UserError(
                    f"The tokens in {file.folder} were made with another vocabulary ({file.meta['vocabulary_size']} "
                    f"words) than this tokenizer's ({self.text_processor.vocab_size}): tokenize the text again or "
                    "name the tokenizer it was made with."
                )

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        number = bisect_right(self._starts, index) - 1
        file, start = self.files[number], (index - self._starts[number]) * self.span
        tokens = file.tokens[start : start + self.span]
        sample = self.text_processor({"input_ids": tokens, "rng": rng})
        return {**sample, "sample_id": f"{file.folder.name}:{start}"}


@registry.register_builder("ccnews_bookcorpus")
class TextCorpusBuilder(StreamBuilder):
    """Builds ``ccnews_bookcorpus``; further keys: ``block_size`` (512), with [CLS] and [SEP]."""

    NAME = "ccnews_bookcorpus"

    def open(self, config: Any, dataset_type: str, paths: list[str | Path]) -> TextCorpusDataset:
        return TextCorpusDataset(config, dataset_type, paths)
