"""YAML files with mistakes, and the values of command-line options."""

from pathlib import Path

import pytest

from mmf_flava.config.yaml_reader import parse_value, read_yaml
from mmf_flava.errors import UserError

BOMB = "\n".join(
    [
        "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)),
    ]
)
INVALID = {
    "list": (b"- a\n- b\n", r"must be a mapping of keys to values, .* but is a list\."),
    "number": (b"3\n", r"must be a mapping .* but is the value 3\."),
    "text": (b"training\n", r"but is the value 'training'\."),
    "empty": (b"", r"is empty\. Write keys and values"),
    "comments only": (b"# nothing\n", r"is empty\."),
    "latin-1": ("a: 1\nb: é\n".encode("latin-1"), r", line 2: the text is not UTF-8\. Save"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00", r", line 1: the text is not UTF-8"),
    "control character": (b"a: 1\nb: \x00\n", r", line 2: the character '\\x00' is not allowed in YAML"),
    "tab": (b"a:\n\tb: 1\n", r", line 2: a tab is used as indentation\. Use spaces\."),
    "duplicate": (b"a: 1\nb: {c: 1, d: 2,\n c: 3}\n", r", line 3: the key 'c' occurs twice in its section\."),
    "duplicate section": (b"a: {b: 1}\nc: 1\na: {d: 1}\n", r", line 3: the key 'a' occurs twice"),
    "colon": (b"a: 1\nb: c: 2\n", r", line 2: the text is not valid YAML \(mapping values are not allowed here\)"),
    "bracket": (b"a: [1,\nb: 2\n", r", line \d: the text is not valid YAML"),
    "octal number": (b"a: 1\nb: [0777]\n", r"YAML does not read 0777 as a decimal number\. Write it in quotes"),
    "wrong tag": (b"a: !!bool maybe\n", r"is not valid YAML \('maybe'\)"),
    "equals sign": (b"a: =\n", r", line 1: the text is not valid YAML .* Write the value in quotes"),
    "two documents": (b"a: 1\n---\nb: 2\n", r", line 2: the text is not valid YAML"),
    "alias": (b"a: *b\n", r", line 1: the text is not valid YAML \(found undefined alias"),
    "expanding aliases": (BOMB.encode(), r", line \d: the aliases expand to more than 1,000,000 values"),
    "alias of itself": (b"a: &a [1, *a]\n", r", line 1: an anchor contains an alias of itself"),
    "python object": (b"a: !!python/object/apply:os.system [ls]\n", r", line 1: the text is not valid YAML"),
    "large": (b"a: " + b"b" * 2**22, r"has more than 4,194,304 bytes"),
    "deep": (b"a: " + b"[" * 5000 + b"]" * 5000, r"is nested too deeply"),
}


@pytest.mark.parametrize("name", INVALID)
def test_mistake_in_a_file_is_one_sentence_with_file_and_line(tmp_path, name):
    content, message = INVALID[name]
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_yaml(str(tmp_path))


def test_valid_files(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("\ufeffa: &a {b: 1e-4, d: 2021-01-01}\nc: {<<: *a, e: é}\nf: [*a, *a]\n".encode())
    content = read_yaml(str(path))
    assert content["c"] == {"b": 1e-4, "d": "2021-01-01", "e": "é"} and content["f"] == [content["a"]] * 2


@pytest.mark.parametrize("name", ["demo", "defaults"])
def test_shipped_recipes_are_read(name):
    assert read_yaml(str(Path(__file__).parents[2] / f"projects/flava/configs/{name}.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("true", True),
        ("True", True),
        ("null", None),
        ("~", None),
        ("None", None),
        ("-1", -1),
        ("'1'", "1"),
        ('""', ""),
        ("''", ""),
        ("[a, b]", ["a", "b"]),
        ("[a.tar]", ["a.tar"]),
        ("['a', 1, null]", ["a", 1, None]),
        ("[None, 0.5]", [None, 0.5]),
        ("(1, 2)", [1, 2]),
        ("{'a':1, 'b': None}", {"a": 1, "b": None}),
        ("['None', \"None\"]", ["None", "None"]),
        ("['it''s a {}']", ["it's a {}"]),
        ("010", "010"),
        ("1:30", "1:30"),
        ("1,2", [1, 2]),
        ("[]", []),
        ("{}", {}),
        ("{a: 1, b: [x, {c: 2}]}", {"a": 1, "b": ["x", {"c": 2}]}),
        ("[{type: flava_itm}]", [{"type": "flava_itm"}]),
        ("{'a:b': 1}", {"a:b": 1}),
        ("~/data", "~/data"),
        ("/a b/c=d,e", "/a b/c=d,e"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
        ("run: 2 #3", "run: 2 #3"),
        ("- a", "- a"),
        ("*.tar", "*.tar"),
        ("a,b", "a,b"),
        ("=", "="),
        ("${env.data_dir}/x", "${env.data_dir}/x"),
        ("2021-01-01", "2021-01-01"),
        ("größe", "größe"),
    ],
)
def test_values_of_options(text, value):
    assert parse_value(text, f"key={text}") == value
    assert type(parse_value(text, f"key={text}")) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no value"),
        ("  ", "has no value"),
        ("[a", r"is not valid YAML .* Write a list as \[a, b\]"),
        ("[a]b", "is not valid YAML"),
        ("'a", "is not valid YAML"),
        ("{a:1}", r"'a:1' has no value\. YAML requires a space after each colon"),
        ("{a, b}", r"'a' has no value\. .* A list is written as \[a, b\]"),
        ("[{a: {b:1}}]", "'b:1' has no value"),
        ("{a: 1, a: 2}", "found duplicate key a"),
        ("[" * 5000, "is not valid YAML"),
        ("['cat' 'dog']", "is not valid YAML"),
        ("{'a': 1, 'a': 2}", "found duplicate key a"),
        ("{[1]: 2}", "is not valid YAML"),
        ("[!!bool maybe]", "is not valid YAML"),
        ("[8, 1:30]", "YAML does not read 1:30 as a decimal number"),
    ],
)
def test_values_with_mistakes_are_errors(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_value(text, f"key={text}")
    assert str(caught.value).startswith("key=" if len(text) < 50 else "key=[[[[")
