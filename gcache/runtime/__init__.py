"""The room of what a process runs on: processors, waiting threads, streams of random numbers, and plug-ins."""
