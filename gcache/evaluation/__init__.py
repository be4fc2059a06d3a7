"""The room of how it is judged: methods, accuracy, controls, interventions and their intervals."""
