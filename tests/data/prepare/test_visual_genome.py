"""Visual Genome's region descriptions and list of images, in the published form."""

import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from mmf_flava.data.prepare.annotations import Annotation, Region
from mmf_flava.data.prepare.visual_genome import OTHER_SHAPE, OUTSIDE, RegionCropper, read_visual_genome

from .lazy import evaluated

URL = "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"


def region(phrase, x=0, y=0, width=4, height=4, image=1):
    box = {"width": width, "height": height, "y": y, "x": x}
    return {"region_id": 1382, "image_id": image, "phrase": phrase, **box}


@pytest.fixture
def lists(tmp_path):
    images = [{"regions": [region("the clock is <b>green</b>"), region("shade &amp; tree", 4)], "id": 1}]
    images.append({"regions": [region("a man", image=2)], "id": 2})
    (tmp_path / "region_descriptions.json").write_text(json.dumps(images))
    data = [{"width": 8, "url": URL, "height": 4, "image_id": 1, "coco_id": None, "flickr_id": None}]
    data.append({"width": 8, "url": URL, "height": 4, "image_id": 2, "coco_id": 391895, "flickr_id": 2970773875})
    (tmp_path / "image_data.json.gz").write_bytes(gzip.compress(json.dumps(data).encode()))
    return tmp_path


def test_images(lists):
    first, second = evaluated(read_visual_genome(lists / "region_descriptions.json"))
    assert first == Annotation(("the clock is green", "shade & tree"), URL, ("1.jpg",))
    assert second.ids == {"coco:391895", "flickr:2970773875"}


def test_regions(lists):
    found = evaluated(read_visual_genome(lists / "region_descriptions.json", crop=True))
    assert [(annotation.captions, annotation.region) for annotation in found] == [
        (("the clock is green",), Region(0, 0, 4, 4, 8, 4)),
        (("shade & tree",), Region(4, 0, 4, 4, 8, 4)),
        (("a man",), Region(0, 0, 4, 4, 8, 4)),
    ]
    assert found[2].ids == {"coco:391895", "flickr:2970773875"}


def test_images_that_are_not_listed_may_be_of_an_evaluation_set(lists):
    (lists / "image_data.json").write_text("[]")
    assert {found.dropped for found in evaluated(read_visual_genome(lists / "region_descriptions.json"))} == {
        "not in image_data.json"
    }


def test_visual_genome_is_read_in_chunks(tmp_path):
    images = [{"id": n, "regions": [{"phrase": f"thing {n} ], " + "é" * 3000}, {"phrase": ""}]} for n in range(900)]
    (tmp_path / "a.json").write_text(json.dumps(images))  # larger than a chunk
    annotations = evaluated(read_visual_genome(tmp_path / "a.json"))
    assert [annotation.names for annotation in annotations] == [(f"{n}.jpg",) for n in range(900)]
    assert {len(annotation.captions) for annotation in annotations} == {1}
    assert annotations[899].captions[0].startswith("thing 899 ], é")
    (tmp_path / "b.json").write_text(json.dumps(images)[:-5])
    with pytest.raises(ValueError, match="truncated"):
        evaluated(read_visual_genome(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Region(0, 0, 8, 8), "left"),
        (Region(8, 0, 8, 8), "right"),
        (Region(8, -4, 100, 100), "right"),  # clipped
        (Region(16, 0, 16, 16, 32, 16), "right"),  # the image was downloaded at half its size
        (Region(16, 0, 4, 4), OUTSIDE),
        (Region(2, 2, 0, 4), OUTSIDE),
        (Region(0, 0, 8, 8, 32, 32), OTHER_SHAPE),
    ],
)
def test_crops(box, expected):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:] = 255, 64
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    cropper = RegionCropper()
    for _ in range(2):  # the second time, from the pixels that are kept
        found = cropper.crop(file.getvalue(), box, "1.jpg")
        if isinstance(found, str):
            assert found == expected
        else:
            crop = np.asarray(Image.open(io.BytesIO(found)))
            assert crop.shape == (8, 8, 3)
            assert abs(crop.astype(int) - {"left": 255, "right": 64}[expected]).max() <= 1
