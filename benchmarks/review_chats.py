"""Write chats for the benchmarks: film reviews as questions, `positive` or `negative` as answers.

    python benchmarks/review_chats.py --text IMDB_FOLDER --out CHATS.jsonl [--count 1500]

The reviews are the first ones of train.parquet, whose columns are `text` and `label` (0 negative, 1 positive).
"""

import argparse
import json
from pathlib import Path

import pyarrow.parquet as pq

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=1500)
    given = parser.parse_args()
    rows = pq.read_table(Path(given.text) / "train.parquet", columns=["text", "label"]).to_pylist()[: given.count]
    with Path(given.out).open("w", encoding="utf-8") as file:
        for row in rows:
            question = f"Is this film review positive or negative?\n\n{row['text']}"
            answer = "positive" if row["label"] else "negative"
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")
