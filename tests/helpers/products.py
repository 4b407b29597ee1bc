"""How many operations a program holds."""

import numpy as np


def products(jaxpr) -> int:
    """Operations of all matrix products of a jaxpr."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval
            total += 2 * equation.outvars[0].aval.size * int(np.prod([left.shape[axis] for axis in contracted]))
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                total += products(value.jaxpr)
            elif hasattr(value, "eqns"):
                total += products(value)
    return total
