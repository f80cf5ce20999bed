"""Two ONNX embedding models over a data set with onnxruntime, Pillow and numpy: the peer of the tool's embed stage.

Prints one JSON line: items a second, seconds, peak memory, and the median milliseconds of one session call.

    python embed.py OLD.onnx NEW.onnx DATA [--threads N] [--batch N] [--workers thread|process] [--apart]
    python embed.py --make N FOLDER          N jpegs of 400 x 500 in 50 identities, for a larger set

DATA is a manifest (csv with `path`, jsonl with `text`), or a folder of images. A pool prepares batches ahead of the
sessions, as a DataLoader does. The strong form is the default: items are prepared once for both models, texts are sorted
by length. `--apart` prepares them for each model, as two runs of a script would.

The tool's side (seconds of `embed` in report.json's run.stage_seconds, which include opening the models):

    /usr/bin/time -v compat-audit OLD.onnx NEW.onnx DATA --no-cache --threads N --out /tmp/report --format json
"""

import argparse
import collections
import concurrent.futures
import csv
import json
import pathlib
import resource
import statistics
import time

import numpy as np
import onnxruntime
from PIL import Image

SIZE = None
TOKENIZER = None
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def make(n, folder):
    rng = np.random.default_rng(0)
    for i in range(n):
        identity = folder / f"id{i % 50:03}"
        identity.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (10, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((400, 500), Image.BICUBIC)
        noise = rng.integers(-12, 13, (500, 400, 3))
        levels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(levels).save(identity / f"{i}.jpg", quality=90)


def read_items(data):
    if data.is_dir():
        manifest = next((m for n in ("labels", "manifest") for m in data.glob(f"{n}.*")), None)
        if manifest is None:
            return sorted(p for p in data.rglob("*") if p.suffix.lower() in SUFFIXES), False
        data = manifest
    if data.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in data.open()], True
    return [data.parent / row["path"] for row in csv.DictReader(data.open())], False


def set_size(size):
    global SIZE
    SIZE = size


def image_batch(paths):
    out = np.empty((len(paths), 3, SIZE[0], SIZE[1]), np.float32)
    for slot, path in zip(out, paths):
        image = Image.open(path).convert("RGB")
        if image.size != (SIZE[1], SIZE[0]):
            image = image.resize((SIZE[1], SIZE[0]), Image.BILINEAR)
        slot[:] = (np.asarray(image, np.float32) / np.float32(255)).transpose(2, 0, 1)
    return out


def text_batch(encodings):
    length = max(len(e.ids) for e in encodings)
    ids = np.zeros((len(encodings), length), np.int64)
    mask = np.zeros_like(ids)
    for row, e in enumerate(encodings):
        ids[row, : len(e.ids)] = e.ids
        mask[row, : len(e.ids)] = 1
    return ids, mask


def ahead(pool, prepare, batches, depth):
    """Prepared batches in order, `depth` of them under way."""
    waiting = collections.deque()
    for batch in batches:
        waiting.append(pool.submit(prepare, batch))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed_of(model, prepared, is_text):
    if not is_text:
        return {model.get_inputs()[0].name: prepared}
    ids, mask = prepared
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {i.name: known[i.name] for i in model.get_inputs()}


def pooled(out, prepared, is_text):
    if not is_text or out.ndim == 2:
        return out
    mask = prepared[1][:, :, None].astype(np.float32)
    return (out * mask).sum(1) / np.maximum(mask.sum(1), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    parser.add_argument("--make", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", choices=["thread", "process"], default="thread")
    parser.add_argument("--apart", action="store_true")
    args = parser.parse_args()
    if args.make:
        return make(args.make, args.paths[0])

    started = time.perf_counter()
    old, new, data = args.paths
    items, is_text = read_items(data)
    models = [session(path, args.threads) for path in (old, new)]
    n = len(items)
    order = np.arange(n)
    if is_text:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(old.parent / "tokenizer.json"))
        tokenizer.no_padding()
        items = tokenizer.encode_batch(items)
        order = np.argsort([len(e.ids) for e in items], kind="stable")
        prepare, initializer, arguments = text_batch, None, ()
    else:
        height, width = (d if isinstance(d, int) else 224 for d in models[0].get_inputs()[0].shape[2:])
        prepare, initializer, arguments = image_batch, set_size, ((height, width),)
        set_size((height, width))
    batches = [[items[i] for i in order[at : at + args.batch]] for at in range(0, n, args.batch)]
    kind = {
        "thread": concurrent.futures.ThreadPoolExecutor,
        "process": concurrent.futures.ProcessPoolExecutor,
    }[args.workers]
    calls = []
    embeddings = [[], []]

    def run(which, prepared):
        at = time.perf_counter()
        (out,) = models[which].run(None, feed_of(models[which], prepared, is_text))[:1]
        calls.append(time.perf_counter() - at)
        out = pooled(out, prepared, is_text)
        embeddings[which].append(out / np.linalg.norm(out, axis=1, keepdims=True))

    with kind(args.threads, initializer=initializer, initargs=arguments) as pool:
        if args.apart:
            for which in (0, 1):
                for prepared in ahead(pool, prepare, batches, 2 * args.threads):
                    run(which, prepared)
        else:
            for prepared in ahead(pool, prepare, batches, 2 * args.threads):
                run(0, prepared)
                run(1, prepared)
    for which in (0, 1):
        rows = np.concatenate(embeddings[which])
        embeddings[which] = np.empty_like(rows)
        embeddings[which][order] = rows
    seconds = time.perf_counter() - started
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        json.dumps(
            {
                "items": n,
                "seconds": round(seconds, 4),
                "items_per_second": round(2 * n / seconds, 1),
                "peak_rss_mib": round(max(usage) / 1024, 1),
                "session_call_ms": round(1000 * statistics.median(calls), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
