//! In which order the gallery is re-embedded, and at which step each item's turn comes.

use std::borrow::Cow;

use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::STEPS;

/// First stream of the random orders; the streams below are those of the label permutations.
const FIRST_STREAM: u64 = 1 << 32;

/// An order in which the gallery may be re-embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    positions: Vec<u32>,
}

impl Order {
    /// From gallery positions, each exactly once.
    ///
    /// # Panics
    /// When it is no permutation.
    pub fn new(positions: Vec<u32>) -> Self {
        let mut is_named = vec![false; positions.len()];
        for &position in &positions {
            let is_new = is_named
                .get_mut(position as usize)
                .is_some_and(|named| !std::mem::replace(named, true));
            assert!(is_new, "an order names each gallery position once");
        }
        Self { positions }
    }

    /// The seed's random order number `index` of `n` positions.
    pub fn random(n: usize, seed: u64, index: usize) -> Self {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(FIRST_STREAM + index as u64);
        let mut positions: Vec<u32> = (0..n as u32).collect();
        positions.shuffle(&mut rng);
        Self { positions }
    }

    /// Gallery positions, first to be re-embedded first.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Items re-embedded at a step: the share step / STEPS of all, rounded half up.
    pub fn items_at(&self, step: usize) -> usize {
        (step * self.positions.len() + STEPS / 2) / STEPS
    }
}

/// The step at which each order re-embeds each gallery position, 1 to STEPS; those of one position together.
pub struct FirstSteps {
    pub(super) n_orders: usize,
    steps: Vec<u8>,
}

impl FirstSteps {
    /// All that is kept of the orders, of which there are `n_orders`, each of `n` positions: those of galleries of millions
    /// need not exist at the same time.
    pub fn new<'a>(
        n: usize,
        n_orders: usize,
        orders: impl Iterator<Item = Cow<'a, Order>>,
    ) -> Self {
        let mut steps = vec![0; n * n_orders];
        for (number, order) in orders.enumerate() {
            assert!(number < n_orders, "no more orders than announced");
            let mut step = 1;
            for (index, &position) in order.positions.iter().enumerate() {
                while order.items_at(step) <= index {
                    step += 1;
                }
                steps[position as usize * n_orders + number] = step as u8;
            }
        }
        Self { n_orders, steps }
    }

    /// One step an order.
    pub(super) fn of(&self, position: usize) -> &[u8] {
        &self.steps[position * self.n_orders..(position + 1) * self.n_orders]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_nested_and_end_with_the_whole_gallery() {
        for n in [1, 3, 19, 20, 738] {
            let order = Order::random(n, 1, 0);
            assert_eq!((order.items_at(0), order.items_at(STEPS)), (0, n));
            let first = FirstSteps::new(n, 1, std::iter::once(Cow::Borrowed(&order)));
            for step in 0..=STEPS {
                let refreshed = first
                    .steps
                    .iter()
                    .filter(|&&s| usize::from(s) <= step)
                    .count();
                assert_eq!(refreshed, order.items_at(step), "n {n} step {step}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "once")]
    fn an_order_that_repeats_a_position_is_refused() {
        Order::new(vec![0, 0]);
    }
}
