"""What the rankers share that read purchases in their order: item representation -> sequence encoder -> score."""
