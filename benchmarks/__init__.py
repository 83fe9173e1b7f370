"""The figures, each made by one file here."""
