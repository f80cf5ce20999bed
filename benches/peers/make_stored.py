"""Writes a probe to audit: stored embeddings of two models, a folder of images, or texts.

    make_stored.py --queries 10000 --gallery 1000000 --dim 384 --per-identity 16 --out target/stored
    make_stored.py --kind images --n 5000 --out target/images
    make_stored.py --kind texts --n 10000 --out target/texts

`embeddings` (the data of clusters.py): old.npy and new.npy with their .ids.txt, and manifest.csv (id, identity, role);
queries first. They are written block by block through a memory map, so only the identities' centres stay in memory.
The new model is better in the same frame. Audit with `compat-audit OUT/old.npy OUT/new.npy OUT/manifest.csv`.

`images`: query/IDENTITY/*.jpg and gallery/IDENTITY/*.jpg, 10 pictures an identity, 2 of them queries, 200 x 150 to
400 x 300: an identity is a few coloured shapes, each picture a moved, turned, noisy view of them. audit.toml is that of
fixtures/data/emoji, whose models are to be used.

`texts`: labels.jsonl, the items of fixtures/data/tiny_text over and over, each with 4 to 60 words drawn from all their
texts. To be embedded with that folder's models.
"""

import argparse
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clusters
import numpy as np
from PIL import Image, ImageDraw

EMOJI = Path(__file__).parents[2] / "fixtures/data/emoji"
TINY_TEXT = Path(__file__).parents[2] / "fixtures/data/tiny_text"
QUERIES_PER_IDENTITY = 2
PICTURES, QUERY_PICTURES = 10, 2


def make_embeddings(args: argparse.Namespace) -> None:
    identities = -(-args.gallery // args.per_identity)
    made = clusters.Clusters(identities, args.dim, args.seed)
    queries, items = np.arange(args.queries), np.arange(args.gallery)
    sides = [
        ("query", clusters.QUERIES, (queries // QUERIES_PER_IDENTITY) % identities, queries % QUERIES_PER_IDENTITY),
        ("gallery", clusters.GALLERY, items // args.per_identity, items % args.per_identity),
    ]
    shape = (args.queries + args.gallery, args.dim)
    files = [args.out / f"{model}.npy" for model in ("old", "new")]
    old, new = (np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape) for file in files)
    first = 0
    with open(args.out / "old.ids.txt", "w") as ids, open(args.out / "manifest.csv", "w") as manifest:
        manifest.write("id,identity,role\n")
        for role, stream, identity, member in sides:
            for rows, old_block, new_block in made.rows(identity, member, stream):
                at = slice(first + rows.start, first + rows.stop)
                old[at], new[at] = old_block, new_block
                names = [f"{role[0]}{row:08}" for row in range(rows.start, rows.stop)]
                ids.writelines(f"{name}\n" for name in names)
                manifest.writelines(f"{name},{y},{role}\n" for name, y in zip(names, identity[rows], strict=True))
            first += len(identity)
    shutil.copyfile(args.out / "old.ids.txt", args.out / "new.ids.txt")


def picture(shapes: list[tuple], background: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """One view of an identity."""
    width = int(rng.integers(200, 401))
    height = width * 3 // 4
    image = Image.new("RGB", (width, height), tuple(np.clip(background + rng.normal(0, 12, 3), 0, 255).astype(int)))
    draw = ImageDraw.Draw(image)
    moved, zoom, turn = rng.normal(0, 0.05, 2), rng.uniform(0.8, 1.2), rng.normal(0, 0.2)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for outline, colour in shapes:
        seen = ((outline - 0.5) @ rotation * zoom + 0.5 + moved) * (width, height)
        draw.polygon(
            [tuple(point) for point in seen], fill=tuple(np.clip(colour + rng.normal(0, 15, 3), 0, 255).astype(int))
        )
    noisy = np.asarray(image) + rng.normal(0, 10, (height, width, 1)) + rng.normal(0, 12)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make_identity(identity: int, pictures: int, seed: int, out: Path) -> None:
    """The pictures of one identity, from a stream of its own."""
    rng = np.random.default_rng([seed, identity])
    background = rng.uniform(0, 255, 3)
    shapes = []
    for _ in range(rng.integers(3, 6)):
        angles = np.linspace(0, 2 * np.pi, rng.integers(3, 9), endpoint=False) + rng.uniform(0, np.pi)
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.1, 0.35, 2)
        shapes.append((rng.uniform(0.2, 0.8, 2) + around, rng.uniform(0, 255, 3)))
    for number in range(pictures):
        folder = out / ("query" if number < QUERY_PICTURES else "gallery") / f"{identity:05}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(shapes, background, rng).save(folder / f"{number}.jpg", quality=90)


def make_images(args: argparse.Namespace) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(make_identity, identity, min(PICTURES, args.n - first), args.seed, args.out)
            for identity, first in enumerate(range(0, args.n, PICTURES))
        ]
        for job in jobs:
            job.result()
    shutil.copyfile(EMOJI / "audit.toml", args.out / "audit.toml")


def make_texts(args: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in (TINY_TEXT / "labels.jsonl").open()]
    words = [word for row in rows for word in row["text"].split()]
    rng = np.random.default_rng(args.seed)
    with (args.out / "labels.jsonl").open("w") as out:
        for i in range(args.n):
            drawn = rng.choice(words, size=rng.integers(4, 61))
            row = rows[i % len(rows)] | {"id": f"text{i}", "text": " ".join(drawn)}
            out.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("embeddings", "images", "texts"), default="embeddings")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--per-identity", type=int, default=16, help="gallery items an identity")
    parser.add_argument("--n", type=int, default=5_000, help="images or texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    {"embeddings": make_embeddings, "images": make_images, "texts": make_texts}[args.kind](args)
    print(f"{args.out}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
