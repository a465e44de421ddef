"""stub"""
from sg3cli.cli.flags import Session
def inversion(session: Session) -> None:
    """Stub."""
