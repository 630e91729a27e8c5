import multiprocessing
import threading

from mmf_flava.files.background import MAX_TASKS, BackgroundThreads, background_threads


def test_calls_run_in_threads_and_errors_are_ignored():
    threads, done, called = BackgroundThreads(2), threading.Event(), []
    for number in range(5):
        threads.submit(called.append, number)
        threads.submit(lambda: 1 / 0)
    threads.submit(done.set)
    assert done.wait(30) and sorted(called) == [0, 1, 2, 3, 4]


def test_calls_beyond_the_limit_are_dropped():
    started, go, done = threading.Event(), threading.Event(), threading.Event()
    threads, called = BackgroundThreads(1), []
    threads.submit(lambda: (started.set(), go.wait(30)))
    assert started.wait(30)
    for number in range(MAX_TASKS + 10):
        threads.submit(called.append, number)
    go.set()
    while not done.is_set():
        threads.submit(done.set)
        done.wait(0.01)
    assert called == list(range(MAX_TASKS))


def _child(queue):
    done = threading.Event()
    background_threads(3).submit(done.set)
    queue.put(done.wait(30))


def test_a_forked_process_starts_its_own_threads():
    assert background_threads(3) is background_threads(3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    assert queue.get(timeout=30)
    process.join()
