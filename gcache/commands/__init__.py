"""The room of how people call it: one file for each command, and the flags that they share."""
