"""The benchmark suite behind ``python -m pyruntime bench``.

Every figure is a distribution: in each round ours and every peer run once, in turn, so that whatever else the machine does
falls on all of them, and what is compared is the ratio within a round. Loops in C run in C, under one harness (``loops/``);
peers' loops are compiled on first use against the peer's installed headers (``peers/``).

The modules, in the order in which a run passes through them: ``cli`` (the command), ``suite`` (which benchmarks there are,
and their goals), ``peer_build`` and ``allocators`` (finding and compiling peers), ``worker`` (one process for each
benchmark), ``own_process`` (one for each allocator), ``native``, ``python_calls``, ``python_classes`` and ``import_time``
(what is run there), ``measure`` and ``memory_figures`` (rounds, ratios and means), ``table``, ``machine``, ``progress``
and ``plot`` (the report).
"""
