"""The mathematics behind the nodes: tensors in, tensors out. Imports torch and nothing of the engine."""
