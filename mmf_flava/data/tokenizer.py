"""WordPiece tokenizers, from a local folder or by hub name, and what identifies one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mmf_flava.errors import UserError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class SpecialIds:
    """Ids of BERT's five special tokens."""

    cls: int
    sep: int
    mask: int
    pad: int
    unk: int

    def all(self) -> list[int]:
        return [self.cls, self.sep, self.mask, self.pad, self.unk]


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """A tokenizer from a folder with ``tokenizer.json`` or ``vocab.txt`` (BERT's, lower case), else by hub name.

    Raises:
        UserError: the folder has neither file, or the hub has no such name or cannot be reached.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        if (folder / "vocab.txt").is_file():
            return wordpiece((folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n"))
        raise UserError(f"{folder} holds no tokenizer: looked for tokenizer.json and vocab.txt.")
    name = str(name_or_path)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:  # a path, which the hub would be asked for in vain
        raise UserError(f"There is no tokenizer at {name}: the folder does not exist.")
    try:
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare Exceptions for everything from a bad name to no network
        raise UserError(
            f"The tokenizer {name!r} is neither a local folder nor to be had from the Hugging Face hub "
            f"({type(error).__name__}): give the path of a folder with tokenizer.json or vocab.txt."
        ) from error


def wordpiece(vocabulary: list[str]) -> Tokenizer:
    """A WordPiece tokenizer as BERT-uncased has it; ``vocabulary`` lists the tokens in order of id."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of [CLS], [SEP], [MASK], [PAD] and [UNK]; UserError when the vocabulary lacks one."""
    ids = {}
    for token in ("cls", "sep", "mask", "pad", "unk"):
        number = tokenizer.token_to_id(f"[{token.upper()}]")
        if number is None:
            raise UserError(f"The tokenizer has no [{token.upper()}] token: FLAVA needs a BERT-style WordPiece.")
        ids[token] = number
    return SpecialIds(**ids)


def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """sha256 of the tokens in order of id, in hex: equal for tokenizers whose ids mean the same tokens."""
    digest = hashlib.sha256()
    for token, number in sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1]):
        digest.update(f"{number}\t{token}\n".encode())
    return digest.hexdigest()


def continuation_table(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) bool: True for ids that go on with a word (``##ing``), so ``~table[ids]`` marks where words begin."""
    table = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), dtype=bool)
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        table[number] = token.startswith("##")
    return table
