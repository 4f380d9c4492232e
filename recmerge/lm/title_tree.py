"""A prompt and all its answers as one sequence: beginnings that answers share stand in it once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Tokens = Sequence[int]


@dataclass(frozen=True)
class Question:
    """One user's prompt and the answers to be scored.

    Args:
        prompt: Token ids, at least one.
        answers: Token ids of each answer with its end token, at least one id each.
    """

    prompt: Tokens
    answers: tuple[tuple[int, ...], ...]


@dataclass
class _Subtree:
    """The nodes of all answers that begin with one token.

    Args:
        parents: Of each node the one it goes on from, -1 for the first.
        tokens: Their token ids.
        edges: (node that predicts, token predicted), -1 for the prompt's end.
    """

    parents: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    edges: dict[tuple[int, int], int] = field(default_factory=dict)
    _nodes: dict[tuple[int, int], int] = field(default_factory=dict)

    def path(self, answer: tuple[int, ...]) -> list[int]:
        """Add an answer; return the numbers of its edges."""
        at, numbers = -1, []
        for i, token in enumerate(answer):
            numbers.append(self.edges.setdefault((at, token), len(self.edges)))
            if i + 1 < len(answer):
                if (at, token) not in self._nodes:
                    self._nodes[at, token] = len(self.tokens)
                    self.parents.append(at)
                    self.tokens.append(token)
                at = self._nodes[at, token]
        return numbers


class TitleTree:
    """A prompt of P tokens and the prefix tree of its answers, M nodes, laid out in one sequence of L = P + M tokens.

    A node is a beginning of one or more answers; it sees the prompt, the nodes that it goes on from, and itself, and stands
    at the position behind them. The last token of an answer is only predicted, so it has no node. Of each node (and of the
    prompt's end) one distribution is needed, whatever number of answers goes on from there.

    Nodes lie in blocks of `width`; no node sees one of another block, so what they see is told by P + `width` columns. Where
    there are several blocks, padding fills them up.

    Args:
        question: The prompt and its answers; equal answers share their nodes to the last.
        pad_id: Any valid token id.
        block: The blocks' width, more where the answers of one first token need more.
    """

    def __init__(self, question: Question, pad_id: int = 0, block: int = 1 << 30) -> None:
        subtrees: dict[int, _Subtree] = {}
        paths = [(answer[0], subtrees.setdefault(answer[0], _Subtree()).path(answer)) for answer in question.answers]
        sizes = {token: len(subtree.tokens) for token, subtree in subtrees.items()}
        self.n_prompt = len(question.prompt)
        self.width = max(1, min(sum(sizes.values()), max(block, *sizes.values())))
        begins = self._begins(sizes)
        n_nodes = max((begins[token] + size for token, size in sizes.items()), default=0)
        self.ids = np.concatenate([np.asarray(question.prompt, np.int64), np.full(n_nodes, pad_id, np.int64)])
        self._parents = np.full(n_nodes, -1, np.int64)  # among the nodes; padding hangs on the prompt
        predicting, targets, first_edge = list[int](), list[int](), dict[int, int]()
        for token, tree in subtrees.items():
            begin, first_edge[token] = begins[token], len(targets)
            nodes = slice(begin, begin + sizes[token])
            self.ids[self.n_prompt :][nodes] = tree.tokens
            self._parents[nodes] = [at if at < 0 else begin + at for at in tree.parents]
            predicting += [self.n_prompt - 1 if at < 0 else self.n_prompt + begin + at for at, _ in tree.edges]
            targets += [token for _, token in tree.edges]
        # Places that predict a token, ascending; of each edge which of them does, and which token.
        self.predicting, self.rows = np.unique(np.array(predicting, np.int64), return_inverse=True)
        self.targets = np.array(targets, np.int64)
        self._edges = np.concatenate([first_edge[token] + np.array(path) for token, path in paths])
        self._starts = np.cumsum([0, *(len(path) for _, path in paths[:-1])])
        lasts = self._edges[np.cumsum([len(path) for _, path in paths]) - 1]
        self.ends = self.predicting[self.rows[lasts]]  # of each answer, the place that predicts its last token

    def _begins(self, sizes: dict[int, int]) -> dict[int, int]:
        """Return where each subtree's nodes begin; none lies in two blocks."""
        begins, end = {}, 0
        for token, size in sizes.items():
            if size and end % self.width + size > self.width:
                end += -end % self.width
            begins[token] = end
            end += size
        return begins

    @property
    def length(self) -> int:
        """Tokens of the whole sequence, L."""
        return len(self.ids)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """The position (L,) of each token: how many it sees, less one."""
        depths = np.zeros(len(self._parents), np.int64)
        for node, parent in enumerate(self._parents.tolist()):
            depths[node] = depths[parent] + 1 if parent >= 0 else 0
        return np.concatenate([np.arange(self.n_prompt), self.n_prompt + depths])

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Return (M, P + width): may the row's node see the prompt's token, or the column's node of its own block?"""
        visible = np.zeros((len(self._parents), self.n_prompt + self.width), dtype=np.bool_)
        visible[:, : self.n_prompt] = True
        for node, parent in enumerate(self._parents.tolist()):
            if parent >= 0:
                visible[node] = visible[parent]
            visible[node, self.n_prompt + node % self.width] = True
        return visible

    def allowed_in_full(self) -> npt.NDArray[np.bool_]:
        """Return (L, L): may the row's token see the column's?"""
        visible = np.tri(self.length, dtype=np.bool_)
        visible[self.n_prompt :, self.n_prompt :] = False
        found = self.allowed()
        for begin in range(0, len(self._parents), self.width):
            rows = slice(begin, begin + self.width)
            size = len(self._parents[rows])
            visible[self.n_prompt + begin :, self.n_prompt + begin :][:size, :size] = found[rows, self.n_prompt : self.n_prompt + size]
        return visible

    def sums(self, logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return each answer's score.

        Args:
            logs: (number of `targets`,) the log-probability of each.

        Returns:
            (C,) the sums along each answer's path, in its order: equal answers have equal scores to the bit.
        """
        return np.add.reduceat(logs[self._edges], self._starts)
