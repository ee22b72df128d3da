"""Score headlines from the command line (`make sentiment text="…"`).

`python -m services.news_signals.score TEXT`, or `--file FILE`, or lines on the standard input.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from services.common.errors import ServiceError, SourceError
from services.news_signals.headlines import HeadlineScore, HeadlineScorer, Score

COLUMNS = ("title", "headline", "text")
FIELDS = ("coin", "score", "signal", "label", "p_pos", "p_neu", "p_neg", "confidence", "relevance", "engine")


def read_headlines(lines: Iterable[str], suffix: str, column: str | None, name: str) -> Iterator[str]:
    """Headlines of a CSV file, of NDJSON, or one a line; empty ones are left out. Raises `SourceError`.

    Which it is follows from `suffix`. `column` is the name of the column or field; `COLUMNS` are tried.
    """
    wanted = (column,) if column else COLUMNS
    if suffix == ".csv":
        reader = csv.DictReader(lines)
        present = next((name for name in wanted if name in (reader.fieldnames or ())), None)
        if present is None:
            raise SourceError(f"{name}: no column {' or '.join(wanted)}; name one with --column")
        found: Iterable[str | None] = (row[present] for row in reader)
    elif suffix in (".ndjson", ".jsonl"):
        found = (_field(line, wanted, f"{name}, line {n}") for n, line in enumerate(lines, 1) if line.strip())
    else:
        found = lines
    for text in found:
        if text is not None and text.strip():
            yield text.strip()


def _field(line: str, wanted: tuple[str, ...], where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{where}: no JSON: {error}") from error
    for key in wanted:
        if isinstance(row, dict) and isinstance(row.get(key), str):
            return str(row[key])
    raise SourceError(f"{where}: no text in {' or '.join(wanted)}; name the field with --column")


def show(scored: HeadlineScore, out: TextIO) -> None:
    """Write a headline and a line for each coin, for people."""
    out.write(f"{scored.text}\n")
    for coin, score in rows_of(scored):
        out.write(
            f"  {coin:8} {score.label:8} {score.signal:+d}  score {score.score:+.3f}   "
            f"p_pos {score.p_pos:.3f}  p_neu {score.p_neu:.3f}  p_neg {score.p_neg:.3f}   "
            f"relevance {score.relevance:.2f}  {score.engine} {score.model_version}\n"
        )


def rows_of(scored: HeadlineScore) -> list[tuple[str, Score]]:
    """Coin and score of each line that is shown; the whole comes last, as ``overall``."""
    return [*scored.coins.items(), ("overall", scored.overall)]


def main(arguments: list[str] | None = None) -> int:
    """Score headlines; the exit code is 1 for an input that is wrong and 2 for settings that are."""
    parser = argparse.ArgumentParser(description="Score headlines as the news_signals service would.")
    parser.add_argument("text", nargs="*", help="a headline; without one, lines of --file or standard input")
    parser.add_argument("--file", type=Path, help="CSV, NDJSON (.ndjson, .jsonl) or a headline a line")
    parser.add_argument("--column", help=f"column or field of the text; {', '.join(COLUMNS)} if unset")
    parser.add_argument("--csv", action="store_true", help="write CSV: the headline and one line per coin")
    parser.add_argument("--engine", choices=("embedded", "llm"), help="NEWS_SIGNALS_ENGINE if unset")
    asked = parser.parse_args(arguments)
    if asked.text and asked.file is not None:
        parser.error("give a headline or a file, not both")
    try:
        with HeadlineScorer(asked.engine) as scorer:
            _write(scorer, _headlines(asked), as_csv=asked.csv)
    except SourceError as error:
        sys.stderr.write(f"sentiment: {error}\n")
        return 1
    except ServiceError as error:
        sys.stderr.write(f"sentiment: {error}\n")
        return 2
    except BrokenPipeError:
        # Whoever read along (head, less) has seen enough.
        sys.stderr.close()
    return 0


def _headlines(asked: argparse.Namespace) -> Iterator[str]:
    """What is to be scored. Raises `SourceError`."""
    if asked.text:
        text = " ".join(asked.text).strip()
        if not text:
            raise SourceError("the headline is empty")
        yield text
        return
    if asked.file is None and sys.stdin is None:
        raise SourceError("no headline given, and the standard input is closed")
    if asked.file is None and sys.stdin.isatty():
        sys.stderr.write("headlines, one a line; Ctrl-D ends\n")
    name, suffix = (str(asked.file), asked.file.suffix) if asked.file else ("standard input", "")
    try:
        with asked.file.open("rb") if asked.file else nullcontext(sys.stdin.buffer) as raw:
            lines = TextIOWrapper(raw, encoding="utf-8-sig", newline="" if asked.file else None)
            yield from read_headlines(lines, suffix, asked.column, name)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{name} cannot be read: {error}") from error


def _write(scorer: HeadlineScorer, texts: Iterable[str], *, as_csv: bool) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(("text", *FIELDS))
    for scored in scorer.scores(texts):
        if not as_csv:
            show(scored, sys.stdout)
            continue
        for coin, score in rows_of(scored):
            writer.writerow((scored.text, coin, *(getattr(score, field) for field in FIELDS[1:])))


if __name__ == "__main__":
    sys.exit(main())
