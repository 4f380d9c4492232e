"""recmerge: weave the LoRA adapters of many shops' domains into one recommender."""

__version__ = "0.1.0"
