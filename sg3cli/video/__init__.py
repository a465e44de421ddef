"""Frames and packets in and out. Nothing outside this package imports PyAV.

A frame is identified by its presentation timestamp (pts), never by `index / fps`: what is read is written back with
the same count, the same pts and the same duration, and the sound's packets are copied untouched.
"""

from sg3cli.video.probe import AudioInfo, SubtitleInfo, VideoInfo, drawn, frame_pts, packet_digest, probe
from sg3cli.video.reader import Frame, VideoReader, spool
from sg3cli.video.segments import Cut, SegmentedWriter
from sg3cli.video.writer import VideoWriter

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
    "probe",
    "spool",
]
