"""The server while it runs: where it listens, what breaks, what comes and goes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery import artist as drawing
from sae_graphs.gallery import site as pages
from sae_graphs.gallery.artist import Artist, Kind
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.server import PORT, gallery_server
from sae_graphs.gallery.site import answered
from sae_graphs.gallery.skeleton import Page
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import Site, contents, fresh, served, write_run


def test_it_listens_on_loopback_alone(site: Site) -> None:
    with gallery_server(site.folder, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_busy_port(site: Site) -> None:
    words = f"port {site.port} is in use; give another with"
    with pytest.raises(SaeGraphsError, match=words), gallery_server(site.folder, site.port):
        pass


def test_without_a_port_any_free_one_is_taken(site: Site) -> None:
    with gallery_server(site.folder) as first, gallery_server(site.folder) as second:
        assert first.server_port != second.server_port
        assert second.server_port != PORT


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder, words in (
        ("missing", "is not there"),
        ("file", "is a file"),
        (".", "holds no runs"),
    ):
        with pytest.raises(SaeGraphsError, match=words), gallery_server(tmp_path / folder):
            pass


@pytest.mark.parametrize(
    ("problem", "status"), [(ZeroDivisionError("ours"), 500), (OSError(5, "gone"), 503)]
)
def test_a_failure_of_one_page_is_told_and_ends_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, problem: Exception, status: int
) -> None:
    def fails(*given: object, **options: object) -> None:
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(pages, "plain_file", fails)
        reply = site.ask("/run/plain/graph.json")
    assert reply.status == status
    assert "Traceback" not in reply.text and "← all runs" in reply.text
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert site.ask("/run/plain/graph.json").status == 200


@pytest.mark.usefixtures("drawn_here")
def test_one_heavy_page_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a page is drawn, the gallery, files and what was drawn before are there at once."""
    folder = tmp_path / "runs"
    write_run(folder / "heavy", two_edges())
    write_run(folder / "light", two_edges())
    begun, go_on = threading.Event(), threading.Event()
    draw = Artist.draw

    def slowly(self: Artist, at: Path, kind: Kind, names: Sequence[str], **options: bool) -> Page:
        if "heavy" in names:
            begun.set()
            assert go_on.wait(20)
        return draw(self, at, kind, names, **options)

    monkeypatch.setattr(Artist, "draw", slowly)
    with served(folder) as site, ThreadPoolExecutor(2) as readers:
        assert site.ask("/run/light/").status == 200
        waiting = [readers.submit(site.ask, "/run/heavy/") for _ in range(2)]
        assert begun.wait(20)
        for target in ("/", "/run/light/", "/run/heavy/graph.json", "/run/heavy", "/nothing"):
            assert site.ask(target).status in (200, 301, 404)
        assert not any(reply.done() for reply in waiting)
        go_on.set()
        assert [reply.result().status for reply in waiting] == [200, 200]


@pytest.mark.slow
def test_graphviz_runs_in_another_process(tmp_path: Path) -> None:
    """It holds Python's one lock: in this process, every thread would wait for it."""
    write_run(tmp_path / "one", two_edges())
    code = (
        "import sys; from pathlib import Path\n"
        "from sae_graphs.gallery.library import Library\n"
        "from sae_graphs.gallery.site import answered\n"
        "shelf = Library(Path(sys.argv[1]))\n"
        "for target in ('/', '/run/one/', '/compare?a=one&b=one', '/thumbnail/one.svg'):\n"
        "    assert answered(shelf, target).status == 200, target\n"
        "shelf.close()\n"
        "sys.exit('pygraphviz' in sys.modules)"
    )
    # a package of this name where the user is must not be run
    (tmp_path / "sae_graphs").mkdir()
    (tmp_path / "sae_graphs" / "__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_end_of_the_process_that_draws_is_told_and_it_starts_again(tmp_path: Path) -> None:
    write_run(tmp_path / "one", two_edges())
    shelf = Library(tmp_path)
    artist = shelf._artist
    assert "<svg" in artist.draw(tmp_path, "thumbnail", ["one"]).html
    assert artist._process is not None
    artist._process.send_signal(signal.SIGSTOP)  # so that it dies while it is waited for
    ending = threading.Timer(0.2, artist._process.kill)
    ending.start()
    reply = answered(shelf, "/run/one/")
    assert reply.status == 422 and "ended unexpectedly" in str(reply.body)
    assert answered(shelf, "/run/one/").status == 200
    last = artist._process
    shelf.close()
    assert last is not None and last.poll() is not None


@pytest.mark.usefixtures("drawn_here")
@pytest.mark.parametrize(
    ("problem", "status"),
    [(SaeGraphsError("a mistake"), 422), (OSError(5, "gone"), 503), (ZeroDivisionError("x"), 500)],
)
def test_what_goes_wrong_while_drawing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception, status: int
) -> None:
    """In the process that draws, and from there to the page."""

    def fails(*given: object, **options: object) -> Page:
        raise problem

    write_run(tmp_path / "one", two_edges())
    monkeypatch.setattr(drawing, "drawn", fails)
    with served(tmp_path) as site:
        reply = site.ask("/run/one/")
    assert reply.status == status
    assert {422: "a mistake", 503: "gone", 500: "ZeroDivisionError"}[status] in reply.text


def test_many_readers_at_once(site: Site) -> None:
    targets = ["/", "/run/plain/", "/compare?a=plain&b=other", "/thumbnail/plain.svg"] * 4
    with ThreadPoolExecutor(8) as readers:
        assert [reply.status for reply in readers.map(site.ask, targets)] == [200] * 16


@pytest.mark.usefixtures("drawn_here")
def test_a_run_by_itself(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", two_edges())
    with served(run) as site:
        assert "1 run in" in site.ask("/").text
        assert site.ask("/run/mine/").status == 200
        assert site.ask("/run/mine/graph.json").status == 200
        assert "Compare" not in site.ask("/").text


@pytest.mark.usefixtures("drawn_here")
def test_runs_come_and_go_while_it_serves(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    write_run(folder / "first", two_edges())
    with served(folder) as site:
        assert "second" not in site.ask("/").text
        write_run(folder / "second", two_edges())
        assert "second" in site.ask("/").text
        (folder / "first" / "graph.json").write_text("{")
        assert "cannot be opened" in site.ask("/").text
        assert site.ask("/run/first/").status == 422
        fresh(folder)
        assert "No runs are here any more" in site.ask("/").text
        assert site.ask("/run/first/").status == 404


@pytest.mark.usefixtures("drawn_anywhere")
def test_nothing_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    write_run(folder / "first", two_edges())
    write_run(folder / "second", two_edges())
    before = contents(folder)
    with served(folder) as site:
        for target in ("/", "/run/first/", "/compare?a=first&b=second", "/thumbnail/first.svg"):
            assert site.ask(target).status == 200
    assert contents(folder) == before
