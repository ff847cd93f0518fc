"""One object that many threads read without a lock and that writers replace as a whole: *read-copy-update*.

:class:`RCUCell` is for what is read all the time and seldom changed: settings, routes, a table that has been looked up and
is looked up again. A reader takes what is there and keeps it as long as it likes; a writer makes a new object and puts it
there, and never changes the old one, which lives as long as somebody uses it.

    >>> from pyruntime.rcu import RCUCell
    >>> routes = RCUCell({"alpha": 1})
    >>> mine = routes.get()                                # a reader
    >>> routes.update(lambda old: {**old, "beta": 2})      # a writer
    {'alpha': 1, 'beta': 2}
    >>> mine                                               # the reader has what was there then
    {'alpha': 1}

=======================  ===============================================================================================
``get()``                waits for no writer
``set()``                is one step for all threads; of several writers the last one stays
``update()``             loses nothing of what other writers do; so does a loop around ``compare_exchange()``
the old object           the cell gives its reference up at once, or, where there is no GIL, when nobody can be in the
                         middle of ``get()`` any more
=======================  ===============================================================================================

``python -m pyruntime bench rcu`` measures it beside an attribute of an object, which promises less.
"""

from __future__ import annotations

from pyruntime import _core

__all__ = ["RCUCell"]

_core.add_sync_types()

from pyruntime._core import RCUCell  # noqa: E402  (made by the line above)
