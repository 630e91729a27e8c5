from pathlib import Path

import pytest

from mmf_flava.data.image_folder import ImageFolder, find_class_folders, find_images
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.image_source import ImageSource
from mmf_flava.errors import UserError


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("train/cat/1.jpg", "train/cat/deep/2.jpg", "train/dog/3.jpg", "val/cat/4.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "train"


IMAGES = ["cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg"]


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
    source = ImageSource(root, root.parent / "index" / "images.sqlite")
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
