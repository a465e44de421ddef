"""Frames and packets in and out. Nothing outside this package imports PyAV.

A frame is identified by its presentation timestamp (pts), never by `index / fps`: what is read is written back with
the same count, the same pts and the same duration, and the sound's packets are copied untouched.

The names below are imported when they are first used: colours and image sequences need no PyAV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sg3cli.video.info import AudioInfo, SubtitleInfo, VideoInfo
    from sg3cli.video.probe import drawn, frame_pts, packet_digest
    from sg3cli.video.reader import Frame, VideoReader, spool
    from sg3cli.video.segments import Cut, SegmentedWriter, write_chunk
    from sg3cli.video.writer import VideoWriter

HOMES = {
    "info": ("AudioInfo", "SubtitleInfo", "VideoInfo"),
    "probe": ("drawn", "frame_pts", "packet_digest"),
    "reader": ("Frame", "VideoReader", "spool"),
    "segments": ("Cut", "SegmentedWriter", "write_chunk"),
    "writer": ("VideoWriter",),
}

__all__ = [
    "AudioInfo",
    "Cut",
    "Frame",
    "SegmentedWriter",
    "SubtitleInfo",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "drawn",
    "frame_pts",
    "packet_digest",
    "spool",
    "write_chunk",
]


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
