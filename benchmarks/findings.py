"""A measured value with its goal, as a row of a table."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """A measured value with its goal."""

    measured: str
    value: float
    goal: float | None
    way: Literal["≥", "≤"]
    quartiles: list[float] | None = None
    """The quartiles over the rounds, with the median, of a value that may be smaller than the noise."""

    @property
    def met(self) -> str:
        """`yes` or `no`; `within noise` if the quartiles are further apart than the goal is from zero."""
        if self.goal is None:
            return ""
        if self.quartiles and self.quartiles[-1] - self.quartiles[0] > self.goal >= self.quartiles[0]:
            return "within noise"
        return "yes" if (self.value >= self.goal if self.way == "≥" else self.value <= self.goal) else "no"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """A row of the table."""
        spread = f" ({self.quartiles[0]:.3g} to {self.quartiles[-1]:.3g})" if self.quartiles else ""
        goal = "" if self.goal is None else f"{self.way} {self.goal:g}"
        return self.measured, f"{self.value:.3g}{spread}", goal, self.met
