"""The store tells of its outages: once when one begins, once when it is over."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest

from tailrace.archive import ObjectStore, outage
from tailrace.errors import ArchiveUnavailable

AWAY, BACK = "The archive does not answer", "The archive answers again"


class Place:
    """A store on a directory that can be taken away: a file stands in its place then."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.store = ObjectStore(f"file://{directory}")

    async def asked(self, times: int, *, away: bool) -> None:
        """Read so many times, in vain if it is away."""
        (self._directory.rmdir if self._directory.is_dir() else self._directory.unlink)()
        (self._directory.touch if away else self._directory.mkdir)()
        for _ in range(times):
            if not away:
                assert await self.store.read("s1/1-2.ndjson.gz") is None
                continue
            with pytest.raises(ArchiveUnavailable):
                await self.store.read("s1/1-2.ndjson.gz")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "archive").mkdir()
    return Place(tmp_path / "archive")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert [record.exc_info for record in caplog.records if record.exc_info] == []
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "APART_SECONDS", 0.0)
    with closing(place.store):
        await place.asked(2, away=False)
        assert told(caplog) == []
        await place.asked(5, away=True)
        assert told(caplog) == [AWAY]
        assert "NotADirectoryError" in vars(caplog.records[-1])["error"]
        await place.asked(3, away=False)
        assert told(caplog) == [AWAY, BACK]
        await place.asked(2, away=True)
        assert told(caplog) == [AWAY, BACK, AWAY]


async def test_a_store_that_comes_and_goes_does_not_fill_the_log(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(place.store):
        for _ in range(5):
            await place.asked(1, away=True)
            await place.asked(1, away=False)
        assert told(caplog) == [AWAY, BACK]
        # One that lasts is told for all that, when the time is over.
        await place.asked(1, away=True)
        monkeypatch.setattr(outage, "APART_SECONDS", 0.0)
        await place.asked(2, away=True)
        assert told(caplog) == [AWAY, BACK, AWAY]
