"""The methods of counting, and what is known of each without torch."""

# These evaluate points of a lattice.
LATTICE_METHODS = ("auto", "grid", "adaptive")

# These find every boundary; the highest dimension that each supports.
EXACT_METHODS = {"exact": 2, "bounds": 1}

CONNECTIVITIES = ("paper", "lattice")


def default_resolution(dimension: int) -> int:
    """Return the lattice points per axis in the paper: 200 on lines, 10 in planes, 5 beyond."""
    return {1: 200, 2: 10}.get(dimension, 5)


def exact_scope(method: str) -> str:
    """Return the subspaces that an exact method supports, for messages."""
    return "on lines" if EXACT_METHODS[method] == 1 else "on lines and in planes"
