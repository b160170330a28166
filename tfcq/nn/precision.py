"""The one place where a layer is told that its call takes `precision`, as it takes `training`."""

import inspect
from typing import Any

_PRECISION = "precision"


class TakesPrecision:
    """What layers and models share that receive the call argument `precision`.

    It stands before the Keras class that it completes. Keras hands a call argument down to what is
    told to take it, and drops it without a word at models of the user's around it: so a layer tells
    the outermost model that it finds itself in, and looks once for what that one was given.
    """

    # Keras documents these in the docstring of `_register_call_context_args` and carries such an
    # argument through nested models; there is no public spelling of it up to 3.15.
    _call_context_args: set[str]
    _call_has_context_arg: dict[str, bool]

    def accept_precision(self) -> None:
        """Makes the layer receive `precision`; called once, when it is made."""
        self._register_call_context_args(_PRECISION)  # type: ignore[attr-defined]

    def tell_outer(self, precision: Any = None) -> Any:
        """Makes the outermost layer whose call this one is part of hand `precision` on.

        Args:
            precision: what this layer's call received.

        Returns:
            The same, or what the outermost call was given where it was dropped on the way.
        """
        context = self._get_call_context()  # type: ignore[attr-defined]
        outer = context.entry_layer
        if precision is not None or _PRECISION in outer._call_context_args:
            return precision
        outer._call_context_args = outer._call_context_args | {_PRECISION}
        outer._call_has_context_arg[_PRECISION] = False
        given = _given_to(outer)
        if given is not None:
            # Where the other layers inside this call find it.
            context.set_value(_PRECISION, given)
        return given


def _given_to(outer: Any) -> Any:
    """Returns the `precision` of a call that is under way; None where it has none."""
    frame = inspect.currentframe()
    while frame is not None:
        arguments = frame.f_locals.get("kwargs")
        of_outer = frame.f_locals.get("self") is outer
        if of_outer and isinstance(arguments, dict) and _PRECISION in arguments:
            return arguments[_PRECISION]
        frame = frame.f_back
    return None
