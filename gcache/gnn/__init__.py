"""The room of who talks to whom: features of roles and questions, and the policy over topologies."""
