"""A bounded queue between a producing thread and its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Runs the iterator made by `source()` in a thread, at most `depth` items ahead.

    The iterator is created, advanced and closed in that one thread. Its exception is raised again where the items are
    consumed, after the items that came before it. Leaving the consumer early stops and joins the thread.
    """

    def __init__(self, source: Callable[[], Iterator[T]], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sg3-decode", daemon=True)

    def __iter__(self) -> Iterator[T]:
        self._thread.start()
        try:
            while True:
                kind, value = self._queue.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value  # type: ignore[misc]
                yield value  # type: ignore[misc]
        finally:
            self.close()

    def close(self) -> None:
        """Stop the producer and wait for it; safe to call twice."""
        self._stop.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()  # makes room, so that a blocked put ends
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        items = self._source()
        try:
            for item in items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:  # noqa: BLE001 (handed over whole: the consumer raises it)
            self._put("error", error)
        finally:
            items.close()  # type: ignore[attr-defined]

    def _put(self, kind: str, value: T | BaseException | None) -> bool:
        """False when the consumer has gone."""
        while not self._stop.is_set():
            try:
                self._queue.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
