"""The one exception that speaks to the person at the command."""


class UserError(Exception):
    """A mistake of the user's, or of a file they were given.

    Its text is one line: what was found, where, and how to mend it. The command prints that line and exits with
    status 1; everything else that is raised is a fault of this package and keeps its traceback.
    """


class Diverged(UserError):
    """Training led to NaN or infinity: what a search of settings passes over, and a single run stops at."""
