"""The formats in which history leaves over HTTP. Pure."""

import io
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

type Format = Literal["json", "parquet", "arrow", "csv"]

MEDIA_TYPES: dict[str, Format] = {
    "application/json": "json",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "text/csv": "csv",
    "application/*": "json",
    "*/*": "json",
}


def choose_format(accept: str | None) -> Format | None:
    """The format a client likes best by its Accept header; None when there is none of them."""
    if accept is None:
        return "json"
    liked: list[tuple[float, Format]] = []
    for item in accept.split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        found = MEDIA_TYPES.get(media_type.lower())
        if found is not None and quality > 0:
            liked.append((quality, found))
    # max keeps the first of equals, as the client listed them.
    return max(liked, key=lambda item: item[0])[1] if liked else None


def render_table(table: pa.Table, chosen: Format) -> tuple[bytes, str]:
    """A table as bytes of any format but JSON, and their media type."""
    sink = io.BytesIO()
    if chosen == "parquet":
        pq.write_table(table, sink, compression="zstd")
    elif chosen == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif chosen == "csv":
        pa.csv.write_csv(table, sink)
    else:
        raise ValueError(f"{chosen} is not written from a table")
    return sink.getvalue(), next(name for name, known in MEDIA_TYPES.items() if known == chosen)
