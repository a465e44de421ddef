"""StyleGAN3 generator, configurations T and R, any resolution, official parameter and buffer names."""

from __future__ import annotations

from torch import Tensor, nn

from sg3cli.nets.generator_config import GeneratorConfig, LayerSpec
from sg3cli.nets.mapping import Mapping
from sg3cli.nets.synthesis import Synthesis

__all__ = ["Generator", "GeneratorConfig", "LayerSpec", "Mapping", "Synthesis"]


class Generator(nn.Module):
    """`mapping` (z to codes) and `synthesis` (codes to images)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.synthesis = Synthesis(config)  # first: the official parameter order
        self.mapping = Mapping(config)

    @property
    def num_ws(self) -> int:
        return self.config.num_ws

    @property
    def w_dim(self) -> int:
        return self.config.w_dim

    @property
    def img_resolution(self) -> int:
        return self.config.img_resolution

    @property
    def layer_names(self) -> tuple[str, ...]:
        return self.synthesis.layer_names

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        transform: Tensor | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """z [N, z_dim] -> images [N, 3, R, R]; see `Mapping.forward` and `Synthesis.forward`."""
        ws = self.mapping(z, c, psi=psi, cutoff=cutoff, update_emas=update_emas)
        y: Tensor = self.synthesis(ws, transform=transform, update_emas=update_emas)
        return y
