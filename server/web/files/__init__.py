"""Files that clients may name: where they are, which names lead there, and how they are read and written."""
