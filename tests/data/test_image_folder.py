import os
from pathlib import Path

import pytest

from mmf_flava.data.formats.detection import detect
from mmf_flava.data.image_folder import ImageFolder, find_class_folders, find_images
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.image_source import ImageSource
from mmf_flava.data.record import BadRecord
from mmf_flava.errors import UserError


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("train/cat/1.jpg", "train/cat/deep/2.jpg", "train/dog/3.jpg", "val/cat/4.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "train"


IMAGES = ["cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg"]


def test_names_are_bytes(root, tmp_path):
    """Keys and classes are valid text, and the files are found."""
    latin1 = os.fsdecode(b"caf\xe9")
    for name in (f"{latin1}/{latin1}.jpg", "caf\\xe9/1.jpg", "cat/two\nlines.JPG"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    reader = ImageFolder(root)
    assert reader.classes == ["caf\\x5cxe9", "caf\\xe9", "cat", "dog"] == find_class_folders(root)
    records = {record.key: record.fields for record in map(reader.read, range(len(reader)))}
    assert records.keys() == {
        "caf\\xe9/caf\\xe9.jpg",
        "caf\\x5cxe9/1.jpg",
        "cat/two\\x0alines.JPG",
        *IMAGES,
    }
    assert records["caf\\xe9/caf\\xe9.jpg"] == {"jpg": b"caf\xe9/caf\xe9.jpg", "cls": b"1"}
    for n in range(len(reader)):
        (root / reader.keys[n]).unlink()
        with pytest.raises(BadRecord, match="cannot be read") as caught:
            reader.read(n)
        assert caught.value.key in records and str(caught.value).encode()


@pytest.mark.parametrize("name", ["1.JFIF", "1.avif", "1.jp2", "1.tif", "1.TIFF"])
def test_other_image_formats_are_read(root, name):
    (root / "eel").mkdir()
    (root / "eel" / name).touch()
    assert ImageFolder(root).keys[-1] == f"eel/{name}"


def test_files_that_are_not_read_are_counted_once(root, caplog):
    for name in (
        "a.heic",
        "cat/b.HEIC",
        "cat/deep/c.heic",
        "dog/notes.txt",
        "dog/README",
        "dog/.hidden",
        "classes.txt",
    ):
        (root / name).write_text("cat\ndog\n")
    reader = ImageFolder(root)
    for n in range(len(reader)):
        reader.read(n)
    (message,) = caplog.messages
    assert message == f"{root}: files that are not read: 3 .heic, 1 .txt, 1 without extension."
    caplog.clear()
    for n in range(9):
        (root / f"x.{n}").touch()
    ImageFolder(root)
    assert caplog.messages[0].endswith("3 .heic, 1 .0, 1 .1, 1 .2, 1 .3, 7 others.")


def test_pipes_are_not_read(root):
    os.mkfifo(root / "cat" / "0.jpg")
    (root / "cat" / "9.jpg").symlink_to("missing")
    reader = ImageFolder(root)
    assert reader.keys == ["cat/1.jpg", "cat/9.jpg", *IMAGES[1:]]
    with pytest.raises(BadRecord, match="cannot be read"):
        reader.read(1)


def test_images_with_similar_names_that_are_not_utf8_are_distinguished(root, tmp_path):
    names = [os.fsdecode(name) for name in (b"a\xe8.jpg", b"a\xe9.jpg")]
    for name in names:
        (root / "cat" / name).write_bytes(os.fsencode(name))
    source = ImageSource(root, tmp_path / "work")
    assert [source.read(Annotation(names=(name,))) for name in names] == [("jpg", os.fsencode(n)) for n in names]


def test_images_of_a_folder_come_before_those_of_its_subfolders(root):
    (root / "a.png").touch()
    (root / "cat" / "z.PNG").touch()
    (root / "cat" / "note.txt").touch()
    assert list(find_images(root)) == ["a.png", "cat/1.jpg", "cat/z.PNG", "cat/deep/2.jpg", "dog/3.jpg"]


@pytest.mark.parametrize("name", [".ipynb_checkpoints/1.jpg", "__MACOSX/1.jpg", "cat/._1.jpg", "cat/.cache/1.jpg"])
def test_hidden_files_and_folders_are_ignored(root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).touch()
    reader = ImageFolder(root)
    assert reader.keys == IMAGES and reader.classes == ["cat", "dog"] == find_class_folders(root)


@pytest.mark.parametrize("target", ["..", ".", "../..", "../cat"])
def test_links_to_a_parent_are_ignored(root, target):
    (root / "cat" / "again").symlink_to(target, target_is_directory=True)
    (root / "cat" / "deep" / "again").symlink_to(root, target_is_directory=True)
    (root / "again").symlink_to(root.parent, target_is_directory=True)
    assert ImageFolder(root).keys == IMAGES
    assert ImageFolder(root).classes == ["cat", "dog"]
    (root.parent / "index").mkdir()
    source = ImageSource(root, root.parent / "work")
    assert source.read(Annotation(names=("3.jpg",))) == ("jpg", b"x")


def test_links_between_classes_end(root, tmp_path):
    (root / "cat" / "b").symlink_to(root / "dog", target_is_directory=True)
    (root / "dog" / "a").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "c").symlink_to(root / "dog", target_is_directory=True)
    assert ImageFolder(root).keys == [
        "cat/1.jpg",
        "cat/b/3.jpg",
        "cat/deep/2.jpg",
        "dog/3.jpg",
        "dog/a/1.jpg",
        "dog/a/deep/2.jpg",
    ]


def test_links_to_other_folders_are_classes(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "5.jpg").touch()
    (root / "eel").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert ImageFolder(root).classes == ["cat", "dog", "eel"] == find_class_folders(root)


def test_empty_folders_are_no_classes(root):
    (root / "cow" / "deep").mkdir(parents=True)
    assert find_class_folders(root) == ["cat", "dog"]


def test_number_classes_renumbers_all_images(root):
    reader = ImageFolder(root)
    reader.number_classes(["eel", "dog"])
    assert [reader.read(n, ("cls",)).fields.get("cls") for n in range(3)] == [None, None, b"1"]


def test_unreadable_class_list_raises(root):
    (root / "classes.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"classes\.txt: failed to read the file as UTF-8"):
        ImageFolder(root)
    (root / "classes.txt").write_bytes("dog\r\ncat\u2028x\n".encode())
    assert ImageFolder(root).classes == ["dog", "cat\u2028x"]


def test_texts_beside_images_are_their_captions(root, caplog):
    for name, content in [("cat/1.txt", "a cat"), ("cat/deep/2.json", '{"caption": "two"}'), ("cat/notes.txt", "-")]:
        (root / name).write_text(content)
    with caplog.at_level("INFO"):
        reader = ImageFolder(root)
    assert "train: 3 images, 1 .txt files, 1 .json files, 2 class folders." in caplog.text
    assert "files that are not read: 1 .txt." in caplog.text
    assert [sorted(reader.read(n).fields) for n in range(3)] == [
        ["cls", "jpg", "txt"],
        ["cls", "jpg", "json"],
        ["cls", "jpg"],
    ]
    assert reader.read(0, ["txt"]).fields == {"txt": b"a cat"}
    assert [reader.text_bytes(n) for n in range(3)] == [5, 18, 0]
    reader.require("caption")
    (root / "cat/1.txt").unlink()
    (root / "cat/1.txt").mkdir()
    with pytest.raises(BadRecord, match=r"1\.txt cannot be read"):
        reader.read(0)


def test_texts_with_names_in_capitals_are_captions(tmp_path):
    (tmp_path / "1.JPG").touch()
    (tmp_path / "1.TXT").write_text("a cat")
    table = tmp_path / "t.csv"
    table.write_text("image,title\n1.JPG,a\n")
    with pytest.raises(UserError, match="images with texts beside them"):
        detect(tmp_path)
    table.unlink()
    reader = ImageFolder(tmp_path)
    assert reader.beside == {"txt": 1} and reader.text_bytes(0) == 5
    assert reader.read(0).fields == {"jpg": b"", "txt": b"a cat"}


def test_images_without_texts_have_no_captions(root):
    with pytest.raises(UserError, match=r"train: the 3 images have no captions\. Put a text file .*\(1\.jpg, 1\.txt\)"):
        ImageFolder(root).require("caption")


def test_folders_of_img2dataset_are_no_classes(tmp_path):
    for name in ("00000/000000000", "00001/000010000"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.jpg").touch()
        (tmp_path / f"{name}.json").write_text("{}")
    assert ImageFolder(tmp_path).folders == [] == find_class_folders(tmp_path)
    for path in tmp_path.glob("*/*.json"):
        path.unlink()
    assert ImageFolder(tmp_path).folders == ["00000", "00001"] == find_class_folders(tmp_path)
