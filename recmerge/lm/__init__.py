"""Language models: base models, LoRA adapters, training sequences, fine-tuning, scoring and writing."""
