"""Tables in files, CSV or JSON, written row by row so that they may have any length."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping

Record = Mapping[str, str | float]


def check_records_file(path: pathlib.Path | None) -> None:
    """Checks the name of a file for `write_records`, before any work is done, and creates its folder.

    Raises:
        ValueError: If the path does not end with `.csv` or `.json`, or if it is a folder.
        OSError: If the folder cannot be created.
    """
    if path is not None:
        if path.suffix.lower() not in (".csv", ".json") or path.is_dir():
            raise ValueError(f"Expected the path of a .csv or .json file; received: {path}")
        path.parent.mkdir(parents=True, exist_ok=True)


def write_records(path: pathlib.Path, records: Iterable[Record]) -> int:
    """Writes records that all have the same keys. Only one of them is in memory at a time.

    What was written is a valid file even if the records end with an exception.

    Args:
        path: A `.csv` file, which gets a header with the keys, or a `.json` file, which gets a list of objects.
        records: The rows, as mappings from columns to values.

    Returns:
        The number of records.
    """
    write = _write_csv if path.suffix.lower() == ".csv" else _write_json
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # names of files may not be UTF-8
        return write(file, records)


def _write_csv(file, records):
    writer, count = csv.writer(file, lineterminator="\n"), 0
    for count, record in enumerate(records, 1):
        if count == 1:
            writer.writerow(record)
        writer.writerow(record.values())
    return count


def _write_json(file, records):
    count = 0
    file.write("[")
    try:
        for count, record in enumerate(records, 1):
            file.write(("\n" if count == 1 else ",\n") + json.dumps(record, ensure_ascii=False))
    finally:
        file.write("\n]\n")
    return count
