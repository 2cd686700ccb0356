"""Counting methods and connectivities by name. Importing this module imports neither torch nor numpy."""

LATTICE_METHODS = ("auto", "grid", "adaptive")
"""Methods that evaluate the model at points of a lattice."""

EXACT_METHODS = {"exact": 2, "bounds": 1}
"""Methods that compute every boundary, with the highest dimension of a subspace that each supports."""

CONNECTIVITIES = ("paper", "lattice")
"""Definitions of which lattice points are neighbours; see `regioncount.regions.lattice.neighbour_offsets`."""


def default_resolution(dimension: int) -> int:
    """Return the number of lattice points per axis that the paper uses.

    Args:
        dimension: Dimension of the subspace, at least 1.

    Returns:
        200 on lines, 10 in planes, 5 in higher dimensions (Li et al. 2025, section 3).
    """
    return {1: 200, 2: 10}.get(dimension, 5)


def exact_scope(method: str) -> str:
    """Describe the subspaces that an exact method supports, for error messages.

    Args:
        method: A key of `EXACT_METHODS`.

    Returns:
        "on lines" or "on lines and in planes".
    """
    return "on lines" if EXACT_METHODS[method] == 1 else "on lines and in planes"
