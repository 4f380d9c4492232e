"""From raw files to built domains and mixed sets."""
