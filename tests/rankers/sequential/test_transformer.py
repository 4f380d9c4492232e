import pytest
import torch
from sequences import lively
from torch import nn

from recmerge.rankers.sequential.transformer import Attention, Block, TransformerEncoder, visible_places

KNOWN = torch.tensor([[False, True, True], [True, True, True]])


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_of_torch(causal: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = lively(Attention(8, 4, 0.0)), nn.MultiheadAttention(8, 4, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.inward.weight,
            "in_proj_bias": ours.inward.bias,
            "out_proj.weight": ours.outward.weight,
            "out_proj.bias": ours.outward.bias,
        }
    )
    vectors, visible = torch.randn(2, 3, 8), visible_places(KNOWN, causal=causal)
    hidden = ~visible.expand(2, 4, 3, 3).reshape(8, 3, 3)
    torch.testing.assert_close(ours(vectors, visible), theirs(vectors, vectors, vectors, attn_mask=hidden)[0])


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_block_is_that_of_torch(norm_first: bool, activation: str) -> None:
    torch.manual_seed(0)
    ours = lively(Block(8, 2, 16, 0.0, activation, norm_first=norm_first))
    theirs = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation, batch_first=True, norm_first=norm_first).eval()
    pairs = {
        theirs.self_attn.in_proj_weight: ours.attention.inward.weight,
        theirs.self_attn.in_proj_bias: ours.attention.inward.bias,
        theirs.self_attn.out_proj.weight: ours.attention.outward.weight,
        theirs.self_attn.out_proj.bias: ours.attention.outward.bias,
        theirs.linear1.weight: ours.forward_layer.widen.weight,
        theirs.linear1.bias: ours.forward_layer.widen.bias,
        theirs.linear2.weight: ours.forward_layer.narrow.weight,
        theirs.linear2.bias: ours.forward_layer.narrow.bias,
        theirs.norm1.weight: ours.norms[0].weight,
        theirs.norm1.bias: ours.norms[0].bias,
        theirs.norm2.weight: ours.norms[1].weight,
        theirs.norm2.bias: ours.norms[1].bias,
    }
    with torch.no_grad():
        for to, weights in pairs.items():
            to.copy_(weights)
    vectors = torch.randn(1, 3, 8)
    visible = visible_places(torch.ones(1, 3, dtype=torch.bool), causal=True)
    torch.testing.assert_close(ours(vectors, visible), theirs(vectors, src_mask=~visible[0, 0]), atol=1e-5, rtol=1e-4)


def test_what_is_visible_by_hand() -> None:
    assert visible_places(KNOWN, causal=True)[:, 0].int().tolist() == [[[1, 0, 0], [0, 1, 0], [0, 1, 1]], [[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    assert visible_places(KNOWN, causal=False)[:, 0].int().tolist() == [[[1, 1, 1], [0, 1, 1], [0, 1, 1]], [[1, 1, 1]] * 3]


def encoder(**more: bool) -> nn.Module:
    return lively(TransformerEncoder(8, 2, 2, 16, 0.5, 6, **more))


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_causal_reader_sees_nothing_that_comes_later(norm_first: bool) -> None:
    torch.manual_seed(0)
    vectors, known = torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    changed = vectors.clone()
    changed[:, 2, 0] += 1
    for causal in (True, False):
        reader = encoder(causal=causal, norm_first=norm_first)
        moved = (reader(vectors, known) - reader(changed, known)).abs().amax(-1)[0] > 1e-6
        assert moved.tolist() == [not causal, not causal, True, True]


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal: bool) -> None:
    torch.manual_seed(0)
    reader, vectors = encoder(causal=causal), torch.randn(1, 3, 8)
    short = reader(vectors, torch.ones(1, 3, dtype=torch.bool))
    long = reader(torch.cat([torch.randn(1, 2, 8), vectors], 1), torch.tensor([[False, False, True, True, True]]))
    torch.testing.assert_close(long[:, 2:], short)


def test_the_order_of_purchases_is_read() -> None:
    torch.manual_seed(0)
    reader, vectors, known = encoder(causal=False), torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)
    turned = vectors[:, [1, 0, 2]]
    assert (reader(vectors, known)[:, -1] - reader(turned, known)[:, -1]).abs().max() > 1e-4


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 10 cannot be shared by 4 heads"):
        Attention(10, 4, 0.0)
