"""The room of what a process runs on: processors, how threads wait, and the streams of random numbers."""
