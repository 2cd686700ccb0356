"""Counting methods and connectivities by name. Importing this module imports neither torch nor numpy."""

import math
from collections.abc import Iterable

from regioncount.errors import InputError

LATTICE_METHODS = ("auto", "grid", "adaptive")
"""Methods that evaluate the model at points of a lattice."""

EXACT_METHODS = {"exact": 2, "bounds": 1}
"""Methods that compute every boundary, with the highest dimension of a subspace that each supports."""

MAX_POINTS = 10**7
"""The largest number of points of a lattice in one subspace."""

CONNECTIVITIES = ("paper", "lattice")
"""Definitions of which lattice points are neighbours; see `regioncount.regions.lattice.neighbour_offsets`."""


LATTICES = ("simplex", "box")
"""Sets of lattice points; see `regioncount.regions.lattice`."""


def default_resolution(dimension: int) -> int:
    """Return the number of lattice points per axis that the paper uses.

    Args:
        dimension: Dimension of the subspace, at least 1.

    Returns:
        200 on lines, 10 in planes, 5 in higher dimensions (Li et al. 2025, section 3).
    """
    return {1: 200, 2: 10}.get(dimension, 5)


def check_lattice(dimension: int, resolution: int, lattice: object = "simplex", option: str = "resolution") -> None:
    """Check that a lattice is not too large to be evaluated.

    Args:
        dimension: Dimension d of the subspace.
        resolution: Lattice points n along each edge.
        lattice: "simplex" or "box".
        option: The name of the resolution, for the message.

    Raises:
        InputError: If the lattice is unknown, or has more than `MAX_POINTS` points: binomial(n - 1 + d, d) in a simplex, n^d
            in a box.
    """
    if not isinstance(lattice, str) or lattice not in LATTICES:
        raise InputError(f"lattice={lattice} is unknown; use one of {', '.join(LATTICES)}")
    points = resolution**dimension if lattice == "box" else math.comb(resolution - 1 + dimension, dimension)
    if points > MAX_POINTS:
        raise InputError(
            f"{option}={resolution}: the lattice of a {dimension}-dimensional subspace has more than {MAX_POINTS:,} points; "
            "choose a lower resolution"
        )


def require_method(method: object, known: Iterable[str]) -> None:
    """Check the name of a method.

    Raises:
        InputError: If the method is not one of the known ones.
    """
    names = [*known]
    if not isinstance(method, str) or method not in names:
        raise InputError(f"method={method} is unknown; use one of {', '.join(names)}")


def require_connectivity(connectivity: object) -> None:
    """Check the name of a connectivity.

    Raises:
        InputError: If it is not one of `CONNECTIVITIES`.
    """
    if not isinstance(connectivity, str) or connectivity not in CONNECTIVITIES:
        raise InputError(f"connectivity={connectivity} is unknown; use one of {', '.join(CONNECTIVITIES)}")


def exact_scope(method: str) -> str:
    """Describe the subspaces that an exact method supports, for error messages.

    Args:
        method: A key of `EXACT_METHODS`.

    Returns:
        "on lines" or "on lines and in planes".
    """
    return "on lines" if EXACT_METHODS[method] == 1 else "on lines and in planes"
