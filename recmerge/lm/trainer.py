"""TRL's SFTTrainer with our loss where it is the same and faster, and our validation."""

import json
from pathlib import Path
from typing import Any

import torch
from trl import SFTTrainer

from recmerge.lm.fused_loss import linear_cross_entropy
from recmerge.lm.sequences import IGNORE
from recmerge.lm.validation import Validation


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains an adapter; chooses its checkpoint by our validation loss: the answers alone, every domain alike."""

    validation: Validation | None = None
    valid_path: Path
    _bare: bool | None = None  # the output layer; not known before the first batch

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure, note and report the validation loss."""
        assert self.validation is not None
        by_domain = self.validation.losses(self.model)
        loss = sum(by_domain.values()) / len(by_domain)
        if self.state.is_world_process_zero:
            with self.valid_path.open("a", encoding="utf-8") as f:
                f.write(json.dumps({"step": self.state.global_step, "loss": loss, "domains": by_domain}) + "\n")
        metrics = {"eval_loss": loss}
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Return TRL's own loss; of a small float32 model by the fused output layer, without entropy and accuracy on the side."""
        if return_outputs or not self._is_plain(model) or not self._is_bare(model, inputs["input_ids"]):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        causal_lm = model.get_base_model()
        # padding stands on the right, where no real token sees it: without a mask attention takes its causal path
        hidden = causal_lm.get_decoder()(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
        labels = inputs["labels"][:, 1:]
        chosen = labels != IGNORE
        n = int(chosen.sum())
        loss = linear_cross_entropy(hidden[:, :-1][chosen], causal_lm.get_output_embeddings().weight, labels[chosen])
        return loss * n / (n if num_items_in_batch is None else num_items_in_batch)

    def _is_plain(self, model: Any) -> bool:
        """Whether the loss is the mean cross-entropy of one unwrapped float32 model with a bare output layer."""
        if model is not self.model or not hasattr(model, "get_base_model") or self.args.loss_type != "nll" or self.args.gradient_checkpointing:
            return False
        causal_lm = model.get_base_model()
        head = causal_lm.get_output_embeddings()
        bare = type(head) is torch.nn.Linear and head.bias is None and head.weight.dtype == torch.float32
        return bare and not self.aux_loss_enabled and self.label_smoother is None and not (self.args.bf16 or self.args.fp16)

    @torch.no_grad()
    def _is_bare(self, model: Any, ids: torch.Tensor) -> bool:
        """Whether logits are the output layer of the last hidden states and nothing else (no cap, no scale), tried on the first row that is seen."""
        if self._bare is None:
            causal_lm, training = model.get_base_model(), model.training
            model.eval()
            hidden = causal_lm.get_decoder()(input_ids=ids[:1], use_cache=False).last_hidden_state
            logits = causal_lm(input_ids=ids[:1], use_cache=False).logits
            model.train(training)
            self._bare = torch.allclose(causal_lm.get_output_embeddings()(hidden), logits, rtol=1e-4, atol=1e-4)
        return self._bare
