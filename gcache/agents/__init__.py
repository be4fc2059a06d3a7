"""The room of who agents are: roles per domain, prompts, and decision makers."""
