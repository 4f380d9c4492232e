"""Strict YAML in, frozen typed settings out."""
