import io
import json
import random
import tarfile

import pytest

from mmf_flava.data.formats.archive import is_archive
from mmf_flava.data.formats.embedded import embedded_shards
from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError

from .toys import delivered, expected, make_pets, pixel_hash, write_images

PETS = make_pets()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))


def class_folders(path):
    for pet in PETS:
        write_images([pet], path / pet.label)
    return path


def pack(folder, archive, mode="w:gz"):
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, folder.name)
    return archive


def read(path):
    return ShardReader(embedded_shards(path, open_records=lambda folder, **options: ImageFolder(folder)))


def dropped(path):
    shard = embedded_shards(path, open_records=lambda folder, **options: ImageFolder(folder))[0]
    return json.loads(shard.with_name("manifest.json").read_text())["dropped"]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar", "w")]
)
def test_class_folders_in_an_archive_have_their_names_as_labels(name, mode, tmp_path):
    path = pack(class_folders(tmp_path / "pets"), tmp_path / name, mode)
    assert is_archive(path)
    pets = sorted(PETS, key=lambda pet: (pet.label, pet.id))
    assert delivered(read(path)) == [
        (f"{pet.label}/{pet.id}.png", pixel_hash(pet.image), [], pet.label) for pet in pets
    ]
    assert [read(path).read(n).fields["cls"] for n in (0, 7)] == [b"0", b"2"]


def test_a_compressed_shard_keeps_its_records(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as writer:
        for pet in PETS:
            annotations = {"captions": [pet.caption], "label": pet.label}
            writer.write(pet.id, {"png": pet.image, "json": json.dumps(annotations).encode(), "cls": b"1"})
    with tarfile.open(tmp_path / "a.tar") as source, tarfile.open(tmp_path / "a.tar.gz", "w:gz") as target:
        for member in source:
            target.addfile(member, source.extractfile(member))
    assert not is_archive(tmp_path / "a.tar") and is_archive(tmp_path / "a.tar.gz")
    assert delivered(read(tmp_path / "a.tar.gz")) == expected(PETS)


def test_the_first_of_duplicate_members_is_used_and_others_are_skipped(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, data in [
            *(("cat/1.png", PETS[0].image), ("cat/1.png", PETS[1].image), ("./dog/2.png", PETS[2].image)),
            *((".hidden/3.png", b"x"), ("../outside.png", b"x"), ("/absolute/4.png", PETS[3].image), ("x" * 300, b"x")),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"dog/{kind!r}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert {key for key, *_ in delivered(read(tmp_path / "a.tar.gz"))} == {"cat/1.png", "dog/2.png", "absolute/4.png"}
    assert delivered(read(tmp_path / "a.tar.gz"))[1][1] == expected(PETS)[0][1]
    assert dropped(tmp_path / "a.tar.gz") == {"damaged file": 4}
    assert not (tmp_path / "outside.png").exists() and not list(tmp_path.rglob("outside.png"))


def test_the_files_before_the_damage_are_kept(tmp_path):
    (class_folders(tmp_path / "pets") / "large.bin").write_bytes(random.Random(0).randbytes(100_000))
    path = pack(tmp_path / "pets", tmp_path / "a.tar.gz")
    path.write_bytes(path.read_bytes()[:-250])
    records = read(path)
    assert 0 < len(records) < 8 and dropped(path) == {"damaged file": 1}
    assert {found[1] for found in delivered(records)} < {found[1] for found in expected(PETS)}


@pytest.mark.parametrize("content", [b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\x03abcdefgh"])
def test_an_archive_without_files_is_an_error(content, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"a.tar.gz"):
        read(tmp_path / "a.tar.gz")


def test_an_archive_is_the_folder_that_it_contains(tmp_path):
    opened = []

    def open_records(folder, **options):
        opened.append((folder.name, sorted(path.name for path in folder.iterdir()), options))
        return ImageFolder(folder)

    write_images(PETS, tmp_path / "pets/images")
    (tmp_path / "pets/pets.csv").write_text("image,caption\n")
    path = pack(tmp_path / "pets", tmp_path / "a.tar", "w")
    assert is_archive(path)
    embedded_shards(path, {"caption": "caption"}, images_required=False, open_records=open_records)
    options = {"columns": {"caption": "caption"}, "images_required": False}
    assert opened == [("pets", ["images", "pets.csv"], options)]


def test_images_of_one_folder_are_a_shard(tmp_path):
    write_images(PETS, tmp_path / "pets")
    assert not is_archive(pack(tmp_path / "pets", tmp_path / "a.tar", "w"))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_an_archive_without_files_is_named(mode, tmp_path):
    tarfile.open(tmp_path / "a.tar.gz", mode).close()
    with pytest.raises(UserError, match=r"a\.tar\.gz: the archive has no files"):
        read(tmp_path / "a.tar.gz")
