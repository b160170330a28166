"""Which variables an optimizer treats apart, by patterns on their paths."""

import difflib
import fnmatch
from collections.abc import Sequence

import keras

from tfcq.errors import UserError


def matches(path: str, pattern: str) -> bool:
    """Returns whether a pattern names a whole part of a path, or parts in a row.

    Args:
        path: path of a variable, such as `resnet18/conv1_norm/gamma`.
        pattern: such as `gamma`, `conv1_norm/gamma` or, with shell wildcards, `*_norm`.
    """
    return fnmatch.fnmatchcase(f"/{path}/", f"*/{pattern}/*")


def matching(variables: Sequence[keras.Variable], patterns: Sequence[str]) -> frozenset[int]:
    """Returns the indices of the variables that any of the patterns matches.

    Args:
        variables: the optimizer's variables.
        patterns: patterns as for `matches`.
    """
    return frozenset(
        index
        for index, variable in enumerate(variables)
        if any(matches(variable.path, pattern) for pattern in patterns)
    )


def excluded(
    variables: Sequence[keras.Variable],
    given: Sequence[str] | None,
    standard: Sequence[str] = (),
) -> frozenset[int]:
    """Returns the indices of the variables that are left out.

    Args:
        variables: the optimizer's variables.
        given: patterns of the user, each of which must match; None for the standard ones.
        standard: patterns of which any may find nothing, as in a network without biases.

    Raises:
        UserError: on a given pattern that matches no variable.
    """
    if given is None:
        return matching(variables, standard)
    for pattern in given:
        if not matching(variables, [pattern]):
            raise _unmatched(pattern, variables)
    return matching(variables, given)


def _unmatched(pattern: str, variables: Sequence[keras.Variable]) -> UserError:
    parts = sorted({part for variable in variables for part in variable.path.split("/")})
    names = ", ".join(sorted({variable.name for variable in variables}))
    near = difflib.get_close_matches(pattern, parts, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(
        f"Exclusion {pattern!r} matches no variable; allowed: whole parts of paths, such as "
        f"{names}, a layer's name, or wildcards such as '*_norm'.{hint}"
    )
