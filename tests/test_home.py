"""Where files are, and who may touch them (RELIABILITY H 94)."""

import os
import stat

import pytest

from pylon import home as home_module
from pylon.errors import HomeError
from pylon.home import Home, write_private


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def umask_0():
    before = os.umask(0)
    yield
    os.umask(before)


def test_openagents_home_moves_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAGENTS_HOME", str(tmp_path))
    home = Home.default()
    assert home.root == tmp_path / "pylon" and home.agents == tmp_path / "agents"
    places = [v for v in vars(home).values() if v not in (home.root, home.agents)]
    assert all(home.root in place.parents for place in places)


def test_the_default_is_in_the_users_home(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAGENTS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.default().root == tmp_path / ".openagents" / "pylon"


def test_no_home_at_all_is_told(monkeypatch):
    monkeypatch.delenv("OPENAGENTS_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(HomeError, match="OPENAGENTS_HOME"):
        Home.default()


def test_directories_are_private_under_any_umask(tmp_path, umask_0):
    home = Home(tmp_path / "o" / "pylon")
    home.create()
    assert {mode_of(p) for p in (home.root.parent, home.root, home.agents, home.secrets)} \
        == {0o700}
    home.check()


def test_files_are_private_under_any_umask(tmp_path, umask_0):
    write_private(tmp_path / "seed", b"words")
    assert mode_of(tmp_path / "seed") == 0o600
    assert os.listdir(tmp_path) == ["seed"]


def test_a_file_is_private_from_its_first_byte(tmp_path, monkeypatch, umask_0):
    seen = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(mode_of(a)), real(a, b)))
    write_private(tmp_path / "seed", b"words")
    assert seen == [0o600]


def test_write_private_without_replace_keeps_what_is_there(tmp_path):
    write_private(tmp_path / "f", b"old")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "f", b"new", replace=False)
    assert (tmp_path / "f").read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_a_failed_write_leaves_the_old_file_and_no_crumbs(tmp_path, monkeypatch):
    write_private(tmp_path / "f", b"old")

    def full(fd):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_private(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("name", ["root", "agents"])
def test_h94_a_directory_that_others_reach_is_refused(home, name):
    os.chmod(getattr(home, name), 0o777)
    with pytest.raises(HomeError, match="chmod 0700"):
        home.check()


def test_the_systems_home_lets_its_group_pass_and_nobody_else(home, monkeypatch):
    home.root.chmod(0o710)
    with pytest.raises(HomeError):
        home.check()
    monkeypatch.setattr(home_module, "SYSTEM_OPENAGENTS", home.root.parent)
    home.check()
    home.root.chmod(0o711)
    with pytest.raises(HomeError):
        home.check()
    home.root.chmod(0o710)
    home.config.touch()
    home.config.chmod(0o610)
    with pytest.raises(HomeError):
        home.check()


@pytest.mark.parametrize("name", ["identity", "config", "database", "lock", "pid"])
def test_h94_a_file_that_others_reach_is_refused(home, name):
    place = getattr(home, name)
    place.write_text("x")
    os.chmod(place, 0o644)
    with pytest.raises(HomeError, match=f"chmod 0600 '{place}'"):
        home.check()


@pytest.mark.parametrize("name", ["identity", "config", "database", "lock", "pid"])
def test_h94_a_symbolic_link_is_refused(home, name, tmp_path):
    (tmp_path / "elsewhere").write_text("x")
    getattr(home, name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="symbolic link"):
        home.check()


@pytest.mark.parametrize("name", ["identity", "database"])
def test_h94_a_dangling_link_is_refused(home, name):
    getattr(home, name).symlink_to("/nonexistent")
    with pytest.raises(HomeError, match="symbolic link"):
        home.check()


@pytest.mark.parametrize("name", ["root", "identity"])
def test_h94_another_owner_is_refused(home, name):
    if os.geteuid():
        pytest.fail("this test gives a file away: run it as root")
    place = getattr(home, name)
    if name == "identity":
        place.touch(0o600)
    os.chown(place, 65534, 65534)
    with pytest.raises(HomeError, match="belongs to uid 65534"):
        home.check()
    os.chown(place, 0, 0)


def test_h92_an_over_long_socket_path_is_told(tmp_path):
    home = Home(tmp_path / ("x" * 100) / "pylon")
    home.create()
    with pytest.raises(HomeError, match="too long for a socket"):
        home.check()


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="OPENAGENTS_HOME"):
        Home(tmp_path / "file" / "pylon").create()
