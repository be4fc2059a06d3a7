"""In which order agents take their turns: each as soon as all it hears have taken theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from gcache.gnn.topology import EdgeKey, Node, Topology
from gcache.graph.loops import cancel_all

#: Who hands to a node, and over which edge; see `Topology.senders`.
Coming = Sequence[tuple[Node, EdgeKey | None]]


async def run_in_dag_order(
    topology: Topology,
    rounds: int,
    heard: Collection[Node],
    turn: Callable[[Node, Coming], Awaitable[None]],
    unheard: Callable[[Node], None],
) -> None:
    """One turn per round for every agent that is heard; those that can go on do so at once.

    Args:
        heard: see `Topology.heard_nodes`.
        turn: called with a node and who handed to it, once these are done.
        unheard: called, before any turn, with each node that no path leads from to the decision maker.

    The first turn that fails ends the others and raises.
    """
    tasks: dict[Node, asyncio.Task[None]] = {}

    async def after_those_it_hears(node: Node) -> None:
        coming = topology.senders(*node)
        # yield once so that every task exists before one is looked up
        await asyncio.sleep(0)
        for sender, _ in coming:
            await tasks[sender]
        await turn(node, coming)

    for round_ in range(rounds):
        for agent in range(topology.n_agents):
            node = (round_, agent)
            if node in heard:
                tasks[node] = asyncio.create_task(after_those_it_hears(node))
            else:
                unheard(node)
    try:
        await asyncio.gather(*tasks.values())
    finally:
        cancel_all(tasks.values())
