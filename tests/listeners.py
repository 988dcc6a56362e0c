"""Callbacks for tests."""


def texts_into(said):
    """Return a callback that collects the texts of messages."""
    return lambda event: said.append(event.text) if event.kind == "message" else None


def on_epoch(act):
    """Return a callback that calls a function with each epoch's event."""
    return lambda event: act(event) if event.kind == "epoch" else None
