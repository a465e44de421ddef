"""What an output says beside its pixels: closed captions, the part that matters (AFD), stereo 3D; or that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av

from sg3cli.video.captions import caption_message
from sg3cli.video.info import VideoInfo
from sg3cli.video.picture_messages import Message, can_carry, with_messages
from sg3cli.video.presentation import active_format_message, packing_message
from sg3cli.video.reader import Frame


class FrameMessages:
    """The messages of the frames that are inside an encoder. `notice` is told what cannot be said.

    `size` (width, height) is the output's: what is about the picture's layout holds for the source's alone.
    """

    def __init__(self, source: VideoInfo, size: tuple[int, int], encoder: str, notice: Callable[[str], object]) -> None:
        self._encoder, self._notice = encoder, notice
        self._hevc = "264" not in encoder
        self._able = can_carry(encoder)
        self._as_stored = size == (source.width, source.height) and not any(source.orientation)
        self._waiting: dict[int, list[Message]] = {}  # pts -> what its frame says
        self._packing = self._packing_of(source)

    def _packing_of(self, source: VideoInfo) -> Message | None:
        """How the images of two eyes are arranged."""
        if source.projection:
            self._notice(f"the source is spherical ({source.projection}); the output does not say so and is shown flat")
        if not source.stereo:
            return None
        message = packing_message(source.stereo, self._hevc) if self._able and self._as_stored else None
        if message is None:
            self._notice(f"that the source is stereo 3D ({source.stereo}) is left out; {self._why_not}")
        return message

    @property
    def _why_not(self) -> str:
        if not self._as_stored:
            return "the output's picture is laid out otherwise"
        return "there is no message for it" if self._able else f"{self._encoder} cannot carry it"

    def take(self, frame: Frame, pts: int) -> None:
        """Keep what the frame, in the output at `pts`, says."""
        messages = self._waiting[pts] = []
        if frame.captions and self._able:
            messages.append(caption_message(frame.captions))
        elif frame.captions:
            self._notice(f"the source's closed captions are left out; {self._encoder} cannot carry them")
        if frame.active_format is None:
            return
        if self._able and self._as_stored:
            messages.append(active_format_message(frame.active_format))
        else:
            self._notice(f"the source's active format (AFD) is left out; {self._why_not}")

    def spoken(self, packet: Any) -> Any:
        """The packet of an encoder, with what its frame says."""
        messages = self._waiting.pop(packet.pts, [])
        if self._packing is not None:  # in each, because not every decoder remembers it
            messages.append(self._packing)
        if not messages:
            return packet
        made = av.Packet(with_messages(bytes(packet), messages, self._hevc))
        made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
        made.time_base, made.is_keyframe = packet.time_base, packet.is_keyframe
        return made
