"""Reads a probe and embeds it: stored .npy rows, or images and texts by onnxruntime with a prefetch."""

import hashlib
import json
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
BATCH, AHEAD = 32, 4
JUNK = -1


@dataclass
class Probe:
    """Items by row; `identity` and `camera` are codes, -1 for junk and for no camera."""

    ids: list[str]
    identity: np.ndarray
    camera: np.ndarray
    is_query: np.ndarray
    is_gallery: np.ndarray
    paths: list[Path] | None
    texts: list[str] | None
    config: dict


def load(data: Path) -> Probe:
    """A manifest, a folder with one in it, query/ and gallery/, or a folder an identity."""
    folder = data if data.is_dir() else data.parent
    config_file = folder / "audit.toml"
    config = tomllib.loads(config_file.read_text()) if config_file.is_file() else {}
    manifest = data
    if data.is_dir():
        named = (path for stem in ("manifest", "labels") for path in data.glob(f"{stem}.*"))
        manifest = next((path for path in named if path.suffix in {".csv", ".jsonl", ".parquet"}), None)
    table = read_manifest(manifest) if manifest else read_folders(data)
    columns = {name.lower(): table[name].cast(pl.String) for name in table.columns}
    label = next(columns[name] for name in ("identity", "label", "class") if name in columns)
    identity = codes(label)
    identity[(label == "-1").to_numpy()] = JUNK
    role = columns["role"].str.to_lowercase() if "role" in columns else pl.Series(["both"] * len(table))
    names = columns["id"] if "id" in columns else columns["path"]
    return Probe(
        ids=names.to_list(),
        identity=identity,
        camera=codes(columns["camera"]) if "camera" in columns else np.full(len(table), -1),
        is_query=role.is_in(["query", "both"]).to_numpy(),
        is_gallery=role.is_in(["gallery", "both"]).to_numpy(),
        paths=[folder / path for path in columns["path"]] if "path" in columns else None,
        texts=columns["text"].to_list() if "text" in columns else None,
        config=config,
    )


def read_manifest(path: Path) -> pl.DataFrame:
    match path.suffix:
        case ".csv":
            return pl.read_csv(path, infer_schema=False)
        case ".jsonl":
            return pl.read_ndjson(path)
        case ".parquet":
            return pl.read_parquet(path)
    raise SystemExit(f"{path}: expected csv, jsonl or parquet")


def read_folders(root: Path) -> pl.DataFrame:
    """One row an image, sorted by path; the identity is the folder that it lies in."""
    sides = ("query", "gallery") if (root / "query").is_dir() else ("",)
    paths = sorted(
        path.relative_to(root).as_posix()
        for side in sides
        for path in (root / side).glob("*/*")
        if path.suffix.lower() in IMAGES
    )
    parts = [path.split("/") for path in paths]
    role = [part[0] if len(sides) == 2 else "both" for part in parts]
    return pl.DataFrame({"path": paths, "identity": [part[-2] for part in parts], "role": role})


def codes(names: pl.Series) -> np.ndarray:
    """A number for each name; -1 where there is none."""
    return names.rank("dense").fill_null(0).cast(pl.Int64).to_numpy() - 1


def embed(probe: Probe, models: list[Path], threads: int, cache: Path | None) -> list[np.ndarray]:
    """L2-normalised float32 rows of each model, in the probe's order."""
    if models[0].suffix == ".npy":
        rows = [read_stored(model, probe.ids) for model in models]
    else:
        files = [cache / f"{key(probe, model)}.npy" for model in models] if cache else []
        if files and all(file.is_file() for file in files):
            rows = [np.load(file) for file in files]
        else:
            rows = infer(probe, models, threads)
            for file, each in zip(files, rows, strict=False):
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, each)
    for each in rows:
        each /= np.sqrt(np.einsum("id,id->i", each, each))[:, None]
    return rows


def read_stored(path: Path, ids: list[str]) -> np.ndarray:
    """Rows of an .npy file by the ids beside it."""
    rows = np.load(path).astype(np.float32, copy=False)
    stored = path.with_suffix(".ids.txt").read_text().splitlines()
    if stored == ids:
        return rows
    row_of_id = {name: row for row, name in enumerate(stored)}
    return rows[[row_of_id[name] for name in ids]]


def key(probe: Probe, model: Path) -> str:
    """What the cached rows depend on: the model, how inputs are prepared, and every input (a file by size and time)."""
    digest = hashlib.sha256(model.read_bytes() + json.dumps(probe.config, sort_keys=True).encode())
    for item in probe.paths or probe.texts:
        stat = item.stat() if isinstance(item, Path) else None
        digest.update(f"{item} {stat.st_size} {stat.st_mtime_ns}\n".encode() if stat else f"{item}\n".encode())
    return digest.hexdigest()[:16]


def infer(probe: Probe, models: list[Path], threads: int) -> list[np.ndarray]:
    """Runs both models on batches that are prepared ahead, once where both ask for the same."""
    # Not at the top: stored embeddings need no runtime.
    from session import opened

    sessions = [opened(model, threads) for model in models]
    if probe.paths:
        order = np.arange(len(probe.ids))
        configs = [probe.config.get(side, {}) for side in ("old", "new")]
        sides = [image_settings(*of) for of in zip(configs, sessions, strict=True)]
        prepare = image_batches(probe.paths, sides)
    else:
        order = np.argsort([len(text) for text in probe.texts], kind="stable")
        prepare = text_batches(probe.texts, models)
    outs: list[list[np.ndarray]] = [[], []]
    for inputs in prefetch(prepare, order, threads):
        for session, named, out in zip(sessions, inputs, outs, strict=True):
            out.append(run(session, named))
    rows = [np.concatenate(out).astype(np.float32, copy=False) for out in outs]
    back = np.argsort(order, kind="stable")
    return [each[back] for each in rows]


def run(session, named: dict[str, np.ndarray] | np.ndarray) -> np.ndarray:
    """One batch; token embeddings are averaged over the mask."""
    if isinstance(named, np.ndarray):
        return session.run(None, {session.get_inputs()[0].name: named})[0]
    wanted = {spec.name: named[spec.name] for spec in session.get_inputs()}
    out = session.run(None, wanted)[0]
    if out.ndim == 2:
        return out
    mask = named["attention_mask"][:, :, None].astype(np.float32)
    return (out * mask).sum(axis=1) / mask.sum(axis=1)


def prefetch(prepare: Callable[[np.ndarray], list], order: np.ndarray, threads: int) -> Iterator[list]:
    """Batches in order, a few of them prepared ahead."""
    batches = iter(np.split(order, range(BATCH, len(order), BATCH)))
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future] = deque(pool.submit(prepare, batch) for batch in islice(batches, AHEAD))
        while waiting:
            ready = waiting.popleft().result()
            if (batch := next(batches, None)) is not None:
                waiting.append(pool.submit(prepare, batch))
            yield ready


def image_settings(side: dict, session) -> tuple[int, int, str, bytes]:
    """(height, width, filter, table of float32 values by channel and level) from sidecar and input [batch, 3, h, w]."""
    known = {"scale", "mean", "std", "size", "filter"}
    if unknown := set(side) - known:
        raise SystemExit(f"audit.toml: {', '.join(sorted(unknown))} is not supported, only {', '.join(sorted(known))}")
    height, width = session.get_inputs()[0].shape[2:]
    if "size" in side:
        height, width = (side["size"], side["size"]) if isinstance(side["size"], int) else side["size"]
    mean, std = (np.array(side.get(name, [each] * 3))[:, None] for name, each in (("mean", 0.0), ("std", 1.0)))
    table = (np.arange(256) * side.get("scale", 1 / 255) - mean) / std
    return height, width, side.get("filter", "bilinear"), table.astype(np.float32).tobytes()


def image_batches(paths: list[Path], sides: list[tuple]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Decodes a batch once, and prepares it once where both models want the same."""
    from PIL import Image

    def prepare(batch: np.ndarray) -> list[np.ndarray]:
        images = [Image.open(paths[item]).convert("RGB") for item in batch]
        made = {side: prepare_images(images, *side) for side in set(sides)}
        return [made[side] for side in sides]

    def prepare_images(images: list, height: int, width: int, filter_name: str, table: bytes) -> np.ndarray:
        resample = Image.Resampling[filter_name.upper()]
        sized = [
            image if image.size == (width, height) else image.resize((width, height), resample) for image in images
        ]
        levels = np.stack([np.asarray(image) for image in sized])
        values = np.frombuffer(table, dtype=np.float32).reshape(3, 256)
        return np.stack([values[channel][levels[..., channel]] for channel in range(3)], axis=1)

    return prepare


def text_batches(texts: list[str], models: list[Path]) -> Callable[[np.ndarray], list[dict[str, np.ndarray]]]:
    """Tokenises a batch by the tokenizer.json beside each model, once where it is the same file."""
    from tokenizers import Tokenizer

    files = [model.parent / "tokenizer.json" for model in models]
    tokenizers = {file: Tokenizer.from_file(str(file)) for file in files}

    def prepare(batch: np.ndarray) -> list[dict[str, np.ndarray]]:
        made = {}
        for file, tokenizer in tokenizers.items():
            encoded = tokenizer.encode_batch([texts[item] for item in batch])
            parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
            made[file] = {name: np.array([getattr(row, part) for row in encoded]) for name, part in parts.items()}
        return [made[file] for file in files]

    return prepare
