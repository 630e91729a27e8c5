"""Names, links and damaged headers of tar members."""

import io
import tarfile
import time

import pytest

from mmf_flava.data import tar_members
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from mmf_flava.data.tar_members import scan_shard
from mmf_flava.errors import UserError


def add(tar, name, data=b"", link=None, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name)
    member.size = len(data)
    if link is not None:
        member.type, member.linkname = kind, link
    tar.addfile(member, io.BytesIO(data))


def read_all(path):
    """Return key -> fields."""
    reader = ShardReader([path])
    records = [reader.read(n) for n in range(len(reader))]
    assert len({record.key for record in records}) == len(records)
    return {record.key: record.fields for record in records}


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_bytes(tmp_path, kind):
    path = tmp_path / "a.tar"
    long = "n" * 300
    names = [b"caf\xe9.jpg", rb"caf\xe9.jpg", "é.jpg".encode(), b"two\nlines.jpg", b"a.key", b"key.key", b"1.jp\xe9"]
    with tarfile.open(path, "w", format=kind) as tar:
        for number, name in enumerate([*names, long.encode() + b".jpg"]):
            add(tar, name, str(number).encode())
    assert read_all(path) == {
        r"caf\xe9": {"jpg": b"0"},
        r"caf\x5cxe9": {"jpg": b"1"},
        "é": {"jpg": b"2"},
        r"two\x0alines": {"jpg": b"3"},
        "a": {"key": b"4"},
        "key": {"key": b"5"},
        "1": {"jp\udce9": b"6"},
        long: {"jpg": b"7"},
    }
    assert all(key.encode() for key in read_all(path))


def test_shard_writer_preserves_names_that_are_not_utf8(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("caf\udce9", {"txt": b"x"})
    assert read_all(tmp_path / "a.tar") == {r"caf\xe9": {"txt": b"x"}}


def test_error_of_a_record_names_it_in_valid_utf8(tmp_path):
    path = tmp_path / "a.tar"
    with ShardWriter(path) as shard:
        shard.write("caf\udce9", {"txt": b"x"})
    reader = ShardReader([path])
    with open(path, "r+b") as file:
        file.write(path.read_bytes().replace(b"\0x\0", b"\0y\0"))
    with pytest.raises(BadRecord) as caught:
        reader.read(0)
    assert caught.value.key == r"caf\xe9" and caught.value.key in str(caught.value).encode().decode()


def test_hidden_files_are_ignored(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("._1.jpg", "1.jpg", "a/._2.txt", "a/2.txt", ".DS_Store", "__MACOSX/1.jpg", "a/__MACOSX/._2.txt"):
            add(tar, name, b"x")
    assert read_all(path) == {"1": {"jpg": b"x"}, "a/2": {"txt": b"x"}}


def test_links_to_members_are_read(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "./1.jpg", b"one")
        add(tar, "2.jpg", link="./1.jpg", kind=tarfile.LNKTYPE)
        add(tar, "a/3.jpg", link="../1.jpg")
        add(tar, "a/4.jpg", link="b/../3.jpg")
        add(tar, "5.jpg", link="blobs/abc")  # before its target
        add(tar, "blobs/.hidden", b"no record")
        add(tar, "blobs/abc", b"five")
        for number, target in enumerate(["missing.jpg", "/etc/passwd", "../1.jpg", "loop0.jpg", "d1.jpg", "d0.jpg"]):
            add(tar, f"d{number}.jpg", link=target)
            add(tar, f"d{number}.txt", b"text")
        add(tar, "loop0.jpg", link="loop1.jpg")
        add(tar, "loop1.jpg", link="loop0.jpg")
        add(tar, "self.jpg", link="self.jpg", kind=tarfile.LNKTYPE)
    fields = read_all(path)
    dangling = {f"d{number}": {"txt": b"text"} for number in range(6)}
    assert fields == {
        "./1": {"jpg": b"one"},
        "2": {"jpg": b"one"},
        "a/3": {"jpg": b"one"},
        "a/4": {"jpg": b"one"},
        "5": {"jpg": b"five"},
        "blobs/abc": {},
        **dangling,
        "loop0": {},
        "loop1": {},
        "self": {},
    }


def test_long_chains_of_links_end(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3000):
            add(tar, f"{number}.jpg", link=f"{number + 1}.jpg")
        add(tar, "3000.jpg", b"end")
    start = time.process_time()
    records, truncated = scan_shard(path)
    assert time.process_time() - start < 5 and not truncated
    assert records["3000"] == records["2999"] and "jpg" not in records["0"]


def test_sparse_members_are_missing(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "1.txt", b"text")
        member = tarfile.TarInfo("1.jpg")
        member.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(member)
        add(tar, "2.txt", b"text")
    assert read_all(path) == {"1": {"txt": b"text"}, "2": {"txt": b"text"}}


def header(name="2.jpg", size=0, kind=tarfile.REGTYPE):
    """Return a member header with a size that tarfile does not write itself; negative sizes are in base 256."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block)


def pax(records):
    return header("pax", len(records), tarfile.XHDTYPE) + records.ljust(512, b"\0")


DAMAGED = {
    "negative size": header(size=-1024),
    "size of 2^80": header(size=1 << 80),
    "size of 2^45": header(size=1 << 45),
    "pax header of 2^45 bytes": header(size=1 << 45, kind=tarfile.XHDTYPE),
    "negative pax header": header(size=-512, kind=tarfile.XHDTYPE),
    "long name of 2^45 bytes": header(size=1 << 45, kind=tarfile.GNUTYPE_LONGNAME),
    "pax record of length 0": pax(b"0 path=x\n"),
    "pax size is a word": pax(b"12 size=big\n") + header(),
    "pax number of sparse blocks": pax(b"30 GNU.sparse.numblocks=99999\n") + header(),
    "pax sparse map": pax(b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n") + header(),
    "nested long names": header("././@LongLink", 1, tarfile.GNUTYPE_LONGNAME).ljust(1024, b"x") * 1500,
    "wrong checksum": b"x" * 512,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_records_before_a_damaged_header_are_kept(tmp_path, kind):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "1.txt", b"text")
    path.write_bytes(path.read_bytes()[:1024] + DAMAGED[kind] + b"\1" * 512)
    reader = ShardReader([path])
    assert reader.read(0).key == "1" and reader.read(0).fields == {"txt": b"text"}
    for number in range(1, len(reader)):
        try:
            assert reader.read(number).fields.get("jpg") in (None, b"")
        except BadRecord as error:
            assert error.reason is Reason.CHANGED
    path.write_bytes(DAMAGED[kind] + b"\1" * 512)
    try:
        assert len(ShardReader([path])) <= 1
    except UserError as error:
        assert "is not a readable tar shard" in str(error)


def test_a_damaged_header_is_not_the_end_of_a_shard(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "1.txt", b"text")
        add(tar, "2.txt", b"text")
    assert scan_shard(path)[1] is False
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 1
    path.write_bytes(content)
    records, truncated = scan_shard(path)
    assert list(records) == ["1"] and truncated


def test_missing_records_are_distinguished_from_errors_of_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "1.txt", b"text")
    monkeypatch.setattr("mmf_flava.data.tar_members._crc32", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(UserError, match=r"a\.tar: the shard cannot be read \(I/O error\)"):
        ShardReader([path])


def test_a_second_tar_after_the_end_is_reported(tmp_path):
    for name in ("1", "2"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            add(tar, f"{name}.jpg", b"x")
    first, second = ((tmp_path / f"{name}.tar").read_bytes() for name in ("1", "2"))
    (tmp_path / "both.tar").write_bytes(first + second)
    records, truncated = scan_shard(tmp_path / "both.tar")
    assert list(records) == ["1"] and truncated
    assert scan_shard(tmp_path / "1.tar")[1] is False


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mtime", [0, 1_700_000_000.25])
@pytest.mark.parametrize("damage", ["none", "truncated", "header", "pax header"])
@pytest.mark.parametrize("chunk", [tar_members.CHUNK, 1024])
def test_headers_are_parsed_as_by_tarfile(tmp_path, monkeypatch, kind, mtime, damage, chunk):
    """Plain headers are parsed without tarfile. webdataset's writer stores times with fractions in pax headers."""
    path = tmp_path / "a.tar"
    names = ["a.jpg", "a.json", "b/c.jpg", "b/é.jpg", f"{'n' * 90}/{'m' * 60}.jpg", "last.jpg", "last.txt"]
    with tarfile.open(path, "w", format=kind) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 300 * number, mtime if kind == tarfile.PAX_FORMAT else int(mtime)
            tar.addfile(member, io.BytesIO(bytes([number + 1]) * member.size))
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[content.rindex(b"\7" * 10) - 100 :]
    elif damage == "header":
        content[content.rindex(b"last.txt") + 130] ^= 1
    elif damage == "pax header":
        content[content.rindex(b"last.jpg") - 600] ^= 1
    path.write_bytes(content)
    with monkeypatch.context() as context:
        context.setattr(tar_members, "CHUNK", chunk)  # members are larger, or begin at its end
        found = scan_shard(path)
    monkeypatch.setattr(tar_members, "_plain_member", lambda file, offset: None)
    assert found == scan_shard(path)
    assert damage != "none" or (len(found[0]), found[1]) == (5, False)
