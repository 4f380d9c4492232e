"""From rankings to figures: ranks, metrics, significance, slices, the report."""
