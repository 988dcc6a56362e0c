"""Beartype for jaxtyping's import hook, which decorates a nested function again whenever the outer one runs."""

from beartype import beartype

_CHECKS = {}


def checked(function):
    """Return Beartype's check of a function, or the one of an equal signature.

    jaxtyping gives it functions without a body, so that only their signature counts.
    """
    code = function.__code__
    signature = (
        *(function.__module__, function.__qualname__),
        *(code.co_varnames, code.co_posonlyargcount, code.co_argcount, code.co_kwonlyargcount, code.co_flags),
        *(function.__defaults__, *(function.__kwdefaults__ or {}).items(), *function.__annotations__.items()),
    )
    try:
        hash(signature)
    except TypeError:  # a default without a hash
        return beartype(function)
    if signature not in _CHECKS:
        _CHECKS[signature] = beartype(function)
    return _CHECKS[signature]
