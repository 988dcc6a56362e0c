"""Files and folders are written whole or not at all, and devices, pipes and links are never replaced."""

import errno
import os
import stat

import pytest

from slmrec_jax import durable
from slmrec_jax.durable import check_room, whole_file, whole_folder, write_whole, writing
from slmrec_jax.errors import UserError


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write(path, content):
    with writing(path, "give another"), whole_file(path) as file:
        file.write(content)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_file_appears_with_its_content_and_the_permissions_of_the_umask(tmp_path, umask):
    path = tmp_path / "new" / "folder" / "file"
    with whole_file(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    with whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_that_the_disk_refuses_leaves_what_was_there(tmp_path, monkeypatch, step):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(durable.os, step, full)
    for path in (tmp_path / "file", tmp_path / "new" / "folder" / "file"):
        with pytest.raises(
            UserError, match=r"cannot write .*: No space left on device; free some space, or give another$"
        ):
            write(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_an_interrupted_file_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "new" / "file"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        write(path, b"content")
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_that_is_removed_and_a_missing_file_in_the_block_are_ordinary_errors(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FileNotFoundError), whole_file(path):
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileNotFoundError, match="nowhere"), whole_file(path):
        (tmp_path / "nowhere").read_bytes()


@pytest.mark.parametrize(("minor", "said"), [(3, None), (7, "No space left on device")], ids=["null", "full"])
def test_a_device_is_written_and_stays_a_device(tmp_path, minor, said):
    path = tmp_path / "device"
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, minor))
        path.open("rb").close()
    except OSError as error:
        pytest.skip(f"devices cannot be made here ({error.strerror})")
    before = path.stat()
    (tmp_path / "link").symlink_to(path)
    for place in (path, tmp_path / "link"):
        try:
            write(place, b"content")
            assert said is None
        except UserError as error:
            assert said is not None
            assert said in str(error)  # noqa: PT017 (what the other device raises)
        assert (path.stat().st_rdev, path.stat().st_ino) == (before.st_rdev, before.st_ino)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_link_to_a_file_is_refused_and_stays(tmp_path, target):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UserError, match=f"link is a symbolic link to {target}: give the path of the file itself"):
        write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "old"
    with pytest.raises(OSError, match="link is not a regular file"):
        write_whole(tmp_path / "link", "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "there"]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        write(tmp_path, b"content")


def test_a_file_of_a_held_folder_leaves_no_part(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", "Ж")
    assert (tmp_path / "file").read_bytes() == "Ж".encode()
    monkeypatch.setattr(durable, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", "new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == "Ж".encode()


def test_a_folder_appears_whole_or_not_at_all(tmp_path, umask, monkeypatch):
    path = tmp_path / "new" / "folder"
    with whole_folder(path) as part:
        (part / "file").write_text("content")
        assert not path.exists()
    assert (path / "file").read_text() == "content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    with pytest.raises(UserError, match="folder already exists"), whole_folder(path):
        pass
    monkeypatch.setattr(durable, "sync", full)
    with pytest.raises(OSError, match="No space left"), whole_folder(tmp_path / "other" / "folder") as part:
        (part / "file").write_text("content")
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


def test_room_is_asked_for_and_given_back(tmp_path):
    check_room(tmp_path, 2**16)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match=r"No space left|File too large"):
        check_room(tmp_path, 2**60)
