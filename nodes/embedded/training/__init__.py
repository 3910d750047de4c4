"""How the embedded model was made: `python -m nodes.embedded.training --out training`."""
