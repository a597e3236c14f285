"""A folder's photos: each real file once, whatever links there are."""

import os

import pytest
from photo_kinds import colours, saved

from restora.photos.listing import list_photos, look_through

PNG = saved(colours(), "PNG")


def write(path, data=PNG):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(folder):
    return [path.relative_to(folder).as_posix() for path in list_photos(folder)]


def test_a_loop_of_links_lists_each_photo_once(tmp_path):
    write(tmp_path / "l" / "1.png")
    (tmp_path / "l" / "again").symlink_to(".")
    (tmp_path / "l" / "deep").mkdir()
    (tmp_path / "l" / "deep" / "up").symlink_to("..")
    (tmp_path / "l" / "itself").symlink_to("itself")
    assert names(tmp_path / "l") == ["1.png"]


def test_a_linked_folder_is_walked_once(tmp_path):
    write(tmp_path / "album" / "a.png")
    write(tmp_path / "l" / "b.png")
    for name in ("one", "two"):
        (tmp_path / "l" / name).symlink_to("../album")
    assert names(tmp_path / "l") == ["b.png", "one/a.png"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_photo_with_two_names_counts_once(tmp_path, link):
    real = write(tmp_path / "z.png")
    link(real, tmp_path / "a.png")
    listing = look_through(tmp_path)
    assert len(listing.photos) == 1
    assert listing.links == 1
    if link is os.symlink:
        assert listing.photos == [real]  # its own name, though the link's comes first


def test_what_is_no_file_is_named_and_nothing_waits_for_a_pipe(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    write(tmp_path / "folder.png" / "b.png")
    write(tmp_path / "clip.mov")
    write(tmp_path / "notes.txt")
    write(tmp_path / ".hidden.png")
    listing = look_through(tmp_path)
    assert [path.name for path in listing.photos] == ["a.png", "b.png"]
    reasons = {path.name: reason for path, reason in listing.left_out.items()}
    assert reasons["nowhere.jpg"] == "is a link to nowhere"
    assert reasons["pipe.png"] == "is not a file"
    assert "video" in reasons["clip.mov"]
    assert listing.others == 1


def test_the_folder_that_is_written_to_is_avoided(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "restored" / "a.png")
    listing = look_through(tmp_path, avoid=tmp_path / "restored")
    assert [path.parent for path in listing.photos] == [tmp_path]


def test_links_do_not_put_one_photo_into_several_splits(tmp_path):
    from restora.data.sources import Folder
    from restora.photos.errors import DataError

    write(tmp_path / "l" / "1.png")
    (tmp_path / "l" / "again").symlink_to(".")
    with pytest.raises(DataError, match="at least 3 photos are needed, one for each split, and .* holds 1"):
        Folder(root=tmp_path / "l").check()
