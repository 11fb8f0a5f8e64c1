"""Stages 01 and 02 of the image product: landing raw pictures, and cleaning them."""
