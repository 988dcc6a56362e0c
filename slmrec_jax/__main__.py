"""The command-line program, which sets JAX's environment variables before JAX is imported."""

import sys

from slmrec_jax.program_cache import set_environment


def main() -> int:
    """Run `slmrec-jax`, with compiled programs cached in the user's cache folder."""
    set_environment()
    from slmrec_jax.commands.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
