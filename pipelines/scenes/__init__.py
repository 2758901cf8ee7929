"""Imagery: where scenes are found, and how one becomes a local COG with its STAC item."""
