"""Official files to a bundle, once: read safely, written as safetensors, read back and compared, and rendered from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from sg3cli import __version__
from sg3cli.errors import ModelError, UsageError
from sg3cli.files import write_arrays, write_json
from sg3cli.nets.checkpoint import load_encoder_file, load_generator_file, save_encoder, save_generator
from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.weights import store
from sg3cli.weights.bundle import noted_parts
from sg3cli.weights.direction_file import load_direction
from sg3cli.weights.import_networks import EncoderPart, GeneratorPart, read_official

SEED, PSI = 0, 0.7  # of the image that the self-check renders
AVERAGE_TOLERANCE = 1e-3
MOST_LEVELS = 3.0  # mean difference of a picture that another program drew with the same weights and settings

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Reference:
    """A picture `[N, N, 3]` uint8 that another program drew with the generator, of the seed and truncation."""

    picture: np.ndarray
    seed: int = 0
    psi: float = 1.0


@dataclass(frozen=True)
class Sources:
    """The files a bundle is made of; without an `encoder` the one in `generator`'s file is taken, if there is one."""

    generator: Path
    encoder: Path | None = None
    directions: tuple[Path, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)  # settings that the generator's file does not state
    reference: Reference | None = None

    def describe(self) -> dict[str, Any]:
        """Name, size and sha256 of each."""
        described: dict[str, Any] = {"generator": _described(self.generator)}
        if self.encoder is not None:
            described["encoder"] = _described(self.encoder)
        told = {"config": dict(self.config)} if self.config else {}
        return {**described, "directions": [_described(path) for path in self.directions], **told}


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"there is no file {path}", "give the path of the downloaded file")
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": store.sha256_of(path)}


def import_bundle(name: str, sources: Sources, origin: str, licence: str) -> tuple[dict[str, Any], bool]:
    """Make the bundle `name` in the store: (its model.json, whether anything had to be done).

    `origin` and `licence` are noted in it. The same files again are no work. Raises `ModelError` when a file is not
    usable or the parts do not belong together, `UsageError` when `name` stands for something else already.
    """
    if store.NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} cannot be a model's name", "letters, digits, dots, dashes: --name NAME")
    described = sources.describe()
    with store.new_bundle(name) as folder:
        meta = _existing(name, described)
        if meta is not None:
            return meta, False
        official = read_official(sources.generator, sources.config)
        if official.generator is None:
            hint = f"give a generator, and this one with --encoder {sources.generator}"
            raise ModelError(f"{sources.generator} holds an encoder and no generator", hint)
        encoder = official.encoder
        if sources.encoder is not None:
            encoder = read_official(sources.encoder).encoder
            if encoder is None:
                raise ModelError(f"{sources.encoder} holds no encoder", "give a ReStyle checkpoint (.pt)")
        notices = [*official.generator.notices, *_belonging(official.generator, encoder)]
        meta = {"schema": 1, "name": name, "resolution": official.generator.config.img_resolution}
        meta |= {"licence": licence, "source": origin, "tool": __version__, "made_from": described}
        meta["generator"] = {"origin": official.generator.origin, "config": official.generator.config.to_dict()}
        _write_generator(folder, official.generator)
        if encoder is not None:
            _write_encoder(folder, encoder)
            meta["encoder"] = {"config": encoder.config.to_dict(), "options": encoder.options}
        _write_directions(folder, sources.directions, official.generator)
        meta["self_check"] = self_check(folder, official.generator, encoder)
        if sources.reference is not None:
            meta["self_check"]["reference"] = compared(folder, sources.reference)
        meta["parts"] = noted_parts(folder)
        write_json(folder / store.BUNDLE, {**meta, "notices": notices})
    return {**meta, "notices": notices}, True


def _existing(name: str, described: dict[str, Any]) -> dict[str, Any] | None:
    """The model.json of the same import made before; None when there is none or one of the same generator's."""
    if not store.has_bundle(name):
        return None
    try:
        meta = json.loads((store.bundle_folder(name) / store.BUNDLE).read_text(encoding="utf8"))
        before, now = _digests(meta["made_from"]), _digests(described)
    except (OSError, ValueError, KeyError, TypeError):
        before, now = {}, _digests(described)
    if before == now:
        store.verify(name)
        return meta
    if (before.get("generator"), before.get("config")) != (now["generator"], now["config"]):
        raise UsageError(
            f"a model called {name!r} is already here, made of another file or with other settings",
            f"sg3 models remove {name}, or choose another --name",
        )
    return None


def _digests(described: dict[str, Any]) -> dict[str, Any]:
    """What the files are, whatever they are called; a direction's name is the model's, so it counts."""
    named = sorted((each["file"], each["sha256"]) for each in described["directions"])
    digests = {part: described[part]["sha256"] for part in ("generator", "encoder") if part in described}
    return digests | {"directions": named, "config": described.get("config", {})}


def _belonging(generator: GeneratorPart, encoder: EncoderPart | None) -> list[str]:
    """Raise when encoder and generator cannot work together; notices when they seem not to belong together."""
    if encoder is None:
        return []
    made, wanted = encoder.config, generator.config
    if (made.num_ws, made.w_dim) != (wanted.num_ws, wanted.w_dim):
        codes = f"{made.num_ws}x{made.w_dim}, the generator takes {wanted.num_ws}x{wanted.w_dim}"
        raise ModelError(f"the encoder gives codes of {codes}", "use the encoder that was trained on this generator")
    average = generator.state["mapping.w_avg"]
    known = None if encoder.latent_avg is None else encoder.latent_avg.reshape(-1)
    if known is not None and known.shape != average.shape:
        raise ModelError(f"the encoder's latent_avg has {known.size} values, not {average.size}", "get the file again")
    if known is not None and np.abs(known - average).max() > AVERAGE_TOLERANCE * max(np.abs(average).max(), 1e-6):
        return [
            "the encoder was trained to start from another mean code than the generator's: do they belong together?"
        ]
    return []


# ---- writing and checking -------------------------------------------------------------------------------------------


def _write_generator(folder: Path, part: GeneratorPart) -> None:
    with torch.device("meta"):
        G = Generator(part.config)
    save_generator(folder / "generator.safetensors", _filled(G, part.state))


def _write_encoder(folder: Path, part: EncoderPart) -> None:
    with torch.device("meta"):
        encoder = Encoder(part.config)
    save_encoder(folder / "encoder.safetensors", _filled(encoder, part.state))


def _filled(net: Net, state: dict[str, np.ndarray]) -> Net:
    net.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()}, assign=True)
    return net.eval().requires_grad_(False)


def _write_directions(folder: Path, paths: Sequence[Path], generator: GeneratorPart) -> None:
    """Each direction under its name, noting the generator it is for."""
    if not paths:
        return
    digest = f"sha256:{store.sha256_of(folder / 'generator.safetensors')}"
    (folder / "directions").mkdir()
    for path in paths:
        direction = load_direction(path)
        direction.check_fits(generator.config, digest)
        if store.NAME.fullmatch(direction.name) is None:
            raise UsageError(f"{direction.name!r} cannot be a direction's name", f"rename {path}")
        target = folder / "directions" / f"{direction.name}.safetensors"
        if target.exists():
            raise UsageError(f"two directions are called {direction.name}", f"rename {path}")
        meta = {"unit": 1.0, **direction.meta, "name": direction.name, "generator": digest, "source": path.name}
        write_arrays(target, {"direction": direction.vector}, meta)


def self_check(folder: Path, generator: GeneratorPart, encoder: EncoderPart | None) -> dict[str, Any]:
    """Compare what was written, bit by bit, with what was read, and render an image from it.

    Raises `ModelError` when a tensor changed on the way or the image has values that are not finite.
    """
    G, _ = load_generator_file(folder / "generator.safetensors")
    _compare(G, generator.state)
    if encoder is not None:
        E, _ = load_encoder_file(folder / "encoder.safetensors")
        _compare(E, encoder.state)
    z = torch.from_numpy(np.random.RandomState(SEED).randn(1, G.config.z_dim)).float()
    label = torch.eye(max(G.config.c_dim, 1))[:1] if G.config.c_dim else None
    with torch.inference_mode():
        image = G(z, label, psi=PSI)
    if not bool(torch.isfinite(image).all()):
        raise ModelError("the generator renders values that are not finite", "its weights are damaged; get it again")
    mean, spread = float(image.mean()), float(image.std())
    return {"seed": SEED, "psi": PSI, "mean": round(mean, 6), "std": round(spread, 6)}


def compared(folder: Path, reference: Reference) -> dict[str, Any]:
    """How far the generator's picture is from the reference, in levels. Raises `ModelError` when it is another one."""
    G, _ = load_generator_file(folder / "generator.safetensors")
    z = torch.from_numpy(np.random.RandomState(reference.seed).randn(1, G.config.z_dim)).float()
    label = torch.eye(max(G.config.c_dim, 1))[:1] if G.config.c_dim else None
    with torch.inference_mode():
        image = G(z, label, psi=reference.psi)[0].permute(1, 2, 0)
    drawn = ((image + 1) * 127.5).clamp(0, 255).round().numpy()
    if drawn.shape != reference.picture.shape:
        sizes = f"{reference.picture.shape[1]}x{reference.picture.shape[0]}, the generator draws {drawn.shape[1]} px"
        raise ModelError(f"the reference picture is {sizes}", "give it as the other program wrote it")
    difference = float(np.abs(drawn - reference.picture).mean())
    if difference > MOST_LEVELS:
        what = (
            f"the generator draws another picture than the reference: they differ by {difference:.1f} levels on average"
        )
        raise ModelError(
            what, "--config lr_multiplier=, output_scale=, conv_clamp=; or another --reference-seed or psi"
        )
    return {"seed": reference.seed, "psi": reference.psi, "levels": round(difference, 3)}


def _compare(net: nn.Module, state: dict[str, np.ndarray]) -> None:
    written = net.state_dict()
    for name, values in state.items():
        if written[name].numpy().tobytes() != values.tobytes():
            raise ModelError(f"{name} changed while it was converted", "report this: it is a bug in sg3")
