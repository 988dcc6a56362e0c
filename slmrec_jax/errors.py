"""The one exception that speaks to the person at the command, and text from strangers made safe to show."""

import unicodedata


class UserError(Exception):
    """A mistake of the user's, or of a file they were given.

    Its text is one line: what was found, where, and how to fix it. The command prints that line and exits with
    status 1; everything else that is raised is a fault of this package and keeps its traceback.
    """


class Diverged(UserError):
    """Training led to NaN or infinity: a search of settings passes over it, a single run stops."""


def escaped(text: object) -> str:
    r"""Return text from a file or an argument as a terminal may show it.

    What a terminal would obey, or the eye would not see, stands as Python writes it: `\x1b` for an escape, `\n` for
    the end of a line, `\u202e` for what turns the writing direction. Letters of all scripts, and spaces, stay.
    """
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )
