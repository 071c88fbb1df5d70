"""The new last layer: how it is trained and how it is measured."""
