"""The command as a program: sets what JAX reads from the environment before JAX is imported."""

import sys

from slmrec_jax.program_cache import set_environment


def main() -> int:
    """Run `slmrec-jax`, with compiled programs kept in the user's cache folder."""
    set_environment()
    from slmrec_jax.commands.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
