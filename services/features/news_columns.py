"""What every column of the groups `news_signals` and `sentiment` means: name, unit, description. Pure."""

from typing import Literal

from services.common.columns import Column
from services.features.windows import HALF_LIVES, WINDOWS_MS

NEWS_SIGNAL_COLUMNS: tuple[Column, ...] = (
    Column("coin", "text", "none", "Coin that the story is about; CRYPTO is the market as a whole"),
    Column("story_id", "text", "none", "Story; articles that tell the same one share it"),
    Column("score", "float", "score", "p_pos minus p_neg, from -1 to 1"),
    Column("p_pos", "float", "ratio", "Probability that the story is good for the coin"),
    Column("p_neu", "float", "ratio", "Probability that it is neither good nor bad"),
    Column("p_neg", "float", "ratio", "Probability that it is bad for the coin"),
    Column("signal", "int", "score", "1 positive, 0 neutral, -1 negative, by calibrated thresholds"),
    Column("confidence", "float", "ratio", "Probability of the signal's class"),
    Column("relevance", "float", "ratio", "The coin's share of the story"),
    Column("novelty", "float", "ratio", "1 for the first telling, less for each repeat"),
    Column("engine", "text", "none", "What scored it"),
    Column("model_version", "text", "none", "Version of the engine's model"),
    Column("published_at_ms", "int", "ms", "When the source says it was published, UTC epoch"),
    Column("observed_at_ms", "int", "ms", "When we first saw it, UTC epoch; the event time"),
    Column("scored_at_ms", "int", "ms", "When it was scored, UTC epoch"),
)


def _of_window(name: str) -> tuple[Column, ...]:
    over = f"over the last {name}"
    return (
        Column(f"news_count_{name}", "int", "count", f"Signals observed {over}; 0 also where nobody watched"),
        _mean(f"sentiment_mean_{name}", "score", f"Mean score {over}, weighted by relevance × novelty"),
        _mean(
            f"sentiment_positive_{name}", "ratio", f"Share of positive signals {over}, by the same weights"
        ),
        _mean(
            f"sentiment_negative_{name}", "ratio", f"Share of negative signals {over}, by the same weights"
        ),
        _mean(
            f"sentiment_dispersion_{name}",
            "score",
            f"Standard deviation of the scores {over}, by the same weights",
        ),
        _mean(
            f"sentiment_ewma_{name}",
            "score",
            f"Mean score {over} in which weights halve every {WINDOWS_MS[name] // HALF_LIVES // 1000} s",
        ),
    )


def _mean(name: str, unit: Literal["score", "ratio"], description: str) -> Column:
    return Column(name, "float", unit, f"{description}; null where no signal has weight", nullable=True)


SENTIMENT_COLUMNS: tuple[Column, ...] = (
    Column("coin", "text", "none", "Coin; CRYPTO is the market as a whole"),
    Column("as_of_ms", "int", "ms", "From when on the row holds, until the coin's next; the event time"),
    Column("last_news_at_ms", "int", "ms", "When the newest signal was observed, UTC epoch"),
    *(column for name in WINDOWS_MS for column in _of_window(name)),
)

#: What runs on between two rows of `sentiment`; computed when it is read, at the time asked about.
SECONDS_SINCE_NEWS = Column(
    "seconds_since_news",
    "float",
    "s",
    "Seconds since the newest signal was observed; null before the coin's first in the store",
    nullable=True,
)
