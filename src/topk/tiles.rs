//! The tiles: chains of as many pairs as the registers hold, and their twins in integers.
//!
//! Intrinsics, because the vectoriser turns tiles of this size inside out.

/// Bytes of the panel and of the queries that a wide tile asks for ahead, because together they do not fit in the nearest cache: on
/// Emerald Rapids a pass over 384 dimensions is 11 % faster so.
#[cfg(target_arch = "x86_64")]
const AHEAD: [usize; 2] = [2 << 10, 512];

/// Asks for the line so many bytes behind `at`, which may lie anywhere.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ask_for<T>(at: *const T, bytes: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: nothing is read: a line that is not there is not fetched.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(bytes)) };
}

/// Continues Q x W chains, for whatever the target has.
#[inline(always)]
pub fn portable_tile<const Q: usize, const W: usize, const L2: bool>(
    queries: &[f32],
    panel: &[f32],
    rows: &mut [[f32; W]; Q],
) {
    for (column, values) in panel.chunks_exact(W).zip(queries.chunks_exact(Q)) {
        let column: &[f32; W] = column.try_into().expect("a chunk of that size");
        let values: &[f32; Q] = values.try_into().expect("a chunk of that size");
        for (row, &value) in rows.iter_mut().zip(values) {
            for (sum, &item) in row.iter_mut().zip(column) {
                let (a, b) = if L2 {
                    (value - item, value - item)
                } else {
                    (value, item)
                };
                *sum = a.mul_add(b, *sum);
            }
        }
    }
}

/// Continues 6 x 16 chains in 12 registers; two more hold the column, one the query's value.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
pub fn avx2_tile<const L2: bool>(queries: &[f32], panel: &[f32], rows: &mut [[f32; 16]; 6]) {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
        _mm256_sub_ps,
    };
    let mut sums = [[_mm256_setzero_ps(); 2]; 6];
    for (row, sums) in rows.iter().zip(&mut sums) {
        for (half, sum) in row.chunks_exact(8).zip(sums) {
            // SAFETY: the chunk has 8 values.
            *sum = unsafe { _mm256_loadu_ps(half.as_ptr()) };
        }
    }
    for (column, values) in panel.chunks_exact(16).zip(queries.chunks_exact(6)) {
        let values: &[f32; 6] = values.try_into().expect("a chunk of that size");
        // SAFETY: the chunk has 2 x 8 values.
        let column = unsafe {
            [
                _mm256_loadu_ps(column.as_ptr()),
                _mm256_loadu_ps(column.as_ptr().add(8)),
            ]
        };
        for (sums, &value) in sums.iter_mut().zip(values) {
            let value = _mm256_set1_ps(value);
            for (sum, column) in sums.iter_mut().zip(column) {
                let (a, b) = if L2 {
                    let difference = _mm256_sub_ps(value, column);
                    (difference, difference)
                } else {
                    (value, column)
                };
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
    }
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (half, sum) in row.chunks_exact_mut(8).zip(sums) {
            // SAFETY: the chunk has 8 values.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), sum) };
        }
    }
}

/// Continues 14 x 32 chains in 28 registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub fn avx512_tile<const L2: bool>(queries: &[f32], panel: &[f32], rows: &mut [[f32; 32]; 14]) {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
        _mm512_sub_ps,
    };
    let mut sums = [[_mm512_setzero_ps(); 2]; 14];
    for (row, sums) in rows.iter().zip(&mut sums) {
        for (half, sum) in row.chunks_exact(16).zip(sums) {
            // SAFETY: the chunk has 16 values.
            *sum = unsafe { _mm512_loadu_ps(half.as_ptr()) };
        }
    }
    for (column, values) in panel.chunks_exact(32).zip(queries.chunks_exact(14)) {
        let values: &[f32; 14] = values.try_into().expect("a chunk of that size");
        ask_for(column.as_ptr(), AHEAD[0]);
        ask_for(column[16..].as_ptr(), AHEAD[0]);
        ask_for(values.as_ptr(), AHEAD[1]);
        // SAFETY: the chunk has 2 x 16 values.
        let column = unsafe {
            [
                _mm512_loadu_ps(column.as_ptr()),
                _mm512_loadu_ps(column.as_ptr().add(16)),
            ]
        };
        for (sums, &value) in sums.iter_mut().zip(values) {
            let value = _mm512_set1_ps(value);
            for (sum, column) in sums.iter_mut().zip(column) {
                let (a, b) = if L2 {
                    let difference = _mm512_sub_ps(value, column);
                    (difference, difference)
                } else {
                    (value, column)
                };
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
    }
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (half, sum) in row.chunks_exact_mut(16).zip(sums) {
            // SAFETY: the chunk has 16 values.
            unsafe { _mm512_storeu_ps(half.as_mut_ptr(), sum) };
        }
    }
}

/// Q x W sums of products of codes, four dimensions a word: those of the queries signed, those of the panel raised by 128,
/// which `starts` makes good. Wraps: what goes round on the way comes back.
#[inline(always)]
pub fn portable_code_tile<const Q: usize, const W: usize>(
    queries: &[u32],
    panel: &[u32],
    starts: &[i32; Q],
    rows: &mut [[i32; W]; Q],
) {
    *rows = starts.map(|start| [start; W]);
    for (column, words) in panel.chunks_exact(W).zip(queries.chunks_exact(Q)) {
        for (row, word) in rows.iter_mut().zip(words) {
            for (sum, item) in row.iter_mut().zip(column) {
                let pairs = word.to_le_bytes().into_iter().zip(item.to_le_bytes());
                let products = pairs.map(|(q, g)| i32::from(q.cast_signed()) * i32::from(g));
                *sum = sum.wrapping_add(products.sum());
            }
        }
    }
}

/// The same 14 x 32 sums in 28 registers; one instruction multiplies and adds 64 codes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
pub fn vnni_code_tile(
    queries: &[u32],
    panel: &[u32],
    starts: &[i32; 14],
    rows: &mut [[i32; 32]; 14],
) {
    use std::arch::x86_64::{
        _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };
    let mut sums = [[_mm512_setzero_si512(); 2]; 14];
    for (sums, &start) in sums.iter_mut().zip(starts) {
        *sums = [_mm512_set1_epi32(start); 2];
    }
    for (column, words) in panel.chunks_exact(32).zip(queries.chunks_exact(14)) {
        let words: &[u32; 14] = words.try_into().expect("a chunk of that size");
        ask_for(column.as_ptr(), AHEAD[0]);
        ask_for(column[16..].as_ptr(), AHEAD[0]);
        ask_for(words.as_ptr(), AHEAD[1]);
        // SAFETY: the chunk has 2 x 16 words.
        let column = unsafe {
            [
                _mm512_loadu_si512(column.as_ptr().cast()),
                _mm512_loadu_si512(column.as_ptr().add(16).cast()),
            ]
        };
        for (sums, &word) in sums.iter_mut().zip(words) {
            let word = _mm512_set1_epi32(word.cast_signed());
            for (sum, column) in sums.iter_mut().zip(column) {
                *sum = _mm512_dpbusd_epi32(*sum, column, word);
            }
        }
    }
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (half, sum) in row.chunks_exact_mut(16).zip(sums) {
            // SAFETY: the chunk has 16 sums.
            unsafe { _mm512_storeu_si512(half.as_mut_ptr().cast(), sum) };
        }
    }
}

/// Pairs that are scored together, each in a lane.
pub const PAIRS: usize = 16;

/// Single pairs of queries with items of one panel.
pub struct Pairs<'a> {
    /// The query of each pair.
    pub queries: [&'a [f32]; PAIRS],
    /// The items, as wide as the tile.
    pub panel: &'a [f32],
    /// The item of each pair within the panel.
    pub lanes: [u32; PAIRS],
}

/// Sums of products, a chain a pair, for whatever the target has; W items a panel.
#[inline(always)]
pub fn portable_pairs<const W: usize>(pairs: &Pairs<'_>) -> [f32; PAIRS] {
    std::array::from_fn(|i| {
        let items = pairs.panel.chunks_exact(W);
        let factors = pairs.queries[i].iter().zip(items);
        let lane = pairs.lanes[i] as usize;
        factors.fold(0.0, |sum, (q, column)| q.mul_add(column[lane], sum))
    })
}

/// The same for panels of 32: 16 dimensions of the 16 queries are turned round in registers, so that a step of all
/// chains is one instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub fn avx512_pairs(pairs: &Pairs<'_>) -> [f32; PAIRS] {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps,
        _mm512_permutex2var_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    let dim = pairs.queries[0].len();
    assert!(pairs.queries.iter().all(|query| query.len() == dim));
    // SAFETY: 16 numbers of 4 bytes.
    let lanes = unsafe { _mm512_loadu_si512(pairs.lanes.as_ptr().cast()) };
    let mut sums = _mm512_setzero_ps();
    for begin in (0..dim).step_by(PAIRS) {
        let n = PAIRS.min(dim - begin);
        let mut steps = [_mm512_setzero_ps(); PAIRS];
        for (step, query) in steps.iter_mut().zip(&pairs.queries) {
            let mask = u16::MAX >> (PAIRS - n);
            // SAFETY: the mask takes those of the 16 numbers that are the query's.
            *step = unsafe { _mm512_maskz_loadu_ps(mask, query.as_ptr().add(begin)) };
        }
        let steps = transposed(steps);
        let columns = pairs.panel[begin * 32..(begin + n) * 32].chunks_exact(32);
        for (column, step) in columns.zip(steps) {
            // SAFETY: the chunk has 2 x 16 values.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_ps(column.as_ptr()),
                    _mm512_loadu_ps(column.as_ptr().add(16)),
                )
            };
            let items = _mm512_permutex2var_ps(low, lanes, high);
            sums = _mm512_fmadd_ps(step, items, sums);
        }
    }
    let mut found = [0.0; PAIRS];
    // SAFETY: room for 16 sums.
    unsafe { _mm512_storeu_ps(found.as_mut_ptr(), sums) };
    found
}

/// Rows into columns: fours of rows, then the quarters of the registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(rows: [std::arch::x86_64::__m512; PAIRS]) -> [std::arch::x86_64::__m512; PAIRS] {
    use std::arch::x86_64::{
        _mm512_castpd_ps, _mm512_castps_pd, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };
    // fours[f][k]: in quarter j, columns 4 j + k of rows 4 f to 4 f + 3.
    let mut fours = [[_mm512_setzero_ps(); 4]; 4];
    for (four, rows) in fours.iter_mut().zip(rows.chunks_exact(4)) {
        let low = [
            _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1])),
            _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3])),
        ];
        let high = [
            _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1])),
            _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3])),
        ];
        *four = [
            _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1])),
            _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1])),
        ];
    }
    // Even quarters of two, odd quarters of two.
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    let mut columns = rows;
    for k in 0..4 {
        let [a, b, c, d] = [fours[0][k], fours[1][k], fours[2][k], fours[3][k]];
        let even = [
            _mm512_shuffle_f32x4::<EVEN>(a, b),
            _mm512_shuffle_f32x4::<EVEN>(c, d),
        ];
        let odd = [
            _mm512_shuffle_f32x4::<ODD>(a, b),
            _mm512_shuffle_f32x4::<ODD>(c, d),
        ];
        columns[k] = _mm512_shuffle_f32x4::<EVEN>(even[0], even[1]);
        columns[4 + k] = _mm512_shuffle_f32x4::<EVEN>(odd[0], odd[1]);
        columns[8 + k] = _mm512_shuffle_f32x4::<ODD>(even[0], even[1]);
        columns[12 + k] = _mm512_shuffle_f32x4::<ODD>(odd[0], odd[1]);
    }
    columns
}
