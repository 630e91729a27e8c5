"""Reading GLUE's files in each published format."""

import logging

import pytest

from mmf_flava.data.glue_files import read_glue
from mmf_flava.data.glue_tasks import TASKS
from mmf_flava.errors import UserError
from tests.data.glue_toys import records, rows, write_jsonl, write_tsv


def expected(name, count, seed):
    return [(tuple(texts), target) for texts, target in rows(TASKS[name], count, seed)]


def read(folder, name, split, **options):
    return [(example.texts, example.target) for example in read_glue(folder, TASKS[name], split, **options)]


@pytest.mark.parametrize("name", TASKS)
def test_reads_tsv_of_the_zips(tmp_path, name):
    write_tsv(tmp_path, name, train=7, dev=4, test=3)
    num_subsets = len(TASKS[name].file_stems("dev"))
    assert read(tmp_path, name, "train") == expected(name, 7, 5)
    assert read(tmp_path, name, "dev") == expected(name, 4, 3) + expected(name, 4, 4) * (num_subsets - 1)
    test = read(tmp_path, name, "test")
    assert [texts for texts, _ in test][:3] == [texts for texts, _ in expected(name, 3, 4)]
    assert {target for _, target in test} == {None}


def test_data_dir_can_be_the_task_folder(tmp_path):
    place = write_tsv(tmp_path, "rte", train=2)
    assert read(place, "rte", "train") == expected("rte", 2, 5)


def test_quotation_marks_and_line_separators_are_literal(tmp_path):
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2/dev.tsv").write_text('sentence\tlabel\r\n"a\u2028b" ""\t1\r\n\n c\x85d\t0\n', encoding="utf-8")
    assert read(tmp_path, "sst2", "dev") == [(('"a\u2028b" ""',), 1), ((" c\x85d",), 0)]


@pytest.fixture
def msr(tmp_path):
    """Microsoft's files: a byte order mark, and train and dev in one file, separated by a list of ids."""
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    lines += [f"{n % 2}\t{n}\t{n + 100}\tfirst {n}\tsecond {n}" for n in range(5)]
    for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"):
        (tmp_path / name).write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("ids", ["dev_ids.tsv", "mrpc_dev_ids.tsv"])
def test_reads_microsoft_mrpc(msr, ids):
    (msr / ids).write_text("1\t101\n4\t104\n")
    assert read(msr, "mrpc", "dev") == [(("first 1", "second 1"), 1), (("first 4", "second 4"), 0)]
    assert [target for _, target in read(msr, "mrpc", "train")] == [0, 0, 1]
    assert len(read(msr, "mrpc", "test")) == 5


def test_microsoft_mrpc_without_dev_ids_raises(msr):
    with pytest.raises(UserError, match=r"dev ids was not found\. Download dev_ids.tsv or mrpc_dev_ids.tsv"):
        read(msr, "mrpc", "dev")


@pytest.mark.parametrize("name", TASKS)
def test_reads_jsonl_of_the_hub(tmp_path, name):
    task = TASKS[name]
    for stem in task.file_stems("dev"):
        stem = stem.replace("dev", "validation")
        write_jsonl(tmp_path / task.hub_folder / f"{stem}.jsonl", records(name, "dev", 4))
    assert read(tmp_path, name, "dev") == expected(name, 4, 3) * len(task.file_stems("dev"))
    for stem in task.file_stems("test"):
        write_jsonl(tmp_path / task.hub_folder / f"{stem}.jsonl", records(name, "test", 2))
    assert {target for _, target in read(tmp_path, name, "test")} == {None}


def test_reads_jsonl_with_label_names(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"sentence1": "a", "sentence2": "b", "label": "not_entailment"}])
    assert read(tmp_path, "rte", "train") == [(("a", "b"), 1)]


def test_reads_parquet_in_several_files(tmp_path):
    pa, pq = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    lines = records("stsb", "dev", 5)
    for number, records_of_file in enumerate((lines[:3], lines[3:])):
        (tmp_path / "stsb").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(records_of_file)
        pq.write_table(table, tmp_path / "stsb" / f"validation-{number:05d}-of-00002.parquet")
    assert read(tmp_path, "stsb", "dev") == expected("stsb", 5, 3)


def test_corrupt_parquet_raises(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"train-00000-of-00001.parquet cannot be read as parquet"):
        read(tmp_path, "rte", "train")


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("qqp", "1\t2\t3\thow", "expected 6 fields, got 4"),
        ("qqp", "1\t2\t3\thow\twhy\t2", "expected label 0 or 1, got '2'"),
        ("rte", "1\ta\tb\tneutral", "expected label entailment or not_entailment, got 'neutral'"),
        ("stsb", "\t".join(["x"] * 9 + ["5.1"]), "expected a score from 0 to 5, got '5.1'"),
        ("stsb", "\t".join(["x"] * 9 + ["nan"]), "expected a score from 0 to 5, got 'nan'"),
        ("cola", "gj04\t1\t", "expected 4 fields, got 3"),
    ],
)
def test_malformed_line_raises_or_warns(tmp_path, caplog, name, line, reason):
    place = write_tsv(tmp_path, name, dev=3)
    with open(place / "dev.tsv", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    number = 4 if name == "cola" else 5
    with pytest.raises(
        UserError, match=rf"{place}/dev.tsv: 1 of 4 lines are malformed, more than max_bad_share 0.01: line {number} "
    ):
        read(tmp_path, name, "dev")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, name, "dev", max_bad_share=0.25) == expected(name, 3, 3)
    assert f"dev.tsv: 1 of 4 lines are malformed and skipped: line {number} (" in caplog.text
    assert reason in caplog.text


def test_malformed_json_record_is_skipped_with_warning(tmp_path, caplog):
    path = tmp_path / "train.jsonl"
    good = '{"sentence": "a", "label": 1}\n'
    path.write_text(good + '{"sentence": "a", "la\n[]\n{"text": "a", "label": 1}\n{"sentence": "a", "label": -1}\n')
    assert read(tmp_path, "cola", "train", max_bad_share=None) == [(("a",), 1)]
    for reason in (
        "line 2 (not a JSON object), line 3 (not a JSON object), line 4 ('sentence' is not a string) and 1 more",
    ):
        assert reason in caplog.text


def test_malformed_line_in_unlabelled_split_raises(tmp_path):
    place = write_tsv(tmp_path, "qnli", test=200)
    with open(place / "test.tsv", "a", encoding="utf-8") as file:
        file.write("half a line\n")
    with pytest.raises(
        UserError, match=r"GLUE requires a prediction for each line: line 202 .expected 3 fields, got 1"
    ):
        read(tmp_path, "qnli", "test", max_bad_share=None)


def test_missing_files_raise_with_download_instructions(tmp_path):
    with pytest.raises(UserError) as error:
        read(tmp_path, "mnli", "dev")
    for words in (
        f"{tmp_path} has no dev split of MNLI",
        "MNLI/dev_matched.tsv and MNLI/dev_mismatched.tsv",
        "mnli/validation_matched.jsonl and mnli/validation_mismatched.jsonl",
        "mnli/validation_matched-*.parquet and",
        "gluebenchmark.com/tasks",
        "nyu-mll/glue",
    ):
        assert words in str(error.value)
    with pytest.raises(UserError, match=r"MRPC/train.tsv or MRPC/msr_paraphrase_train.txt"):
        read(tmp_path, "mrpc", "train")


def test_file_of_another_task_raises(tmp_path):
    write_tsv(tmp_path, "rte", train=2).rename(tmp_path / "QQP")
    with pytest.raises(UserError, match=r"QQP/train.tsv has no column 'question1'\. Its columns are: index, sentence1"):
        read(tmp_path, "qqp", "train")
    (tmp_path / "QQP/train.tsv").write_text("")
    with pytest.raises(UserError, match="Its columns are: none"):
        read(tmp_path, "qqp", "train")


def test_empty_split_raises(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n")
    with pytest.raises(UserError, match="has no examples of the train split"):
        read(tmp_path, "sst2", "train")


HEADERS = {  # of the train files in the published zips
    "mnli": "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label",
    "mrpc": "Quality #1_ID #2_ID #1_String #2_String",
    "qnli": "index question sentence label",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "rte": "index sentence1 sentence2 label",
    "sst2": "sentence label",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
}
TARGETS = {"gold_label": "neutral", "Quality": "1", "is_duplicate": "1", "score": "3.800", "label": "1"}


@pytest.mark.parametrize("name", HEADERS)
def test_published_columns_with_quotation_marks(tmp_path, name):
    task, columns = (
        TASKS[name],
        [column.replace("_ID", " ID").replace("_String", " String") for column in HEADERS[name].split()],
    )
    targets = TARGETS | ({"label": "not_entailment"} if name in ("qnli", "rte") else {})
    row = [targets.get(column, f'"{column}, he said') for column in columns]
    (tmp_path / task.folder).mkdir()
    (tmp_path / task.folder / "train.tsv").write_text("\t".join(columns) + "\n" + ("\t".join(row) + "\n") * 2)
    target = 3.8 if name == "stsb" else 1
    assert read(tmp_path, name, "train") == [(tuple(f'"{column}, he said' for column in task.columns), target)] * 2


def test_archives_are_unpacked_first(tmp_path):
    (tmp_path / "QNLIv2.zip").touch()
    with pytest.raises(
        UserError, match=r"QNLIv2\.zip: the archive of QNLI is not unpacked\. Unpack it in its folder\."
    ):
        read(tmp_path, "qnli", "train")
