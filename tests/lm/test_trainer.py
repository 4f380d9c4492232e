"""Our trainer's loss is TRL's own, and so are its gradients."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from lm.test_sft import settings
from trl import SFTTrainer

from recmerge.lm.lora import new_lora
from recmerge.lm.new_base import new_model, train_tokenizer
from recmerge.lm.sft import _sft_config
from recmerge.lm.trainer import AdapterTrainer


def make(kind: type[SFTTrainer], folder: Path, **changes: object) -> SFTTrainer:
    tokenizer = train_tokenizer(["a b c"], 300, 64)
    model = new_model(tokenizer, hidden_size=16, layers=2, heads=2, kv_heads=2, intermediate_size=32, max_length=64, seed=0)
    model = new_lora(model, rank=4, alpha=8, dropout=0.0, target_modules="all-linear", use_rslora=False, init_seed=0)
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7, 8, 9], [10, 11, 12]], "labels": [[-100, 6, -100, 8, 9], [-100, 11, 12]]})
    return kind(model=model, args=_sft_config(settings(**changes), folder, 1), train_dataset=rows, processing_class=tokenizer)


BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([[-100, 6, -100, 8, 9], [-100, 11, 12, -100, -100]]),
}


@pytest.mark.parametrize("items", [None, 5, 12])
def test_loss_and_gradients_are_trls(tmp_path: Path, items: int | None) -> None:
    found = []
    for kind in (SFTTrainer, AdapterTrainer):
        trainer = make(kind, tmp_path)
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, dict(BATCH), num_items_in_batch=None if items is None else torch.tensor(items))
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in trainer.model.named_parameters() if p.requires_grad}))
    (theirs, their_grads), (ours, our_grads) = found
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert all(torch.allclose(our_grads[n], g, atol=1e-6) for n, g in their_grads.items())


def test_what_is_not_plain_is_left_to_trl(tmp_path: Path) -> None:
    trainer = make(AdapterTrainer, tmp_path)
    assert trainer._is_plain(trainer.model)
    assert not trainer._is_plain(torch.nn.DataParallel(trainer.model))
    for changes in ({"gradient_checkpointing": True}, {"extra": {"label_smoothing_factor": 0.1}}, {"extra": {"loss_type": "dft"}}):
        trainer = make(AdapterTrainer, tmp_path, **changes)
        assert not trainer._is_plain(trainer.model), changes
