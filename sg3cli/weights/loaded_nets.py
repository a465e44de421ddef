"""Networks that are in memory: a stage, and a batch of inputs, reads each model's files once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.nets.encoder import Encoder
    from sg3cli.nets.generator import Generator
    from sg3cli.nets.transfer_net import TransferNet


class LoadedNets:
    """Generator and encoder of the model used last, on the CPU as their files hold them; others are let go."""

    def __init__(self) -> None:
        self._generator: tuple[str, Generator] | None = None
        self._encoder: tuple[str, Encoder] | None = None
        self._transfer: tuple[str | None, TransferNet] | None = None

    def generator(self, bundle: Bundle) -> Generator:
        """A copy of the generator, which may be tuned or moved to a device."""
        if self._generator is None or self._generator[0] != bundle.digest:
            self._generator = (bundle.digest, bundle.generator())
        return copy.deepcopy(self._generator[1])

    def encoder(self, bundle: Bundle) -> Encoder:
        """A copy of the encoder; `ModelError` when the bundle has none."""
        if self._encoder is None or self._encoder[0] != bundle.encoder_digest:
            self._encoder = (bundle.encoder_digest, bundle.encoder())
        return copy.deepcopy(self._encoder[1])

    def transfer(self, bundle: Bundle) -> TransferNet:
        """The network for the transfer of edits, which nobody changes; `ModelError` when the bundle has none."""
        if self._transfer is None or self._transfer[0] != bundle.transfer_digest:
            self._transfer = (bundle.transfer_digest, bundle.transfer())
        return self._transfer[1]
