"""The command group `sg3 train`."""

from __future__ import annotations

import typer

app = typer.Typer(help="Train models on your own data.", rich_markup_mode=None)
