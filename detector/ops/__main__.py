"""python -m detector.ops: which implementation runs for each operator, device and dtype."""

import torch

from detector.ops import implementation_table


def main() -> None:
    """Prints the table, one line for each operator, device and dtype."""
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} thread{'s' if threads > 1 else ''}")
    columns = ("op", "device", "dtype", "implementation", "reason")
    rows = [dict(zip(columns, columns, strict=True)), *implementation_table()]
    widths = {key: max(len(row[key]) for row in rows) for key in columns}
    for row in rows:
        print("  ".join(row[key].ljust(widths[key]) for key in columns).rstrip())


if __name__ == "__main__":
    main()
