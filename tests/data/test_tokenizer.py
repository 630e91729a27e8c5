import time

import pytest

from mmf_flava.data.tokenizer import (
    build_continuation_table,
    build_wordpiece,
    compute_vocabulary_hash,
    find_special_ids,
    load_tokenizer,
)
from mmf_flava.errors import UserError
from mmf_flava.files.hub import open_repository

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "a", ","]


def test_vocab_txt_and_tokenizer_json_give_equal_tokenizers(tmp_path):
    (tmp_path / "txt").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "txt" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    build_wordpiece(WORDS).save(str(tmp_path / "json" / "tokenizer.json"))
    one, other = load_tokenizer(tmp_path / "txt"), load_tokenizer(tmp_path / "json")
    for tokenizer in (one, other):
        encoding = tokenizer.encode("Playing,  A [MASK] xyz", add_special_tokens=False)
        assert encoding.tokens == ["play", "##ing", ",", "a", "[MASK]", "[UNK]"]
    assert compute_vocabulary_hash(one) == compute_vocabulary_hash(other)
    assert compute_vocabulary_hash(one) != compute_vocabulary_hash(build_wordpiece([*WORDS, "b"]))


def test_saved_truncation_and_padding_are_disabled(tmp_path):
    saved = build_wordpiece(WORDS)
    saved.enable_truncation(4)
    saved.enable_padding(length=12)
    saved.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("a " * 9).ids == [7] * 9


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_do_lower_case_of_the_tokenizer_config_is_respected(tmp_path, name):
    cased = [*WORDS, "Play"]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    if name == "vocab.txt":
        (tmp_path / name).write_text("\n".join(cased) + "\n")
    else:
        build_wordpiece(cased, lowercase=True).save(str(tmp_path / name))
    assert load_tokenizer(tmp_path).encode("Playing").tokens == ["Play", "##ing"]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert load_tokenizer(tmp_path).encode("Playing").tokens == ["play", "##ing"]


def test_cased_vocab_txt_without_config_keeps_upper_case(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "Play"]) + "\n")
    assert load_tokenizer(tmp_path).encode("Playing playing").tokens == ["Play", "##ing", "play", "##ing"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_invalid_file_raises_an_error(tmp_path, name):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=rf"{name}.*Download or save the tokenizer again"):
        load_tokenizer(tmp_path)


def test_special_ids_and_continuation_table():
    tokenizer = build_wordpiece(WORDS)
    special = find_special_ids(tokenizer)
    assert (special.pad, special.unk, special.cls, special.sep, special.mask) == (0, 1, 2, 3, 4)
    assert build_continuation_table(tokenizer).nonzero()[0].tolist() == [6]
    with pytest.raises(UserError, match="CLS"):
        find_special_ids(build_wordpiece(["[UNK]", "a"]))


def test_missing_tokenizer_raises_an_error(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json or vocab\.txt"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")


def test_tokenizer_is_read_from_the_cache_of_the_hub(hub):
    files = {"vocab.txt": "\n".join(WORDS).encode(), "tokenizer_config.json": b'{"do_lower_case": false}'}
    hub.upload("me/bert", files)
    expected = build_wordpiece(WORDS, False).to_str()
    assert load_tokenizer("me/bert").to_str() == expected
    hub.shutdown()
    hub.server_close()
    open_repository.cache_clear()
    assert load_tokenizer("me/bert").to_str() == expected


def test_hub_without_a_tokenizer_raises_an_error(hub):
    hub.upload("me/bert", {"config.json": b"{}"})
    with pytest.raises(UserError, match=r"repository me/bert has neither tokenizer\.json nor vocab\.txt"):
        load_tokenizer("me/bert")


@pytest.mark.parametrize("name", ["none", "bert-base-uncased", "owner/name"])
def test_unreachable_hub_raises_an_error_at_once(hub, name):
    hub.shutdown()
    hub.server_close()
    start = time.monotonic()
    with pytest.raises(UserError, match=f"tokenizer '{name}' is not a local folder.*Hub cannot be reached"):
        load_tokenizer(name)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["a/b/c", "a b", "./x", "~/x", "", "a//b", "x.json/"])
def test_names_that_are_not_model_ids_are_not_sent_to_the_hub(hub, name):
    with pytest.raises(UserError):
        load_tokenizer(name)
    assert not hub.requests


def test_file_instead_of_a_folder_raises_an_error(hub, tmp_path):
    (tmp_path / "tokenizer.json").write_text(build_wordpiece(WORDS).to_str())
    with pytest.raises(UserError, match=r"tokenizer\.json is a file\. Set it to the folder"):
        load_tokenizer(tmp_path / "tokenizer.json")
    assert not hub.requests
