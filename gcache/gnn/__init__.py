"""The room of who talks to whom: topologies, features of roles and questions, and the policy that
turns the one into a distribution over the other."""
