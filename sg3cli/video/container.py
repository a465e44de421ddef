"""Opening a media file with errors a user can act on, and what comes out of it: packets, and decoded images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from sg3cli.errors import InputError, UsageError

MAX_MISSING = 8  # consecutive frames without an image that are bridged
DRAWN = -1  # stream number of a video that has no file

# Demuxers we read. Playlists (HLS, concat, DASH) are left out: they make one file read others.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,nut,mxf,gif,apng,ivf,dv,rm,"
    "yuv4mpegpipe,h264,hevc,av1,obu,m4v,vob,wtv,webp_pipe,wav,mp3,aac,ac3,flac,aiff,caf"
)
MAX_PIXELS = 1 << 26  # of an image (8192 x 8192): a header of a few bytes can claim any size

MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@contextmanager
def open_media(path: Path, patient: bool = False) -> Iterator[Any]:
    """An open input container; what FFmpeg cannot read becomes an `InputError` that says why.

    `patient`: look at the whole file, if need be, for what its streams are; not only at its first five seconds.
    """
    _check_readable(path)
    looked = {"probesize": str(1 << 40), "analyzeduration": str(1 << 50)} if patient else {}
    try:
        # An absolute path cannot be taken for a protocol ("concat:a|b").
        container = av.open(
            str(path.absolute()),
            options={"max_pixels": str(MAX_PIXELS)},
            container_options={"format_whitelist": FORMATS, "fflags": "+genpts", **looked},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        yield container
    finally:
        container.close()


def check_head(path: Path) -> None:
    """Raise `InputError` unless the beginning of a file, at `path`, may be that of a video."""
    with path.open("rb") as file:
        if file.read(8)[4:] in MP4_BOXES:  # its index may come last
            return
    try:
        with open_media(path) as container:
            main_video(container, path)
    except InputError as error:
        raise InputError("standard input does not begin as a video does", error.hint) from error


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist", "check the path")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file", "give a video file, or pipe it in as `-`")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", "the copy or recording that made it failed; make it again")


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(f"{path} may not be read (permission denied)", "change its permissions or run as its owner")
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in MP4_BOXES:
        return InputError(
            f"{path} is a cut-off or damaged MP4: its index (moov) is missing",
            "the recording or copy ended early; copy it again, or repair it with a tool such as untrunc",
        )
    return InputError(
        f"{path} is not a video that can be read", "check that it plays; a text or archive file will not do"
    )


def main_video(container: Any, path: Path, track: int | None = None, index: int | None = None) -> Any:
    """The video stream that is meant, with frame and slice threads on.

    That of number `track` among the videos as the file has them, or with the stream number `index`; else the one that
    is shown (see `video_streams`).
    """
    streams = video_streams(container)
    if track is not None and streams:
        if track >= len(streams):
            many = f"{len(streams)} video" + ("s" if len(streams) != 1 else "")
            raise UsageError(f"there is no video {track}: {path} has {many}", "--video-track counts from 0")
        streams = sorted(streams, key=lambda stream: int(stream.index))[track:]
    elif index is not None:
        streams = [stream for stream in streams if stream.index == index]
    for stream in streams[:1]:
        if stream.codec_context is None:
            raise InputError(f"{path}: there is no decoder for its video", "convert it to H.264 first")
        check_size(stream.codec_context, path)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.thread_type = "AUTO"
        return stream
    kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
    what = "only sound" if kinds == ["audio"] else "no video stream"
    raise InputError(f"{path} holds {what}", "give a file with a picture")


def video_streams(container: Any) -> list[Any]:
    """The video streams but cover images, first that which is shown: marked so, then large, then of many frames.

    A preview may come before the video it is of, an animated AVIF begins with a still.
    """

    def rank(stream: Any) -> tuple[bool, int, int, int]:
        context, marked = stream.codec_context, stream.disposition & av.stream.Disposition.default
        pixels = context.width * context.height if context is not None else 0
        return (not marked, -pixels, -stream.frames, stream.index)

    return sorted((stream for stream in container.streams.video if not is_cover(stream)), key=rank)


def check_size(context: Any, path: Path) -> None:
    """Raise `InputError` for images too large to hold."""
    if context.width * context.height > MAX_PIXELS:
        raise InputError(
            f"{path} says that its pictures have {context.width}x{context.height} pixels, more than can be edited",
            "scale it to at most 8192x8192; if it is not that large, its header is damaged",
        )


def begins_late(container: Any) -> bool:
    """Whether what is known of some sound is not enough to copy it: it was not met where FFmpeg looked."""
    return any(
        stream.codec_context is not None and not (stream.rate and stream.channels) for stream in container.streams.audio
    )


def is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def packets(container: Any, streams: Any, path: Path) -> Iterator[Any]:
    """Demux `streams`; a broken container ends in an `InputError` that says where."""
    seconds = 0.0
    try:
        for packet in container.demux(streams):
            if packet.pts is not None:
                seconds = float(packet.pts * packet.time_base)
            yield packet
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} is damaged near {seconds:.2f} s ({error.__class__.__name__})", "copy it again or re-encode it"
        ) from error


def decoded(stream_packets: Iterable[Any], decoder: Any = None) -> Iterator[Any]:
    """Every frame of the packets, the decoder's tail included; packets that do not decode are passed over."""
    for packet in stream_packets:
        if not packet.size and packet.dts is not None:
            continue  # AVI's way to show the image before once more; to a decoder it would be the end
        try:
            yield from decoder.decode(packet if packet.size else None) if decoder else packet.decode()
        except (av.FFmpegError, MemoryError):
            continue  # one bad packet; the gap shows in the timestamps and is filled by the reader


def decoder_of(stream: Any) -> Any:
    """A decoder of its own where the stream's would lose something; None: the stream's own will do.

    WebM keeps transparency in a second image beside the first, which only libvpx decodes.
    """
    decoder = ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name)
    if decoder is None or stream.metadata.get("alpha_mode") != "1":
        return None
    context = av.CodecContext.create(decoder, "r")
    context.extradata = stream.codec_context.extradata
    return context
