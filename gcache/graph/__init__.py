"""The room of the flow itself: topologies, and the graph that runs a question along one."""
