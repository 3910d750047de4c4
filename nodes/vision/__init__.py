"""Understanding pictures: similarity to a text, labels, boxes, masks, captions, and guidance by what a network sees."""
