"""UniSRec beside the authors' own model class: equal weights, equal questions; the losses and scores of both, in each of its stages.

usage: unisrec_beside_authors.py AUTHORS_FILE --recbole PYTHON [--seeds 1,2,3]

AUTHORS_FILE is `unisrec.py` of the authors' repository, PYTHON that of an environment with `recbole`, which it is built on; this project depends on neither.
Rows are as long as the model reads, since theirs are padded on the right and count positions from the oldest purchase. The cold item, which they do not have,
is far from every expectation here. Exits with 1 where scores differ by more than 1e-4 or losses by more than 1e-3 of their size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

N_ITEMS, FEATURES, WIDTH, LENGTH, ROWS, EXPERTS, BLOCKS, INNER, TAU, WEIGHT = 300, 48, 16, 10, 64, 8, 2, 64, 0.07, 1e-3
STAGES = ("inductive_ft", "transductive_ft", "pretrain")
FAR = 1e-4  # length of the cold item's vector: its direction counts as little as may be


class Settings(dict[str, Any]):
    """What their class asks a configuration for; None for what is not there."""

    def __getitem__(self, key: str) -> Any:
        return self.get(key)


def authors(file: Path, stage: str, seed: int, out: Path) -> None:
    """Write weights, questions, losses and scores of their model; runs in RecBole's environment."""
    import importlib.util
    import types

    import torch

    torch.manual_seed(seed)
    found = importlib.util.spec_from_file_location("authors", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    sizes = {"n_layers": BLOCKS, "n_heads": 2, "hidden_size": WIDTH, "inner_size": INNER, "n_exps": EXPERTS, "adaptor_layers": [FEATURES, WIDTH]}
    names = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "item_length", "NEG_PREFIX": "neg_"}
    how = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "adaptor_dropout_prob": 0.0, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    how |= {"initializer_range": 0.02, "loss_type": "CE", "temperature": TAU, "lambda": WEIGHT, "train_stage": stage, "device": "cpu"}
    titles = torch.nn.Embedding(N_ITEMS + 1, FEATURES, padding_idx=0)
    titles.weight.requires_grad = False
    model = module.UniSRec(
        Settings(**sizes, **names, **how, MAX_ITEM_LIST_LENGTH=LENGTH), types.SimpleNamespace(num=lambda field: N_ITEMS + 1, plm_embedding=titles)
    )
    with torch.no_grad():
        for weights in (p for p in model.parameters() if p.requires_grad):
            weights.normal_(std=0.3)
    model.eval()
    items, targets = torch.randint(1, N_ITEMS + 1, (ROWS, LENGTH)), torch.randperm(N_ITEMS)[:ROWS] + 1
    asked = {"item_id_list": items, "item_length": torch.full((ROWS,), LENGTH), "item_id": targets}
    changed = items.roll(1, 0)
    more = {"item_emb_list": titles(items), "pos_item_emb": titles(targets), "item_id_list_aug": changed, "item_length_aug": asked["item_length"]}
    loss = model.calculate_loss(asked if stage != "pretrain" else {**asked, **more, "item_emb_list_aug": titles(changed)})
    scores = model.full_sort_predict(asked) if stage != "pretrain" else torch.zeros(0)
    kept = {"weights": model.state_dict(), "titles": titles.weight, "items": items, "targets": targets, "changed": changed}
    torch.save({**kept, "loss": loss.item(), "scores": scores.detach()}, out)


def ours(stage: str, told: dict[str, Any]) -> tuple[float, Any]:
    """Return this project's loss and scores, with the authors' weights."""
    import torch

    from recmerge.rankers.sequential.batches import Batch
    from recmerge.rankers.unisrec import UniSRecModel, UniSRecSettings

    settings = UniSRecSettings(
        width=WIDTH, heads=2, inner=INNER, blocks=BLOCKS, experts=EXPERTS, dropout=0, adaptor_dropout=0, max_history=LENGTH, temperature=TAU, drop=0
    )
    model = UniSRecModel({"n_items": N_ITEMS, "n_features": FEATURES}, settings, transductive=stage == "transductive_ft").eval()
    take(model, told)
    none, asked = torch.zeros(ROWS, dtype=torch.long), torch.zeros_like(told["items"])
    asked[:, -1] = told["targets"]
    batch = Batch(none, told["items"], asked, torch.zeros(ROWS, LENGTH + 1, dtype=torch.long))
    with torch.no_grad():
        if stage == "pretrain":
            model.changed_items = lambda items: told["changed"]  # type: ignore[method-assign]
            return model.transfer_loss(batch).item(), torch.zeros(0)
        return model.loss(batch).item(), model.users(batch) @ model.scored().T


def take(model: Any, told: dict[str, Any]) -> None:
    """Give a model the authors' weights."""
    import torch

    weights = told["weights"]
    model.items.vectors = told["titles"].detach() / FEATURES**0.5  # in full precision
    adaptor, encoder = model.items.adaptor, model.encoder
    pairs = [
        (adaptor.shifts, torch.stack([weights[f"moe_adaptor.experts.{i}.bias"] for i in range(EXPERTS)])),
        (adaptor.weights, torch.stack([weights[f"moe_adaptor.experts.{i}.lin.weight"].T for i in range(EXPERTS)])),
        (adaptor.gate, weights["moe_adaptor.w_gate"]),
        (encoder.positions, weights["position_embedding.weight"]),
        (encoder.edge.weight, weights["LayerNorm.weight"]),
        (encoder.edge.bias, weights["LayerNorm.bias"]),
        (model.items.cold, model.items.cold / model.items.cold.norm() * FAR),
    ]
    if model.items.ids is not None:
        pairs.append((model.items.ids, weights["item_embedding.weight"]))
    for i, block in enumerate(encoder.blocks):
        layer = f"trm_encoder.layer.{i}."
        attention, feed = f"{layer}multi_head_attention.", f"{layer}feed_forward."
        for part in ("weight", "bias"):
            inward = torch.cat([weights[f"{attention}{name}.{part}"] for name in ("query", "key", "value")])
            pairs.append((getattr(block.attention.inward, part), inward))
            named = {block.attention.outward: f"{attention}dense", block.norms[0]: f"{attention}LayerNorm", block.norms[1]: f"{feed}LayerNorm"}
            named |= {block.forward_layer.widen: f"{feed}dense_1", block.forward_layer.narrow: f"{feed}dense_2"}
            pairs += [(getattr(module, part), weights[f"{name}.{part}"]) for module, name in named.items()]
    with torch.no_grad():
        for mine, theirs in pairs:
            mine.copy_(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--recbole", help="python of an environment with recbole")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--side", nargs=3, metavar=("STAGE", "SEED", "OUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        stage, seed, out = asked.side
        authors(asked.file, stage, int(seed), Path(out))
        return
    if not asked.recbole:
        parser.error("--recbole is needed")
    import torch

    worst = 0.0
    for stage in STAGES:
        for seed in asked.seeds.split(","):
            with tempfile.TemporaryDirectory() as place:
                out = Path(place) / "told.pt"
                words = [asked.recbole, str(Path(__file__).resolve()), str(asked.file.resolve()), "--side", stage, seed, str(out)]
                subprocess.run(words, check=True, capture_output=True, cwd=place)
                told = torch.load(out, weights_only=True)
            loss, scores = ours(stage, told)
            apart = (scores - told["scores"])[:, 1:].abs().max().item() if stage != "pretrain" else 0.0
            print(json.dumps({"stage": stage, "seed": int(seed), "loss": loss, "authors": told["loss"], "scores_apart": apart}), flush=True)
            worst = max(worst, apart / 1e-4, abs(loss / told["loss"] - 1) / 1e-3)
    sys.exit(int(worst > 1))


if __name__ == "__main__":
    main()
