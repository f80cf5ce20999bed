//! Random draws and designs that the tables share. Run r of a cell draws from stream r of the cell's seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The generator of one run.
pub fn stream(seed: u64, run: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(run);
    rng
}

/// A standard normal draw (Box and Muller).
pub fn gaussian(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.r#gen(), rng.r#gen());
    // 1 - u is in (0, 1].
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// An exponential draw of mean 1.
pub fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    let u: f64 = rng.r#gen();
    -(1.0 - u).ln()
}

/// How many queries an identity has.
#[derive(Clone, Copy, PartialEq)]
pub enum Sizes {
    /// So many each.
    Each(u32),
    /// 1 + a geometric number, mean 5, truncated at 40: most have few, some have many.
    Unequal,
}

impl Sizes {
    /// One identity's number of queries.
    pub fn draw(self, rng: &mut ChaCha8Rng) -> u32 {
        match self {
            Self::Each(n) => n,
            Self::Unequal => {
                // P(stop) = .2 after each query.
                let mut n = 1;
                while n < 40 && rng.r#gen::<f64>() > 0.2 {
                    n += 1;
                }
                n
            }
        }
    }

    /// For a table.
    pub fn name(self) -> String {
        match self {
            Self::Each(n) => n.to_string(),
            Self::Unequal => "1 to 40, mean 5".to_owned(),
        }
    }
}

/// One run's queries.
pub struct Queries {
    /// The change of the measure, one a query.
    pub values: Vec<f64>,
    /// Identity of each query.
    pub identities: Vec<u32>,
}

/// Draws `identities` with their queries; `identity` draws what an identity's queries share, `query` one value.
pub fn queries<E>(
    rng: &mut ChaCha8Rng,
    identities: u32,
    sizes: Sizes,
    identity: impl Fn(&mut ChaCha8Rng) -> E,
    query: impl Fn(&mut ChaCha8Rng, &E) -> f64,
) -> Queries {
    let mut drawn = Queries {
        values: Vec::new(),
        identities: Vec::new(),
    };
    for i in 0..identities {
        let shared = identity(rng);
        for _ in 0..sizes.draw(rng) {
            drawn.values.push(query(rng, &shared));
            drawn.identities.push(i);
        }
    }
    drawn
}
