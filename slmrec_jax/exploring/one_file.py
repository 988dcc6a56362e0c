"""The page as a single file that contains the answers for a sample of users and items, to mail or present."""

from collections import Counter
from pathlib import Path

import numpy as np

from slmrec_jax.durable import whole_file, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.exploring.answers import Answer, about, answer_bytes, points, similar, user
from slmrec_jax.exploring.explored import Explored
from slmrec_jax.exploring.page import page_with

NUM_USERS, NUM_ITEMS = 60, 300
"""The numbers of users and items in the file, which keep it to a few megabytes."""


def check_file_is_new(file: Path) -> None:
    """Reject a file whose name does not end in .html, or that exists."""
    if file.suffix != ".html":
        raise UserError(f"{setting('explore', str(file))}: give a name that ends in .html")
    if file.exists() or file.is_symlink():
        raise UserError(f"{file} already exists: give another {setting('explore')}, or remove it")


def write_page(explored: Explored, file: Path) -> None:
    """Write the page. It contains the paths of pictures, not the pictures themselves.

    Raises:
        UserError: The file exists already or cannot be written.
    """
    check_file_is_new(file)
    text = page_with(answer_bytes(held_answers(explored._replace(pictures=None))).decode())
    with writing(file, f"give another {setting('explore')}"), whole_file(file) as part:
        part.write(text.encode())


def held_answers(explored: Explored) -> Answer:
    """Return the answers by request, for a fixed sample of users and the items that they see most often."""
    drawn = np.random.default_rng(0).permutation(len(explored.users.ids))[:NUM_USERS]
    users = {row: user(explored, {"row": str(row)}) for row in np.sort(drawn).tolist()}
    seen = Counter(
        item["row"] for found in users.values() for listed in (found["history"], *found["runs"]) for item in listed
    )
    rows = [*(row for row, _ in seen.most_common(NUM_ITEMS)), *range(len(explored.items.ids))]
    items = {row: similar(explored, {"row": str(row)}) for row in list(dict.fromkeys(rows))[:NUM_ITEMS]}
    return {
        "about?": about(explored, {}),
        **{f"user?row={row}": found for row, found in users.items()},
        **{f"similar?row={row}": found for row, found in items.items()},
        **{f"map?run={run}": points(explored, {"run": str(run)}) for run in range(len(explored.runs))},
        "users": [{"row": row, "id": found["id"]} for row, found in users.items()],
        "items": [{name: value for name, value in found.items() if name != "tables"} for found in items.values()],
    }
