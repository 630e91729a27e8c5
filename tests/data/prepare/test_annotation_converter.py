"""The metadata of records."""

import json

import pytest

from mmf_flava.data.prepare.annotation_converter import encode_metadata


@pytest.mark.parametrize("captions", [(), ("a dog",), ('"quoted" \\ {0}', "Größe\n\t\x7f", "\U0001f600 \udcff</p>")])
def test_metadata_is_json(captions):
    metadata = {"captions": list(captions), "source": "wit", "url": "https://x/ü%20.jpg?a={b}&c"}
    assert encode_metadata(**metadata) == json.dumps(metadata).encode()
