"""The room of the flow itself: the graph, its runs, and where their topologies come from."""
