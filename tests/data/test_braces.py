import pytest

from mmf_flava.data.braces import expand_braces
from mmf_flava.errors import UserError


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a.tar", ["a.tar"]),
        ("{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
        ("s3://b/{0098..0101}", ["s3://b/0098", "s3://b/0099", "s3://b/0100", "s3://b/0101"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
        ("{a,b{1..2}}", ["a", "b1", "b2"]),
        ("{odd}{1,2}", ["{odd}1", "{odd}2"]),
        ("{,new-}0", ["0", "new-0"]),
    ],
)
def test_braces_expand_as_in_a_shell(text, expanded):
    assert expand_braces(text) == expanded


def test_braces_expand_to_7000_shards():
    names = expand_braces("https://host/{00000..06999}.tar")
    assert len(names) == 7000 and names[-1] == "https://host/06999.tar"


@pytest.mark.parametrize("text", ["{0..99999999999}.tar", "{0..9999}{0..9999}", "{a,a}" * 40])
def test_braces_with_too_many_names_are_refused(text):
    with pytest.raises(UserError, match="more than 1,000,000 names"):
        expand_braces(text)


def test_braces_with_huge_numbers_are_left_unchanged():
    text = f"{{0..{'9' * 5000}}}"
    assert expand_braces(text) == [text]
