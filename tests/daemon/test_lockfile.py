"""One process per home, by the kernel's word (promise 10; RELIABILITY H 96, 97)."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys

import pytest

from pylon.daemon import lockfile
from pylon.errors import AlreadyRunning, HomeError


def hold_and_say(home, barrier, winners):
    barrier.wait()
    try:
        lock = lockfile.Lock(home, "the daemon")
    except AlreadyRunning:
        winners.put(0)
    else:
        winners.put(os.getpid())
        barrier.wait()
        lock.release()
        return
    barrier.wait()


def test_h96_of_two_hundred_at_once_one_wins(home):
    count = 200
    fork = multiprocessing.get_context("fork")
    barrier, winners = fork.Barrier(count), fork.SimpleQueue()
    racers = [fork.Process(target=hold_and_say, args=(home, barrier, winners))
              for _ in range(count)]
    for racer in racers:
        racer.start()
    results = [winners.get() for _ in racers]
    for racer in racers:
        racer.join()
    assert sum(pid > 0 for pid in results) == 1


def test_the_lock_ends_with_its_process_and_the_file_stays(home):
    code = ("import os,sys;from pylon.home import Home;from pylon.daemon.lockfile import Lock;"
            f"Lock(Home({str(home.root)!r}), 'the daemon');print('held', flush=True);"
            "sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert lockfile.holder_pid(home) == holder.pid and lockfile.is_held(home)
    with pytest.raises(AlreadyRunning, match=rf"the daemon \(pid {holder.pid}\)"):
        lockfile.Lock(home, "pylon backup")
    holder.kill()
    holder.communicate()
    assert home.lock.exists() and not lockfile.is_held(home)
    lockfile.Lock(home, "x").release()


def test_asking_does_not_disturb_a_starter(home):
    """A probe that took the lock for a moment once made real starts fail."""
    lockfile.Lock(home, "x").release()
    for _ in range(100):
        assert not lockfile.is_held(home)
        lockfile.Lock(home, "y").release()


def test_asking_creates_nothing(home):
    assert not lockfile.is_held(home) and not home.lock.exists()


def test_the_lock_is_private_and_not_inherited(home):
    before = os.umask(0)
    try:
        lock = lockfile.Lock(home, "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(home.lock).st_mode) == 0o600
    assert not os.get_inheritable(lock.fd)
    lock.release()


def test_h94_a_planted_link_is_not_followed(home, tmp_path):
    home.lock.symlink_to(tmp_path / "victim")
    with pytest.raises(HomeError):
        lockfile.Lock(home, "x")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("content", [b"", b"0", b"-1", b"1 init", b"4294967295 the daemon",
                                     b"\xff" * 1000, b"x" * 1_000_000])
def test_h97_what_stands_in_the_lock_file_means_nothing(home, content, alien):
    home.lock.write_bytes(content or f"{alien.pid} the daemon".encode())
    home.lock.chmod(0o600)
    assert lockfile.holder_pid(home) is None
    assert not lockfile.send_signal(home, alien.pid, signal.SIGKILL)
    lockfile.Lock(home, "x").release()


def test_h97_only_the_holder_is_ever_signalled(home, alien):
    lock = lockfile.Lock(home, "x")
    assert not lockfile.send_signal(home, alien.pid, signal.SIGKILL)
    assert not lockfile.send_signal(home, 2 ** 22 + 1, signal.SIGKILL)
    assert lockfile.send_signal(home, os.getpid(), signal.SIGURG)
    lock.release()


def test_hold_releases_also_after_a_failure(home):
    with pytest.raises(ValueError):
        with lockfile.hold(home, "x"):
            raise ValueError
    assert not lockfile.is_held(home)


def test_an_unwritable_home_is_told(home):
    home.lock.mkdir()
    with pytest.raises(HomeError, match="cannot open"):
        lockfile.Lock(home, "x")
