"""Example workflows, and reading workflow documents from wherever they are kept."""
