"""All formats that are parsed, by name; each has a valid toy file, its reader, and what a changed file may deliver."""

from tests.faults.embedded_formats import ClassArchive, EmbeddedParquet, SavedDataset
from tests.faults.file_format import Format
from tests.faults.list_formats import Glue, Imdb, JsonLines, JsonList, Karpathy, Parquet
from tests.faults.part_formats import PartFiles
from tests.faults.shard_formats import Index, JsonRecord, ScannedShard, Shard
from tests.faults.table_formats import CaptionFiles, CompressedCsv, Csv, PathParquet
from tests.faults.tensor_formats import Checkpoint, Codes, Safetensors, Tokens, TorchFile
from tests.faults.text_formats import TextCorpus

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Shard(), ScannedShard(), Index(), JsonRecord(), JsonLines(), JsonList(), Imdb(), Karpathy(), Glue(), Parquet(),
        Safetensors(), TorchFile(), Checkpoint(), Checkpoint(hostile=True), Tokens(), Codes(), PartFiles(),
        EmbeddedParquet(), SavedDataset(), ClassArchive(), Csv(), CompressedCsv(), PathParquet(), CaptionFiles(),
        TextCorpus(),
    )
}  # fmt: skip
