"""Mirror the folders above; a package, because one of the dependencies brings one of the same name."""
