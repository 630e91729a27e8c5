from mmf_flava.data.text_lines import read_lines, split_lines


def test_only_newlines_end_lines(tmp_path):
    text = "a dog\nfirst\u2028second\r\nform\x0cfeed\nnext\x85line\nold\rmac\n\nlast"
    expected = ["a dog", "first\u2028second", "form\x0cfeed", "next\x85line", "old\rmac", "", "last"]
    assert split_lines(text) == split_lines(text + "\n") == expected
    assert split_lines("") == []
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_lines(tmp_path / "a.txt") == expected
