"""What goes beside the images: the source's sound, subtitles, chapters and attachments, copied packet by packet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from sg3cli.errors import InputError, UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video.container import DRAWN, open_media, packets
from sg3cli.video.info import VideoInfo
from sg3cli.video.muxing import COPYABLE, UNNAMED_LAYOUTS, WAVE_TAGS, add_copy, needs_wave_header, works
from sg3cli.video.output_file import IMAGES
from sg3cli.video.sound import SoundEncoder

MOST_BACK = 0.5  # seconds by which sound may be out of order and is put behind what came before it
HEADS = 4  # packets of a stream that are tried before the work


@dataclass
class Copied:
    """A stream of the output that comes from the source, and what has been written of it."""

    stream: Any  # of the output
    source: Any  # of the source
    moved: list[tuple[int, int]]  # (first packet, units of the source's stream by which it is moved)
    plain: bool = False  # packets lose MP4's length prefix and styles
    encoder: SoundEncoder | None = None  # None: copied as they are
    read: int = 0
    written: int = 0  # packets
    size: int = 0  # bytes in them
    last: int | None = None  # time of decoding of the last packet, in units of the source's stream
    late: int = 0  # packets whose times went back
    step: int = 0  # duration of the last packet
    name: str = ""  # for messages, which come when the files are closed
    number: int = 0  # in the output

    def __post_init__(self) -> None:
        self.name = f"{self.source.type} {self.source.codec_context.name} (stream {self.source.index})"
        self.number = self.stream.index


class SourcePackets:
    """The packets of the source's sound and subtitles, each handed out when the video has come to its time.

    They are copied as they are, or sound is encoded anew (`encode.audio`). MP4's timed text becomes plain text (SubRip)
    in Matroska, which has no MP4 form. Tracks that hold nothing are left out. A video without a source (`drawn`) has
    none. Raises `UsageError` that names the stream which the container cannot hold and a container that can.
    """

    def __init__(
        self, source: VideoInfo, container: Any, stack: ExitStack, encode: EncodeConfig, piped: bool = False
    ) -> None:
        self.notices: list[str] = []
        self._piped = piped
        self.streams: dict[int, Copied] = {}
        self._source, self._encode, self._container = source, encode, container
        self._next: Any = None
        if source.stream == DRAWN:
            return
        if container.format.name == IMAGES:
            if source.audio or source.subtitles:
                self.notices.append("pictures hold no sound and no subtitles; those of the source are left out")
            return
        self._origin = stack.enter_context(open_media(source.path, source.patient))
        self._counts = {track.index: track.packets for track in source.audio}
        self._counts |= {track.index: track.packets for track in source.subtitles}
        self._wanted = self._chosen_sound()
        self._heads = self._first_packets()
        for stream in self._origin.streams:
            if stream.type in ("audio", "subtitle"):
                self._add(stream)
            elif stream.type == "attachment" and container.format.name == "matroska":
                container.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
            elif stream.index != source.stream:
                self._leave_out(stream, bool(self._origin.chapters()))
        container.set_chapters([self._moved_chapter(chapter) for chapter in self._origin.chapters()])
        kept = [copied.source for copied in self.streams.values()]
        self._packets = (p for p in (packets(self._origin, kept, source.path) if kept else ()) if p.size)
        self._next = next(self._packets, None)

    # ---- which streams

    def _chosen_sound(self) -> set[int]:
        """Stream numbers of the sound tracks that are wanted."""
        tracks, choice = [track.index for track in self._source.audio], self._encode.audio_track
        if self._encode.audio == "none":
            if tracks:
                self.notices.append("the sound is left out, as --audio none asks for")
            return set()
        if choice == "all":
            return set(tracks)
        if int(choice) >= len(tracks):
            many = f"{len(tracks)} sound track" + ("s" if len(tracks) != 1 else "")
            raise UsageError(f"there is no sound track {choice}: the source has {many}", "tracks are counted from 0")
        if len(tracks) > 1:
            self.notices.append(f"of {len(tracks)} sound tracks number {choice} is kept, as --audio-track asks for")
        return {tracks[int(choice)]}

    def _first_packets(self) -> dict[int, list[Any]]:
        """Some packets of every stream that has any, to try a container with."""
        wanted = {index: min(count, HEADS) for index, count in self._counts.items() if count}
        heads: dict[int, list[Any]] = {index: [] for index in wanted}
        if not wanted:
            return heads
        with open_media(self._source.path, self._source.patient) as again:
            for packet in packets(again, [again.streams[index] for index in wanted], self._source.path):
                found = heads[packet.stream.index]
                if packet.size and len(found) < wanted[packet.stream.index]:
                    found.append(packet)
                    if all(len(heads[index]) == count for index, count in wanted.items()):
                        break
        return heads

    def _add(self, stream: Any) -> None:
        sound, container = stream.type == "audio", self._container
        if sound and stream.codec_context is not None and stream.index not in self._wanted:
            return
        if stream.codec_context is None:
            self.notices.append(f"stream {stream.index} ({stream.type}) of the source cannot be read and is left out")
            return
        if not self._counts.get(stream.index):
            self.notices.append(f"stream {stream.index} ({stream.type}) of the source is empty and is left out")
            return
        back = next((track.goes_back for track in self._source.audio if track.index == stream.index), 0)
        if back > MOST_BACK:
            raise UsageError(
                f"the sound of the source (stream {stream.index}) goes back by {back:.1f} s while its pictures go on",
                "it was joined of files that do not fit; --audio none leaves the sound out",
            )
        if sound and self._encode.audio in ("aac", "flac"):
            self._encode_anew(stream)
            return
        plain = stream.codec_context.name == "mov_text" and container.format.name == "matroska"
        layout = None
        if not plain:
            layout = self._layout_that_works(stream)
            if layout is None:
                self._refuse(stream)
                return
        copy = (
            container.add_mux_stream("subrip")
            if plain
            else add_copy(container, stream, self._heads[stream.index], layout or "")
        )
        self._keep(stream, Copied(copy, stream, self._moves(stream), plain))

    def _layout_that_works(self, stream: Any) -> str | None:
        """The channel layout with which the container takes the stream: empty for its own, None for no way."""
        name, heads = self._container.format.name, self._heads[stream.index]
        if self._piped and needs_wave_header(name, stream):
            return None  # its name is written into the finished file
        if works(name, stream, heads):
            return ""
        guess = UNNAMED_LAYOUTS.get(stream.channels, "") if stream.type == "audio" else ""
        if guess and works(name, stream, heads, guess):
            self.notices.append(f"the sound (stream {stream.index}) says no channel layout; {guess} is assumed")
            return guess
        return None

    def _refuse(self, stream: Any) -> None:
        """The stream cannot be copied: an error that names what can be done, or a notice for subtitles."""
        name, heads, kind = stream.codec_context.name, self._heads[stream.index], self._container.format.name
        what = f"{kind} cannot hold the source's {name} {stream.type} (stream {stream.index})"
        able = [suffix for suffix, other in COPYABLE.items() if other != kind and works(other, stream, heads)]
        if stream.type == "audio":
            anew = "--audio aac (or flac) encodes it anew, --audio none leaves it out"
            hint = f"write to {' or '.join(able)}, which holds it unchanged; {anew}" if able else anew
            raise UsageError(what, hint)
        self.notices.append(f"{what}: it is left out" + (f"; {' and '.join(able)} keep it" if able else ""))

    def _encode_anew(self, stream: Any) -> None:
        kind = self._container.format.name
        try:
            encoder = SoundEncoder(self._container, stream, self._encode.audio)
        except (ValueError, av.FFmpegError) as error:
            raise UsageError(f"{kind} cannot hold {self._encode.audio} sound", "write to .mkv or .mp4") from error
        name = stream.codec_context.name
        self.notices.append(f"the sound (stream {stream.index}, {name}) is encoded anew as {self._encode.audio}")
        self._keep(stream, Copied(encoder.stream, stream, self._moves(stream), encoder=encoder))

    def _keep(self, stream: Any, copied: Copied) -> None:
        copied.stream.metadata.update(stream.metadata)
        copied.stream.disposition = stream.disposition
        self.streams[stream.index] = copied

    def _leave_out(self, stream: Any, chapters: bool) -> None:
        if stream.type == "data" and chapters and stream.codec_context is None:
            return  # how an MP4 stores its chapters, which are copied as such
        name = stream.codec_context.name if stream.codec_context else "unknown"
        self.notices.append(f"stream {stream.index} ({stream.type}, {name}) of the source is left out")

    # ---- times

    def _moves(self, stream: Any) -> list[tuple[int, int]]:
        """By how much the stream's packets are moved, from which on."""
        base, lead = Fraction(stream.time_base), self._source.lead
        own = [(s.first, round((s.seconds - lead) / base)) for s in self._source.shifts if s.stream == stream.index]
        return [(0, round(-lead / base)), *own]

    def _moved_chapter(self, chapter: dict[str, Any]) -> dict[str, Any]:
        units = round(self._source.lead / chapter["time_base"])
        return {**chapter, "start": chapter["start"] - units, "end": chapter["end"] - units}

    def _timed(self, packet: Any, copied: Copied) -> None:
        """Give the packet its time in the output: moved, there, and not before the one before it."""
        units = next(units for first, units in reversed(copied.moved) if copied.read >= first)
        copied.read += 1
        if packet.dts is None and packet.pts is None:
            packet.pts = packet.dts = 0 if copied.last is None else copied.last + max(1, copied.step)
        else:
            stamp = packet.dts if packet.dts is not None else packet.pts
            packet.dts = stamp + units
            packet.pts = packet.dts if packet.pts is None else packet.pts + units
        strict = self._container.format.name in ("mp4", "mov")
        if copied.last is not None and packet.dts < copied.last + strict:
            copied.late += packet.dts < copied.last
            packet.dts = copied.last + strict
            packet.pts = max(packet.pts, packet.dts)
        passed = 0 if copied.last is None else packet.dts - copied.last
        copied.step = packet.duration or _length(copied.source, packet) or passed or copied.step
        if strict:  # MP4 ends a track where its last packet does
            packet.duration = copied.step
        copied.last = packet.dts

    # ---- the packets

    def until(self, seconds: float | None) -> Iterator[tuple[Any, Copied]]:
        """The packets up to this time of decoding, or (None) all that are left, each with where it goes."""
        while self._next is not None:
            packet, copied = self._next, self.streams[self._next.stream.index]
            stamp = packet.dts if packet.dts is not None else packet.pts
            if seconds is not None and stamp is not None:
                moved = next(units for first, units in reversed(copied.moved) if copied.read >= first)
                if float((stamp + moved) * packet.time_base) > seconds:
                    return
            if copied.encoder is not None:
                moved = next(units for first, units in reversed(copied.moved) if copied.read >= first)
                copied.read += 1
                yield from ((made, copied) for made in copied.encoder.encoded(packet, moved))
            else:
                if copied.plain:
                    packet = _plain_text(packet)
                self._timed(packet, copied)
                if packet.size:
                    packet.stream = copied.stream
                    yield packet, copied
            self._next = next(self._packets, None)
        if seconds is None:
            for copied in self.streams.values():
                if copied.encoder is not None:
                    yield from ((made, copied) for made in copied.encoder.rest())

    def wave_headers(self) -> list[bool]:
        """For every track that the muxer calls MP2: whether it is none, and has a WAV file's header."""
        kind, tracks = self._container.format.name, self.streams.values()
        return [
            needs_wave_header(kind, c.source)
            for c in tracks
            if c.encoder is None and c.source.codec_context.name in (*WAVE_TAGS, "mp2", "mp2float")
        ]

    def closing_notices(self) -> list[str]:
        """What had to be changed on the way."""
        return [
            f"{copied.late} packets of {copied.name} went back in time; they were moved behind those before them"
            for copied in self.streams.values()
            if copied.late
        ]

    def heads(self) -> Iterator[tuple[Any, Copied]]:
        """The first packets of each stream, as they would be written, for a rehearsal."""
        for copied in self.streams.values():
            for packet in self._heads[copied.source.index]:
                if copied.encoder is not None:
                    yield from ((made, copied) for made in copied.encoder.encoded(packet, 0))
                    continue
                packet = _plain_text(packet) if copied.plain else packet
                self._timed(packet, copied)
                packet.stream = copied.stream
                yield packet, copied
        for copied in self.streams.values():
            if copied.encoder is not None:
                yield from ((made, copied) for made in copied.encoder.rest())

    def failure(self, copied: Copied, error: Exception) -> InputError:
        """What it means when a packet of a stream cannot be written."""
        why = getattr(error, "strerror", None) or str(error)
        return InputError(
            f"the {copied.name} of {self._source.path} cannot be written after {copied.written} packets ({why})",
            "--audio aac encodes the sound anew, --audio none leaves it out; or try another container, as .mkv",
        )


def _length(stream: Any, packet: Any) -> int:
    """Units of its stream that a packet of sound lasts, where the container does not say it; 0: not known."""
    context = stream.codec_context
    if stream.type != "audio" or not stream.rate:
        return 0
    samples = context.frame_size
    if context.name.startswith("pcm_") and context.format is not None:
        samples = packet.size // max(1, context.format.bytes * stream.channels)
    return round(Fraction(samples, stream.rate) / Fraction(stream.time_base))


def _plain_text(packet: Any) -> Any:
    """A packet of MP4 timed text (3GPP TS 26.245: length, text, styles) -> the text alone."""
    data = bytes(packet)
    text = av.Packet(data[2 : 2 + int.from_bytes(data[:2], "big")])
    text.pts, text.dts, text.duration, text.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    return text
