"""`sg3 train score`: the score card of a model on people that no training saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli.flags import Session
from sg3cli.errors import InputError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from sg3cli.weights.bundle import Bundle


Model = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="The model to score.")]
Data = Annotated[Path, typer.Option("--data", metavar="DATA", help="A training set; its last people are held out.")]
AttributeNetOf = Annotated[
    str | None,
    typer.Option(
        "--judge", metavar="NAME|FOLDER|FILE", help="Whose attribute net reads the pictures [the model's own]."
    ),
]
HeldOut = Annotated[
    int | None, typer.Option("--held-out", min=2, help="People at the end of DATA that were not trained on [250].")
]
Faces = Annotated[int, typer.Option("--faces", min=2, help="Pictures that are edited; twice as many are inverted.")]
Drawn = Annotated[int, typer.Option("--drawn", min=8, help="Pictures of each side of a Frechet distance.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Where the card goes [stdout].")]
Image = Annotated[Path | None, typer.Option("--picture", metavar="FILE.png", help="The card as a picture, too.")]


def score(
    session: Session,
    model: Model,
    data: Data,
    attribute_net: AttributeNetOf = None,
    held_out: HeldOut = None,
    faces: Faces = 64,
    drawn: Drawn = 512,
    out: Out = None,
    image: Image = None,
) -> None:
    """Frechet distances, inversion, directions with their leaks, equivariance; compare two models by one net."""
    import json

    from sg3cli.drawing.images import write_png
    from sg3cli.drawing.score_card import draw
    from sg3cli.files import write_json
    from sg3cli.nets.attribute_net import load_attribute_net
    from sg3cli.training.data.synthface import load_test
    from sg3cli.training.people128.score_card import score_card
    from sg3cli.weights.bundle import load_model

    bundle = load_model(model)
    reader = load_attribute_net(_attribute_net_file(attribute_net, bundle))
    directions, labels = _directions(bundle, reader.config.labels, session)
    G = bundle.generator()
    test = load_test(data, held_out)
    if (size := test.images.shape[1]) != G.img_resolution:
        raise InputError(f"{data} has pictures of {size} px, {model} draws {G.img_resolution}", "give its own data")
    card = score_card(G, bundle.encoder(), directions, labels, reader, test, faces, drawn)
    card = {"model": bundle.name, "people": len(set(test.identity.tolist())), "pictures": len(test), **card}
    if out is not None:
        write_json(out, card)
    if image is not None:
        write_png(image, draw(card))
    session.console.data(str(out) if out is not None else json.dumps(card, indent=1))
    session.console.result("train score", **card)


def _attribute_net_file(given: str | None, bundle: Bundle) -> Path:
    from sg3cli.weights.bundle import ATTRIBUTE_NET, load_model

    if given is not None and Path(given).is_file():
        return Path(given)
    path = (bundle if given is None else load_model(given)).path / ATTRIBUTE_NET
    if not path.is_file():
        raise ModelError(f"there is no judge {path}", "`sg3 train bundle` makes one; name it with --judge")
    return path


def _directions(
    bundle: Bundle, readable: tuple[str, ...], session: Session
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Vectors and the labels that they mean; what has no label that the net reads is named and left out."""
    import torch

    from sg3cli.training.people128.label_directions import SPECS
    from sg3cli.weights.direction_file import load_direction

    known = [n for n in bundle.direction_names() if n in SPECS and SPECS[n].label in readable]
    if other := [n for n in bundle.direction_names() if n not in known]:
        session.console.notice(f"no label says what {', '.join(other)} should do: left out")
    vectors = {n: torch.from_numpy(load_direction(bundle.direction_path(n)).vector).float() for n in known}
    return vectors, {n: SPECS[n].label for n in known}
