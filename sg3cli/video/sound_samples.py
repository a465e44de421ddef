"""The samples of a file's first sound track, where they lie on the clock of its video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from sg3cli.video.container import main_video, open_media, packets

LONGEST = 600.0  # seconds that are read: 20 MB of samples


def sound_samples(path: Path, rate: int = 8000, longest: float = LONGEST) -> np.ndarray | None:
    """Mono samples `[N]` float32 at `rate`, from the first image on, of `longest` seconds at most; None without sound.

    Gaps are silence. Raises `InputError` for a file that cannot be read.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            return None
        video, stream = main_video(container, path), container.streams.audio[0]
        begin = float((video.start_time or 0) * video.time_base)
        placed: list[tuple[int, np.ndarray]] = []
        resampler = av.AudioResampler("fltp", "mono", rate)
        for packet in packets(container, [stream], path):
            for frame in _decoded(packet):
                at = round((float(frame.pts * frame.time_base) - begin) * rate) if frame.pts is not None else None
                if at is not None and at > longest * rate:
                    return _joined(placed, round(longest * rate))
                for piece in resampler.resample(frame):
                    end = placed[-1][0] + len(placed[-1][1]) if placed else 0
                    # what the resampler holds back shifts its pieces by less than a block: follow on, unless a gap is
                    start = end if placed and (at is None or abs(at - end) < rate // 10) else at or 0
                    placed.append((start, piece.to_ndarray()[0].astype(np.float32)))
    return _joined(placed, round(longest * rate))


def _decoded(packet: object) -> list[av.AudioFrame]:
    try:
        return list(packet.decode())  # type: ignore[attr-defined]
    except av.FFmpegError:
        return []  # a damaged packet is silence


def _joined(placed: list[tuple[int, np.ndarray]], most: int) -> np.ndarray:
    length = min(max((start + len(piece) for start, piece in placed), default=0), most)
    samples = np.zeros(max(length, 0), np.float32)
    for start, piece in placed:
        kept = piece[max(-start, 0) : max(length - start, 0)]
        samples[max(start, 0) : max(start, 0) + len(kept)] = kept
    return samples
