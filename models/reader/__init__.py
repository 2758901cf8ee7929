"""The roof-lettering reader: rectify a region, read it."""
