#!/bin/sh
# Runs the tests of all `unsafe` code under AddressSanitizer: src/topk and src/domain/embeddings, alone in a crate under
# target/asan, because the whole project would take many minutes to build once more. RUSTC_BOOTSTRAP lets a stable compiler
# take the flag; the sanitizer's runtime comes with the toolchain on x86_64 Linux.
set -eu
cd "$(dirname "$0")/.."
into=target/asan
rm -rf "$into/src"
mkdir -p "$into/src/domain"
cp -r src/topk src/topk.rs "$into/src"
cp -r src/domain/embeddings src/domain/embeddings.rs src/domain/progress.rs "$into/src/domain"
cat > "$into/src/lib.rs" <<'RUST'
#![allow(dead_code)]
pub mod config {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Similarity {
        Cosine,
        Ip,
        L2,
    }
}
pub mod domain {
    mod embeddings;
    mod progress;
    pub use embeddings::*;
    pub use progress::*;
}
pub mod topk;
RUST
{
    printf '[package]\nname = "asan"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n'
    for crate in bytemuck half memmap2 ndarray proptest rand rand_chacha rayon tempfile thiserror; do
        grep "^$crate = " Cargo.toml
    done
} > "$into/Cargo.toml"
cp Cargo.lock "$into"
RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
    cargo test --manifest-path "$into/Cargo.toml" --release --target x86_64-unknown-linux-gnu --lib
