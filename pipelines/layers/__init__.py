"""Merged layers: what all run folders of an archive say, in the files that GIS programs open at once."""
