"""Several rankers' scores made into one, by a model of choice fitted on validation events."""
