"""One module per command's work: `plan_<stage>` says what a run will be, `run_<stage>` makes it."""
