"""MiniLM-L6 with a linear head, in plain torch: small enough to read, and it exports to a plain graph.

The weights are those of all-MiniLM-L6-v2 (BERT layout: 6 layers, 12 heads, 384 wide). Word embeddings stay
as they are, which saves a third of the time of a step; the two placeholders get vectors of their own.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

LAYERS, HEADS, WIDTH, INNER = 6, 12, 384, 1536
VOCABULARY, POSITIONS = 30_522, 512
EPSILON = 1e-12
CLASSES = 3


class Layer(nn.Module):
    """One transformer layer, normalised after each half."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` is [batch, tokens, width]; `bias` is added to the attention scores."""
        batch, tokens, _ = x.shape

        def heads(linear: nn.Linear) -> Tensor:
            return linear(x).view(batch, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)

        scores = heads(self.query) @ heads(self.key).transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + bias
        mixed = self.dropout(scores.softmax(-1)) @ heads(self.value)
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, WIDTH)
        x = self.attention_norm(x + self.dropout(self.out(mixed)))
        return self.norm(x + self.dropout(self.down(functional.gelu(self.up(x)))))


class Encoder(nn.Module):
    """Token ids to the mean of the last layer's vectors, [batch, width]."""

    def __init__(self, placeholders: tuple[int, int], layers: int = LAYERS) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.dropout = nn.Dropout(0.1)
        self.first_placeholder, second = placeholders
        assert second == self.first_placeholder + 1
        self.placeholders = nn.Embedding(2, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`ids` and `mask` are [batch, tokens]; the mask is 1 for tokens and 0 for padding."""
        x = self.words(ids)
        if self.training:
            which = ids - self.first_placeholder
            special = (which == 0) | (which == 1)
            x = torch.where(special[..., None], self.placeholders(which.clamp(0, 1)), x)
        x = x + self.positions.weight[: ids.shape[1]]
        x = self.dropout(self.norm(x))
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10_000.0
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask[..., None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)

    def with_layers(self, chosen: tuple[int, ...]) -> "Encoder":
        """A copy with some of the layers."""
        copy = Encoder((self.first_placeholder, self.first_placeholder + 1), len(chosen))
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("layers.")}
        copy.load_state_dict(state, strict=False)
        for ours, theirs in zip(copy.layers, chosen, strict=True):
            ours.load_state_dict(self.layers[theirs].state_dict())
        copy.words.weight.requires_grad = False
        return copy

    def fold_placeholders(self) -> None:
        """Put the trained placeholders into the table of words, where `eval` looks for them."""
        with torch.no_grad():
            self.words.weight[self.first_placeholder : self.first_placeholder + 2] = self.placeholders.weight


def load_encoder(weights: Path, placeholders: tuple[int, int]) -> Encoder:
    """The encoder with the weights of a ``model.safetensors`` of all-MiniLM-L6-v2."""
    stored = load_file(weights)
    state: dict[str, Tensor] = {
        "words.weight": stored["embeddings.word_embeddings.weight"],
        # Every token is of the first of BERT's two segments.
        "positions.weight": stored["embeddings.position_embeddings.weight"]
        + stored["embeddings.token_type_embeddings.weight"][0],
    }
    names = {"norm": "embeddings.LayerNorm"}
    for i in range(LAYERS):
        prefix = f"encoder.layer.{i}."
        names |= {
            f"layers.{i}.query": f"{prefix}attention.self.query",
            f"layers.{i}.key": f"{prefix}attention.self.key",
            f"layers.{i}.value": f"{prefix}attention.self.value",
            f"layers.{i}.out": f"{prefix}attention.output.dense",
            f"layers.{i}.attention_norm": f"{prefix}attention.output.LayerNorm",
            f"layers.{i}.up": f"{prefix}intermediate.dense",
            f"layers.{i}.down": f"{prefix}output.dense",
            f"layers.{i}.norm": f"{prefix}output.LayerNorm",
        }
    for name, source in names.items():
        for part in ("weight", "bias"):
            state[f"{name}.{part}"] = stored[f"{source}.{part}"]
    encoder = Encoder(placeholders)
    # Both placeholders begin as the mean word: unused entries of the table are noise.
    state["placeholders.weight"] = state["words.weight"].mean(0).repeat(2, 1)
    encoder.load_state_dict(state)
    encoder.words.weight.requires_grad = False
    return encoder
