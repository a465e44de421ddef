"""Text edits of a model: its table of style effects, made here or imported, and directions of S made from a text.

With the text model that comes with a generator an edit is composed of what the model can do (`latents.text_moves`,
`text_solve`); with CLIP, or where `beta` is given, of the styles that agree with the text, as StyleCLIP has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sg3cli.console import Console
from sg3cli.errors import ModelError
from sg3cli.files import Chunks, digest_of, in_chunks, read_arrays, write_arrays
from sg3cli.latents.codes import Codes, joined
from sg3cli.latents.embedded_text import EmbeddedModel
from sg3cli.latents.moves import ShiftS
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import Statistics, statistics
from sg3cli.latents.style_effects import STEP, layer_effects
from sg3cli.latents.text_directions import BETA, NEUTRAL, chosen_channels, style_direction, text_direction
from sg3cli.latents.text_model import DEFAULT, TextModel
from sg3cli.latents.text_moves import known_moves, move_effects
from sg3cli.latents.text_solve import solve_moves
from sg3cli.latents.text_strength import Strength, fit_of, strength_for
from sg3cli.nets.generator import Generator
from sg3cli.project import content_key
from sg3cli.weights.bundle import EMBEDDED, STYLE_STATISTICS, Bundle
from sg3cli.weights.direction_file import Direction, load_direction
from sg3cli.weights.direction_tools import write_direction
from sg3cli.weights.import_arrays import read_channel_table, read_style_statistics
from sg3cli.weights.kept import kept_by_labels, said

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

VARIETY = 0.8  # truncation of these faces
TRUNCATION = 0.5  # of the faces and of the statistics, as StyleCLIP's
LOOKED_AT = 6  # frames of a person
MOVES = "moves-embedded.safetensors"  # of a bundle
FACES = 16  # on which they are drawn; of the embedded model 96 were
MOST_TOLD = 5
SAVED = 64  # styles between two saves, or fewer if they take long


@dataclass(frozen=True)
class EffectsConfig:
    """How the table is made."""

    samples: int = 100  # faces that each style is moved on
    step: float = STEP  # deviations to each side
    batch: int = 16  # images at once


def effects_path(bundle: Bundle, text_model: str) -> Path:
    """Where the model's table for a text model lies, or would lie."""
    return bundle.companion(f"effects-{text_model.replace(':', '-')}.safetensors")


def style_statistics(bundle: Bundle, G: Generator) -> Statistics:
    """Imported statistics of the styles, else those of the model's own faces at `TRUNCATION`."""
    path = bundle.companion(STYLE_STATISTICS)
    if path.is_file():
        arrays, _ = read_arrays(path)
        return Statistics(arrays["mean"], arrays["std"], None, 0)
    return statistics(G, "s", psi=TRUNCATION)


def precompute(
    bundle: Bundle, model: TextModel, config: EffectsConfig, console: Console, device: torch.device
) -> tuple[Path, bool]:
    """Make the table of every style's effect; continues where a killed run ended. (Its path, whether it was made.)"""
    path = effects_path(bundle, model.name)
    facts = {"generator": bundle.digest, "text_model": model.name, "samples": config.samples, "step": config.step}
    if path.is_file() and read_arrays(path)[1].get("made") == facts:
        return path, False
    G = bundle.generator().to(device)
    known = style_statistics(bundle, G)
    chunks = Chunks(path.with_suffix(".parts"), content_key(**facts, std=known.std.round(6).tolist()))
    ws = Sampler(G, GenerateConfig(truncation=TRUNCATION)).codes(range(config.samples))
    rows = _effects(G, ws, known, model, config, chunks.rows)
    for some in in_chunks(console.progress(rows, len(known.std), "effects", chunks.rows), SAVED):
        chunks.append({"effects": np.stack(some)}, len(some))
    table = np.concatenate([chunk["effects"] for chunk in chunks])
    write_effects(path, table, known.std, {**facts, "made": facts})
    chunks.clear()
    return path, True


def _effects(
    G: Generator, ws: np.ndarray, known: Statistics, model: TextModel, config: EffectsConfig, done: int
) -> Iterator[np.ndarray]:
    """The effects of all styles from number `done` on, layer after layer."""
    for layer, size in enumerate(G.config.style_sizes.values(), start=-1):
        if done < size:
            yield from layer_effects(G, ws, layer, known, model, config.batch, config.step, max(done, 0))
        done -= size


def moves_path(bundle: Bundle) -> Path:
    """Where the table of what the model can do lies, or would lie: the shipped one while it is of these directions."""
    own = bundle.path / MOVES
    if own.is_file() and read_arrays(own)[1].get("made") == moves_facts(bundle):
        return own
    return bundle.kept(MOVES) if bundle.path.is_relative_to(EMBEDDED) else own


def moves_facts(bundle: Bundle) -> dict[str, object]:
    """What that table depends on."""
    parts = {"generator": bundle.origin.digest, "directions": bundle.directions_digest}
    flow = digest_of(bundle.flow_path()) if bundle.has_flow else None
    return {**parts, "text_model": digest_of(bundle.text_path()), "flow": flow}


def ensure_moves(
    bundle: Bundle,
    model: EmbeddedModel,
    console: Console,
    device: torch.device,
    out: Path | None = None,
    faces: int = FACES,
) -> tuple[Path, bool]:
    """Draw and look at what the model can do, once; continues where a killed run ended. (Path, whether it was made.)"""
    path, facts = out or moves_path(bundle), moves_facts(bundle)
    if path.is_file() and read_arrays(path)[1].get("made") == facts:
        return path, False
    console.notice(f"text: looking at what {bundle.name} can do to a face, once")
    G = bundle.origin.generator().to(device)
    people = bundle.flow() if bundle.has_flow else None
    moves = known_moves(G, bundle.directions, people)
    table = np.stack(list(moves.values()))
    chunks = Chunks(path.with_suffix(".parts"), content_key(**facts, faces=faces))
    if people is None:
        ws = Sampler(G, GenerateConfig(truncation=VARIETY)).codes(range(faces))
    else:
        ws = people.strangers(faces, G.mapping.w_avg, VARIETY).numpy()
    rows = move_effects(G, ws, table[chunks.rows :], model)
    for some in in_chunks(console.progress(rows, len(table), "moves", chunks.rows), 4):
        chunks.append({"effects": np.stack(some)}, len(some))
    effects = np.concatenate([chunk["effects"] for chunk in chunks])
    meta = {"names": list(moves), "made": facts, "faces": faces}
    write_arrays(path, {"moves": table.astype(np.float16), "effects": effects.astype(np.float32)}, meta)
    chunks.clear()
    return path, True


def write_effects(path: Path, table: np.ndarray, std: np.ndarray, meta: Mapping[str, object]) -> None:
    """`effects [channels, D]` as float16, and the deviations that its strengths count in."""
    write_arrays(path, {"effects": table.astype(np.float16), "std": std.astype(np.float32)}, meta)


def read_effects(bundle: Bundle, text_model: str) -> tuple[np.ndarray, np.ndarray]:
    """(effects `[channels, D]` of length 1, std `[channels]`). Raises `ModelError` when there is no such table."""
    path = effects_path(bundle, text_model)
    if not path.is_file():
        hint = f"sg3 directions precompute-clip --model {bundle.name}, or import StyleCLIP's delta_i_c.npy"
        raise ModelError(f"model {bundle.name} has no table of styles for {text_model}", hint)
    arrays, _ = read_arrays(path)
    return unit(arrays["effects"].astype(np.float32)), arrays["std"]


def unit(table: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of nothing but 0 stay."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return np.divide(table, lengths, out=np.zeros_like(table), where=lengths > 1e-6)


def make_text_direction(
    bundle: Bundle, model: TextModel, text: str, name: str, neutral: str = NEUTRAL, beta: float | None = None
) -> Direction:
    """The direction of S that a text means.

    Strength 1 is StyleCLIP's alpha of 1; with an embedded model and no `beta`, the change by which people differ in
    what the text says.
    """
    known: dict[str, object] = {
        "space": "s", "aim": f"towards {text!r}, from {neutral!r}", "text": text, "neutral": neutral,
        "text_model": model.name, "leak": None,
    }  # fmt: skip
    if isinstance(model, EmbeddedModel):
        named = model.check(text)
        known |= said(kept_by_labels(named))
        if beta is None:
            vector, more = solved(bundle, model, text, text_direction(model, text, neutral), named)
            return Direction(name, vector[None], bundle.origin.digest, known | more)
    beta = BETA if beta is None else beta
    effects, std = read_effects(bundle, model.name)
    vector = style_direction(effects, text_direction(model, text, neutral), std, beta)
    known |= {"beta": beta, "unit": "one standard deviation of the style that agrees most",
              "made": f"StyleCLIP: {np.count_nonzero(vector)} styles ({most_moved(bundle, vector)})"}  # fmt: skip
    return Direction(name, vector[None], bundle.origin.digest, known)


def solved(
    bundle: Bundle, model: EmbeddedModel, text: str, direction: np.ndarray, named: Sequence[str]
) -> tuple[np.ndarray, dict[str, object]]:
    """(styles `[channels]`, what the direction's file says of them) for a text, its direction `[D]` and its labels.

    Raises `ModelError` where nobody has looked at what the model can do.
    """
    path = moves_path(bundle)
    if not path.is_file():
        hint = f"sg3 directions text --model {bundle.name}, or --text in an edit, makes it"
        raise ModelError(f"model {bundle.name} has no table of moves for its text model", hint)
    arrays, meta = read_arrays(path)
    shares = solve_moves(arrays["effects"], model.readings(text, direction, named))
    most = np.argsort(-np.abs(shares))[:MOST_TOLD]
    parts = ", ".join(f"{meta['names'][k]} {shares[k]:+.2f}" for k in most)
    vector = (shares @ arrays["moves"].astype(np.float64)).astype(np.float32)
    held = [list(model.net.config.axes)[k] for k in model.held(named)]
    of_name = dict(zip(meta["names"], shares.tolist(), strict=True))
    skin = sum(of_name.get(name, 0.0) * direction.skin for name, direction in bundle.directions.items())
    made = f"for {', '.join(named)}: {parts}; held: {', '.join(held) or 'nothing'}"
    unit = "the change by which people differ in it"
    return vector, {"unit": unit, "made": made, "named": list(named), "skin": round(skin, 4)}


def most_moved(bundle: Bundle, vector: np.ndarray) -> str:
    """The layers whose styles move most."""
    sizes = bundle.config.style_sizes
    names = [layer.partition("_")[0] for layer, size in sizes.items() for _ in range(size)]
    return ", ".join(chosen_channels(vector, names))


def text_edit(project: Path, bundle: Bundle, model: TextModel, text: str, neutral: str, beta: float | None) -> Path:
    """The file of a text's direction inside the project, made unless it is there."""
    said = {"text": text, "neutral": neutral, "beta": beta, "model": model.name, "generator": bundle.digest}
    solved_for = isinstance(model, EmbeddedModel) and beta is None
    source = moves_path(bundle) if solved_for else effects_path(bundle, model.name)
    table = digest_of(source) if source.is_file() else ""
    path = project / "edits" / f"{file_name(text)}-{content_key(**said, table=table)[:8]}.safetensors"
    if not path.is_file():
        write_direction(path, make_text_direction(bundle, model, text, file_name(text), neutral, beta))
    return path


def alpha_for(job: Job, model: TextModel, text: str, direction: str, share: float) -> Strength:
    """How strong a text's direction (a file) has to be, so that the project's faces fit the text better by `share`.

    Looks at drawings of frames spread over the clip by the model's own generator; inverts first if that is not done.
    """
    job.invert()
    bundle = job.bundle()
    G = job.nets.generator(bundle)
    project, some = job.project, []
    for face in range(len(project.faces)):
        codes = project.codes(face)
        places = np.unique(np.linspace(0, len(codes) - 1, LOOKED_AT).round().astype(int))
        some.append(Codes(codes.take(places)))
    chosen = joined(some)
    vector = load_direction(Path(direction)).vector[0]
    row = model.texts([text])[0]

    def fit(alpha: float) -> float:
        moved = ShiftS(vector)(chosen, np.full(len(chosen), alpha, np.float32))
        with torch.inference_mode():
            return fit_of(model.images(draw(G, moved).clamp(-1, 1)), row)

    return strength_for(fit, share)


def file_name(text: str) -> str:
    """`a-smiling-old-man` of a text."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return "-".join(words)[:60].strip("-") or "text"


# ---- the official files --------------------------------------------------------------------------------------------


def import_statistics(bundle: Bundle, source: Path) -> Path:
    """StyleCLIP's `s_stats`: from now on strengths of styles count in its deviations."""
    found, sizes = read_style_statistics(source), bundle.config.style_sizes
    for name, size in sizes.items():
        if name not in found.mean or found.mean[name].size != size:
            has = "none" if name not in found.mean else f"{found.mean[name].size} values"
            what = f"{source} does not fit {bundle.name}: of layer {name} it has {has}, not {size}"
            raise ModelError(what, "use the statistics of this very generator")
    mean, std = (np.concatenate([part[name] for name in sizes]) for part in (found.mean, found.std))
    path = bundle.companion(STYLE_STATISTICS)
    write_arrays(path, {"mean": mean, "std": std}, {"generator": bundle.digest, "source": source.name})
    return path


def import_effects(bundle: Bundle, source: Path, text_model: str = DEFAULT) -> tuple[Path, list[str]]:
    """StyleCLIP's `delta_i_c.npy`: (where it lies now, what is odd about it)."""
    table, channels = read_channel_table(source), sum(bundle.config.style_sizes.values())
    if len(table) != channels:
        what = f"{source} has {len(table)} rows, {bundle.name} has {channels} styles"
        raise ModelError(what, "use the table of this very generator")
    if not np.isfinite(table).all():
        raise ModelError(f"{source} has values that are not finite", "get the file again")
    lengths = np.linalg.norm(table, axis=1)
    odd = int(np.count_nonzero(np.abs(lengths - 1) > 1e-2))
    notices = [f"{odd} of {channels} rows were not of length 1 and were scaled"] if odd else []
    statistics_path = bundle.companion(STYLE_STATISTICS)
    if not statistics_path.is_file():
        notices.append("no s_stats was imported: strengths count in deviations of the model's own faces")
    std = style_statistics(bundle, bundle.generator()).std
    path = effects_path(bundle, text_model)
    meta = {"generator": bundle.digest, "text_model": text_model, "source": source.name}
    write_effects(path, unit(table), std, meta)
    return path, notices
