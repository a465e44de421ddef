"""A long video in chunks that outlive a kill: each a run of the encoder of its own, joined packet by packet at the end.

A chunk begins with a key frame and refers to nothing outside itself, because its encoder was opened for it. Chunks
are cut at fixed frame numbers, so that a video that was interrupted is, byte for byte, the one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import numpy as np
from av.packet import PacketSideData

from sg3cli.errors import InputError, UsageError
from sg3cli.files import atomic_path, digest_of, read_arrays, write_arrays
from sg3cli.settings import EncodeConfig
from sg3cli.video.info import VideoInfo
from sg3cli.video.pixel_conversion import as_grey_as_its_source
from sg3cli.video.reader import Frame
from sg3cli.video.writer import VideoWriter

ALPHA, ALPHA_NUMBER = "matroska_block_additional", 15  # side data that holds a VP9 image's alpha; FFmpeg's number


COLUMNS = ("pts", "dts", "duration", "key", "size", "side")  # of a packet's row; side: bytes of alpha after its own
PTS, DTS, DURATION, KEY, SIZE, SIDE = range(len(COLUMNS))


@dataclass(frozen=True)
class Cut:
    """How a video of `frames` is kept in `folder`: in chunks of `length` frames (0: in none) made for `key`."""

    folder: Path
    key: str
    frames: int
    length: int

    def bounds(self) -> list[int]:
        """Numbers of the frames at which chunks end, the last at `frames`; none when the video is left whole.

        The last chunk is between half and one and a half times `length`.
        """
        if self.length <= 0 or 2 * self.frames < 3 * self.length:
            return []
        return [*range(self.length, self.frames - (self.length + 1) // 2 + 1, self.length), self.frames]


class SegmentedWriter:
    """A `VideoWriter` that keeps what it has encoded, as `cut` says, and goes on from there.

    `start` is the number of frames that are kept already: frames from there on are wanted. What was kept for another
    key, container or encoder library is dropped. After a failure the finished chunks stay, and after success too, for
    the caller to remove when all that belongs to the video is written. A video of one chunk, or one that goes to
    standard output, is written straight to its place. `before_publish` gets the finished file just before its name,
    after `sign(finished, fresh)` has written it anew.
    """

    def __init__(
        self,
        out: str,
        source: VideoInfo,
        encode: EncodeConfig,
        size: tuple[int, int],
        metadata: dict[str, str],
        cut: Cut,
        before_publish: Callable[[Path], None] | None = None,
        sign: Callable[[Path, Path], None] | None = None,
    ) -> None:
        self._video = VideoWriter(out, source, encode, size, metadata)
        self._video.before_publish, self._video.sign = before_publish, sign
        self._bounds = cut.bounds() if self._video.can_be_joined else []
        self.kept = EncodedChunks(cut.folder, chunk_key(cut, self._video), self._bounds)
        self._arguments = (out, source, encode, size)
        self._chunk: _ChunkEncoder | None = None
        self._next = self.start = self.kept.rows
        self._notices = [f"{path} is damaged, it is encoded again" for path in self.kept.damaged]

    @property
    def notices(self) -> list[str]:
        """What differs from the source (see `VideoWriter`)."""
        return list(dict.fromkeys([*self._video.notices, *self._notices]))

    def __enter__(self) -> SegmentedWriter:
        if self._bounds:
            VideoWriter(*self._arguments).rehearse()
        else:
            self._video.__enter__()
        return self

    def write(self, frame: Frame) -> None:
        """Encode one frame; frames come in display order, the first is number `start`.

        What was drawn into a grey frame is written in grey.
        """
        if not self._bounds:
            self._video.write(as_grey(frame))
            return
        if self._chunk is None:
            encoder = VideoWriter(*self._arguments)
            self._chunk = _ChunkEncoder(encoder, self.kept.payload(self._next))
        self._chunk.write(as_grey(frame))
        self._next += 1
        if self._next in self._bounds:
            self._close_chunk()

    def _close_chunk(self) -> None:
        if self._chunk is not None:
            self.kept.append(*self._chunk.finish())
            self._notices += self._chunk.encoder.notices
            self._chunk = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._bounds:
            self._video.__exit__(kind, error, tb)
        elif kind is None:
            self._close_chunk()
            with self._video as video:
                for packet in self.kept.packets(video.extradata):
                    video.write_packet(packet)
        elif self._chunk is not None:
            self._chunk.abandon(kind, error, tb)


def as_grey(frame: Frame) -> Frame:
    """What was drawn into a grey frame, in grey."""
    return replace(frame, rgb=as_grey_as_its_source(frame.rgb, frame.stored))


def chunk_key(cut: Cut, video: VideoWriter) -> str:
    """What the bytes of a chunk depend on: what the video is made from, the container, and the library."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"{cut.key} {video.container} {codec}"


def write_chunk(
    out: str, source: VideoInfo, encode: EncodeConfig, size: tuple[int, int], cut: Cut, frames: Iterator[Frame]
) -> list[str]:
    """Keep the chunk of `cut` that `frames` are, as a `SegmentedWriter` of all frames would; returns the notices."""
    encoder = VideoWriter(out, source, encode, size)
    chunk, first = None, 0
    try:
        for frame in frames:
            if chunk is None:
                first, chunk = frame.index, _ChunkEncoder(encoder, payload_of(cut.folder, frame.index))
            chunk.write(as_grey(frame))
    except BaseException as error:
        if chunk is not None:
            chunk.abandon(type(error), error, error.__traceback__)
        raise
    if chunk is not None:
        keep_chunk(cut.folder, chunk_key(cut, encoder), first, *chunk.finish())
    return encoder.notices


class _ChunkEncoder:
    """A chunk that is being encoded; its packets go to the file `payload`, which appears when it is whole."""

    def __init__(self, encoder: VideoWriter, payload: Path) -> None:
        self.encoder = encoder
        self._rows: list[tuple[int, ...]] = []
        self._frames = 0
        self._digest = hashlib.sha256()  # of the payload
        encoder.open_encoder()
        self._stack = ExitStack()
        temp = self._stack.enter_context(atomic_path(payload))
        self._sink: BinaryIO = self._stack.enter_context(temp.open("wb"))

    def write(self, frame: Frame | None) -> None:
        """Encode one frame, or (None) the rest."""
        self._frames += frame is not None
        for packet in self.encoder.encoded(frame):
            alpha = b"".join(bytes(data) for data in packet.iter_sidedata() if data.data_type == ALPHA)
            for data in (bytes(packet), alpha):
                self._sink.write(data)
                self._digest.update(data)
            self._rows.append(
                (packet.pts, packet.dts, packet.duration, int(packet.is_keyframe), packet.size, len(alpha))
            )

    def finish(self) -> tuple[list[tuple[int, ...]], bytes, str]:
        """Make the payload stand; returns a row per packet (see `COLUMNS`), the encoder's extradata and the digest."""
        try:
            self.write(None)
            if len(self._rows) != self._frames:  # one packet is one frame, or a resumed video could lose some
                raise _cannot_be_joined()
        except BaseException as error:
            self.abandon(type(error), error, error.__traceback__)
            raise
        self._stack.close()
        extradata = self.encoder.extradata
        self.encoder.close_encoder()
        return self._rows, extradata, f"sha256:{self._digest.hexdigest()}"

    def abandon(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Drop the payload; a failed write is raised as what it means to the user."""
        self._stack.__exit__(kind, error, tb)
        self.encoder.close_encoder()


class EncodedChunks:
    """The finished chunks in `folder`: `<first frame>.bin`, the packets' bytes one after the other, and
    `<first frame>.safetensors`, a row for each of them (`COLUMNS`), which is written last and makes the chunk count.
    """

    def __init__(self, folder: Path, key: str, bounds: list[int]) -> None:
        self.folder, self.key = folder, key
        self.rows = 0  # frames in all chunks
        self.damaged: list[Path] = []  # what was found, and dropped
        self._found: list[tuple[int, np.ndarray, str]] = []  # first frame, rows [n, 6], extradata in hexadecimal
        for first, last in zip([0, *bounds], bounds, strict=False):
            if not self._take(first, last):
                break
        self._sweep()

    def payload(self, first: int) -> Path:
        """File of the packets of the chunk that begins at frame `first`."""
        return payload_of(self.folder, first)

    def _table(self, first: int) -> Path:
        return table_of(self.folder, first)

    def _take(self, first: int, last: int) -> bool:
        """Whether the chunk of the frames `first` to `last` is there, whole and ours."""
        if not self._table(first).is_file():
            return False
        try:
            arrays, meta = read_arrays(self._table(first))
            rows = arrays["packets"]
            ours = (meta["key"], meta["first"], meta["last"]) == (self.key, first, last) and "payload" in meta
            if ours and digest_of(self.payload(first)) != meta["payload"]:
                raise OSError
        except (InputError, OSError, KeyError):
            self.damaged.append(self.payload(first))
        else:
            if ours:
                self._found.append((first, rows, meta["extradata"]))
                self.rows = last
                return True
        return False

    def _sweep(self) -> None:
        """Remove what is not part of the finished chunks."""
        kept = {path for first, *_ in self._found for path in (self.payload(first), self._table(first))}
        for path in self.folder.glob("*") if self.folder.is_dir() else ():
            if path not in kept:
                path.unlink(missing_ok=True)

    def append(self, rows: list[tuple[int, ...]], extradata: bytes, digest: str) -> None:
        """Keep the chunk whose payload has just been written; on disk when this returns."""
        table = keep_chunk(self.folder, self.key, self.rows, rows, extradata, digest)
        self._found.append((self.rows, table, extradata.hex()))
        self.rows += len(rows)

    def packets(self, extradata: bytes) -> Iterator[Any]:
        """All packets in order of decoding, read one by one, with decoding times that never go back.

        `extradata` is that of the video's own stream. Raises `UsageError` when a chunk was encoded with another one.
        """
        if any(known != extradata.hex() for _, _, known in self._found):
            raise _cannot_be_joined()
        joined = np.concatenate([rows for _, rows, _ in self._found])
        dts = iter(decoding_times(joined[:, PTS], reorder_depth(self._found[0][1])))
        for first, rows, _ in self._found:
            with self.payload(first).open("rb") as file:
                for row in rows:
                    packet = _packet(file, row)
                    packet.dts = int(next(dts))
                    yield packet


def payload_of(folder: Path, first: int) -> Path:
    """File of the packets of the chunk that begins at frame `first`."""
    return folder / f"{first:09d}.bin"


def table_of(folder: Path, first: int) -> Path:
    """File of their rows; it makes the chunk count."""
    return payload_of(folder, first).with_suffix(".safetensors")


def keep_chunk(
    folder: Path, key: str, first: int, rows: list[tuple[int, ...]], extradata: bytes, digest: str
) -> np.ndarray:
    """Write the rows of a chunk whose payload stands, `[n, 6]`, which are returned."""
    table = np.array(rows, np.int64).reshape(-1, len(COLUMNS))
    meta = {"key": key, "first": first, "last": first + len(rows), "extradata": extradata.hex(), "columns": COLUMNS}
    write_arrays(table_of(folder, first), {"packets": table}, {**meta, "payload": digest})
    return table


def _cannot_be_joined() -> UsageError:
    return UsageError("this encoder's output cannot be joined from pieces", "write the video in one piece: --segment 0")


def _packet(file: BinaryIO, row: np.ndarray) -> Any:
    packet = av.Packet(file.read(int(row[SIZE])))
    packet.pts, packet.duration, packet.is_keyframe = int(row[PTS]), int(row[DURATION]), bool(row[KEY])
    if row[SIDE]:
        alpha = PacketSideData(ALPHA_NUMBER, int(row[SIDE]))  # type: ignore[call-arg]
        alpha.update(file.read(int(row[SIDE])))
        packet.set_sidedata(alpha)
    return packet


def reorder_depth(rows: np.ndarray) -> int:
    """By how many frames decoding runs ahead of display in a chunk: as the encoder says by its times, or as it does."""
    pts = rows[:, PTS]
    rank = np.argsort(np.argsort(pts))
    needed = int((np.arange(len(pts)) - rank).max())
    return max(needed, int(np.count_nonzero(rows[:, DTS] < pts.min())))


def decoding_times(pts: np.ndarray, depth: int) -> np.ndarray:
    """Ascending dts `[n]` for packets of these pts in order of decoding: the display times, `depth` frames late.

    Encoders count from their own first frame, so with unequal steps the times of one chunk can run into the next's.
    """
    ordered = np.sort(pts)
    depth = min(depth, len(pts) - 1)
    lead = ordered[:depth] - (ordered[depth] - ordered[0])
    return np.concatenate([lead, ordered[: len(pts) - depth]])
