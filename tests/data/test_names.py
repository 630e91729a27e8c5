import pytest

from mmf_flava.data.names import display_name, extension_of, is_system_key, split_member_name


def test_member_names_are_split_as_in_webdataset():
    assert split_member_name("some.dir/000123.seg.PNG") == ("some.dir/000123", "seg.png")
    assert split_member_name("000123.jpg") == ("000123", "jpg")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"caf\xe9", r"caf\xe9"),
        ("café 猫 \\d".encode(), "café 猫 \\d"),
        (b"a\nb\x00", r"a\x0ab\x00"),
        (rb"caf\xe9", r"caf\x5cxe9"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
    ],
)
def test_names_become_valid_utf8(name, text):
    shown = display_name(name.decode("utf-8", "surrogateescape"))
    assert shown == text and shown.encode().decode() == text


def test_lone_surrogates_of_json_become_bytes():
    assert display_name("a\ud800") == r"a\xed\xa0\x80"


def test_different_names_remain_different():
    parts = [b"\xe9", rb"\xe9", rb"\x5cxe9", b"\\", b"x5c", b"\n", b"\x0a\xc3\xa9", "é".encode(), b"xe9"]
    names = {a + b + c for a in parts for b in parts for c in parts}
    assert len({display_name(name.decode("utf-8", "surrogateescape")) for name in names}) == len(names)


def test_hidden_and_macos_members_are_recognised():
    hidden = ["._1.jpg", "a/._1.jpg", ".DS_Store", "__MACOSX/a/1.jpg", "a/__MACOSX/1.jpg"]
    kept = ["1.jpg", "./1.jpg", ".cache/1.jpg", "my__MACOSX/1.jpg", "README"]
    assert all(is_system_key(split_member_name(name)[0]) for name in hidden)
    assert not any(is_system_key(split_member_name(name)[0]) for name in kept)


def test_extension_is_the_lower_case_text_after_the_last_dot():
    assert [extension_of(name) for name in ("a.b/1.tar.GZ", "a.b/README", "1.TXT")] == ["gz", "", "txt"]
