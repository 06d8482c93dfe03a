import http.server
import threading
import time
from contextlib import suppress

import pytest
from PIL import Image

from components.encoding import pictures as module
from components.encoding.pictures import PictureReader, Unread, decode_picture, read_ahead
from components.encoding.settings import EncodingSettings
from tests.components.encoding.models import picture_bytes, write_picture


def reader(*roots: object, **settings: object) -> PictureReader:
    return PictureReader([str(root) for root in roots], EncodingSettings.parse(settings))


def test_a_picture_is_read_from_a_path_and_a_url(tmp_path):
    path = write_picture(tmp_path / "a.png", (255, 0, 0))
    for place, root in ((str(path), tmp_path), (f"file://{path}", f"file://{tmp_path}/")):
        picture = reader(root).read(place)
        assert isinstance(picture, Image.Image)
        assert (picture.mode, picture.size, picture.getpixel((0, 0))) == (
            "RGB",
            (4, 4),
            (255, 0, 0),
        )


@pytest.mark.parametrize(
    "place",
    ["/etc/passwd", "{root}/../secret.png", "{root}x/a.png", "file://{root}/a.png", "{root}", ""],
)
def test_nothing_is_read_that_is_not_below_a_root(tmp_path, place):
    root = tmp_path / "pictures"
    write_picture(tmp_path / "secret.png", (1, 1, 1))
    write_picture(tmp_path / "picturesx" / "a.png", (1, 1, 1))
    write_picture(root / "a.png", (1, 1, 1))
    assert reader(root).read(place.format(root=root)) == Unread("it is below none of the roots")


def test_what_cannot_be_read_has_a_reason(tmp_path, monkeypatch):
    found = reader(tmp_path).read(str(tmp_path / "nothing.png"))
    assert found == Unread("there is no such file")
    (tmp_path / "text.png").write_text("hello")
    assert reader(tmp_path).read(str(tmp_path / "text.png")) == Unread(
        "it is no picture that can be decoded"
    )
    whole = picture_bytes((9, 9, 9), (64, 64))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    cut = reader(tmp_path).read(str(tmp_path / "cut.png"))
    assert isinstance(cut, Unread)
    assert "cannot be decoded" in cut.reason
    assert not cut.is_away
    large = reader(tmp_path, largest_picture_mb=1e-5).read(str(tmp_path / "cut.png"))
    assert large == Unread("it has more than 10 bytes")
    monkeypatch.setattr(module, "MOST_PIXELS", 15)
    assert decode_picture(picture_bytes((1, 1, 1))) == Unread("it has more than 15 pixels")


def test_a_large_picture_is_scaled_down():
    picture = decode_picture(picture_bytes((10, 20, 30), (3000, 1500)))
    assert isinstance(picture, Image.Image)
    assert picture.size == (2048, 1024)
    assert picture.getpixel((100, 100)) == (10, 20, 30)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name == "slow":
            time.sleep(3)
        status = {"gone": 404, "mine": 410, "closed": 403, "broken": 500}.get(name, 200)
        content = picture_bytes((0, 0, 255)) if status == 200 else b"sorry"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):  # the reader of the slow one is gone
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/p"
    listening.shutdown()


def test_pictures_of_a_web_server(server):
    read = reader(server, fetch_seconds=1).read
    picture = read(f"{server}/a.png")
    assert isinstance(picture, Image.Image)
    assert picture.getpixel((0, 0)) == (0, 0, 255)
    assert read(f"{server}/gone") == Unread("there is no such file")
    assert read(f"{server}/mine") == Unread("the server answers 410")
    away = {name: read(f"{server}/{name}") for name in ("closed", "broken", "slow")}
    assert all(isinstance(each, Unread) and each.is_away for each in away.values()), away
    refused = reader("http://127.0.0.1:1/").read("http://127.0.0.1:1/a")
    assert isinstance(refused, Unread)
    assert refused.is_away


def test_pictures_are_read_ahead_and_come_in_order(tmp_path):
    for number in range(20):
        write_picture(tmp_path / f"{number}.png", (number, 0, 0))
    places = ((number, str(tmp_path / f"{number}.png")) for number in range(20))
    found = list(read_ahead(reader(tmp_path), places, threads=4, ahead=5))
    assert [number for number, _, _ in found] == list(range(20))
    assert [picture.getpixel((0, 0))[0] for _, _, picture in found] == list(range(20))


def test_no_more_pictures_are_read_ahead_than_may_be():
    asked = []

    class Reader:
        def read(self, place):
            return Unread(place)

    def places():
        for number in range(10):
            asked.append(number)
            yield number, str(number)

    found = read_ahead(Reader(), places(), threads=2, ahead=3)
    next(found)
    assert len(asked) == 3
    assert len(list(found)) == 9
