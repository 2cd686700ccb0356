"""Check the options of exact region counts, which use no lattice."""

from regioncount.config.schemas import Regions
from regioncount.errors import InputError
from regioncount.regions.methods import EXACT_METHODS, exact_scope


def check_exact(regions: Regions, recorded: bool) -> None:
    """Check that the subspaces and options fit the method, if it is one that computes every boundary.

    Args:
        regions: The region-count settings.
        recorded: Whether they were read from disk. Earlier versions accepted and ignored the options of a lattice.

    Raises:
        InputError: The method does not support a subspace, or does not use an option that is set.
    """
    method, budget = regions.method, regions.budget
    if method not in EXACT_METHODS:
        if budget is None:
            return
        raise InputError(f"regions.budget={budget}: only regions.method=exact and bounds have a budget")
    if regions.connectivity != "paper" and not recorded:
        raise InputError(f"regions.connectivity={regions.connectivity}: regions.method={method} uses no lattice; omit it")
    for name, subspace in regions.subspaces.items():
        dimension, points = subspace.dimension_counted, subspace.points_per_axis
        if points != subspace.model_copy(update={"resolution": None}).points_per_axis and not recorded:
            advice = "omit the resolution, or use a subspace with the default one"
            raise InputError(f"regions.{name}.resolution={points}: regions.method={method} uses no lattice; {advice}")
        if dimension > EXACT_METHODS[method] or subspace.lattice != "simplex":
            raise InputError(
                f"regions.{name}: regions.method={method} counts {exact_scope(method)}; leave this subspace out, "
                "or pass regions.method=auto"
            )
        if dimension > 1 and budget is not None:
            raise InputError(f"regions.{name}: regions.budget={budget} applies to lines only; remove one of the two")
