"""Opening files near the limit of open files. The limits are set in new processes."""

import errno
import os
import pickle
import resource
from multiprocessing import get_context
from weakref import WeakSet

import pytest

from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.errors import UserError
from mmf_flava.files import open_files
from mmf_flava.files.open_files import OpenFiles, open_file, raise_limit


class File:
    def __init__(self, path):
        self.descriptor = open_file(path)

    def close(self):
        os.close(self.descriptor)


def count():
    return len(os.listdir("/proc/self/fd")) - 1


def in_process(function, limit, *arguments):
    """Return the result of ``function`` in a new process with a limit of ``limit`` open files."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def target():
        # the process that runs the tests may have more files open than the limit allows
        os.closerange(3, sender.fileno())
        os.closerange(sender.fileno() + 1, 1 << 16)
        open_files._all_open = WeakSet()  # files of earlier tests, which have just been closed
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        try:
            sender.send(function(*arguments))
        except BaseException as error:
            sender.send(repr(error))

    process = context.Process(target=target)
    process.start()
    assert receiver.poll(60)
    result = receiver.recv()
    process.join()
    return result


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    return tmp_path / "a"


def test_least_recently_used_file_is_closed(path):
    files, before = OpenFiles(3), count()
    for number in range(3):
        files.add(number, File(path))
    assert files.get(0) is not None
    files.add(3, File(path))
    assert [number in files for number in range(4)] == [True, False, True, True] and count() == before + 3
    assert len(pickle.loads(pickle.dumps(files))) == 0 and pickle.loads(pickle.dumps(files)).capacity == 3
    del files
    assert count() == before


def _open_many(path, number):
    files = [OpenFiles(1000), OpenFiles(1000)]
    for n in range(number):
        files[n % 2].add(n, File(path))
    return len(files[0]) + len(files[1]), count(), [number - 1 - n in files[(number - 1 - n) % 2] for n in range(2)]


def test_files_are_closed_before_the_limit_is_reached(path):
    """A quarter of the limit is left for others."""
    kept, opened, newest = in_process(_open_many, 100, path, 500)
    assert 50 < kept < 75 and opened <= 76 and newest == [True, True]


def _open_without_room(path):
    files = OpenFiles(1000)
    for n in range(30):
        files.add(n, File(path))
    others = []
    with pytest.raises(OSError) as caught:
        while True:
            others.append(os.open(path, os.O_RDONLY))  # code that does not use open_file
    assert caught.value.errno == errno.EMFILE
    for _ in range(29):  # all but the most recently used file are closed
        others.append(open_file(path))
    with pytest.raises(UserError, match=r"too many files are open\. Raise the limit with `ulimit -n`"):
        open_file(path)
    with pytest.raises(UserError, match="too many files are open"), record_boundary("record 1"):
        try:
            open_file(path)
        except UserError as error:
            raise BadRecord(Reason.VANISHED, "gone") from error
    return len(files)


def test_limit_is_never_an_error_of_a_record(path):
    assert in_process(_open_without_room, 64, path) == 1


def test_missing_file_is_an_error_of_the_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "b")


def _raise(limit, capacity):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    files = OpenFiles(capacity, 2)
    needed, allowed = raise_limit()
    return needed - 2 * files.capacity, allowed - needed


def test_limit_is_raised_for_all_files_that_stay_open():
    others, room = in_process(_raise, 2000, 100, 600)
    assert 0 < others < 1200 and room >= 0
    _, room = in_process(_raise, 2000, 100, 6000)
    assert room < 0, "2,000 is the limit that the system allows"
