//! Neighborhood Consensus Contrastive Learning (NCCL; Wu et al., AAAI 2022) on a head over the frozen new model.
//!
//! With h_i the head's embedding of item i, o_j the old embedding of item j, all of unit length, c_j = 1 where o_j is
//! credible, and softmax_k over the queue of old embeddings:
//!
//! - embedding space, sub-clusters: L_emb = - mean_i sum_j w_ij ln softmax_j(<h_i, o_k> / tau), with
//!   w_ij ~ c_j exp((<o_i, o_j> - 1) / tau_w) over the items j of i's identity, i included, and sum_j w_ij = 1. Small tau_w
//!   is the item's own old embedding alone, large tau_w the whole identity; without labels j runs over all items.
//! - discrimination space, dual: L_dis = mean_i KL(p_i^o || p_i^h), p = softmax over the prototypes of the old sub-clusters
//!   (their credible items' mean), of o_i and of h_i, at tau.
//! - mutual transfer: L_keep = mean_i KL(q_i || q_i^h), softmax over the other items of the batch, of the new model's own
//!   similarities and of the head's: what holds new->new.
//! - nearness to the start: L_near = |W - W_0|^2 + |B|^2.
//!
//! Means in the first two are over items with a credible old embedding. The paper trains the whole model and weighs its
//! terms anew for each data set; the weights here are fixed ([`Objective`]). Automatic differentiation is candle's
//! (<https://github.com/huggingface/candle>): alive, permissive, one crate for the CPU, CUDA behind a feature; burn
//! is a framework, of which these few operations would use little.

use candle_core::{D, Device, Result, Tensor, Var};
use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::head::Head;

/// What is learnt from.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    /// New embeddings, shape (items, new dim), rows of unit length.
    pub new: Array2<f32>,
    /// Old embeddings, shape (items, old dim), rows of unit length.
    pub old: Array2<f32>,
    /// Identity of each item; `None` without labels.
    pub identity: Option<Vec<u32>>,
    /// Sub-cluster of each item: any number, equal within one; `None`: of none.
    pub subcluster: Vec<Option<u32>>,
    /// Whether each old embedding is credible.
    pub credible: Vec<bool>,
}

/// Weights and temperatures of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// tau, > 0.
    pub temperature: f64,
    /// tau_w, > 0; `None`: the item's own old embedding is its only positive (instance-level contrast).
    pub affinity_temperature: Option<f64>,
    /// Weight of L_dis.
    pub discrimination: f64,
    /// Weight of L_keep.
    pub keep: f64,
    /// Weight of L_near.
    pub near: f64,
}

impl Default for Objective {
    /// Found on `emoji/new_incompatible` by cross-fits of other splits than the published ones (`docs/nccl.md`).
    fn default() -> Self {
        Self {
            temperature: 0.1,
            affinity_temperature: Some(0.1),
            discrimination: 0.5,
            keep: 1.0,
            near: 0.03,
        }
    }
}

/// Prototypes of the discrimination space, at most: beyond it they are drawn.
const PROTOTYPES: usize = 4096;

/// What a masked logit becomes: far below any, and its exponential 0.
const MASKED: f32 = -1e9;

/// The terms of the loss at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    /// L_emb.
    pub embedding: f32,
    /// L_dis.
    pub discrimination: f32,
    /// L_keep.
    pub keep: f32,
}

/// The loss over pairs.
pub struct Loss<'a> {
    pairs: &'a Pairs,
    objective: Objective,
    device: Device,
    /// W_0.
    start: Tensor,
    /// Shape (prototypes, old dim).
    prototypes: Tensor,
}

/// What one step looks at.
pub struct Batch {
    new: Tensor,
    queue: Tensor,
    /// Positives, shape (batch, queue).
    weights: Tensor,
    /// 1 where the item's old embedding is credible, shape (batch,).
    credible: Tensor,
    /// p^o over the prototypes.
    teacher: Tensor,
    /// q over the batch.
    neighbours: Tensor,
    /// 0, and [`MASKED`] on the diagonal.
    diagonal: Tensor,
}

impl<'a> Loss<'a> {
    /// `start` is a linear head; the seed draws prototypes where there are too many.
    ///
    /// # Errors
    /// candle's.
    pub fn new(
        pairs: &'a Pairs,
        objective: Objective,
        start: &Head,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        Ok(Self {
            start: matrix(start.weights.view(), &device)?,
            prototypes: matrix(prototypes(pairs, seed).view(), &device)?,
            pairs,
            objective,
            device,
        })
    }

    /// What a step on these items sees; the positives are looked for in `queue`.
    ///
    /// # Errors
    /// candle's.
    pub fn batch(&self, items: &[usize], queue: &[usize]) -> Result<Batch> {
        let device = &self.device;
        let take = |of: &Array2<f32>, rows: &[usize]| of.select(ndarray::Axis(0), rows);
        let (new, old) = (take(&self.pairs.new, items), take(&self.pairs.old, items));
        let others = take(&self.pairs.old, queue);
        let weights = positives(
            self.pairs,
            &self.objective,
            items,
            queue,
            old.dot(&others.t()),
        );
        let credible: Vec<f32> = items
            .iter()
            .map(|&item| f32::from(u8::from(self.pairs.credible[item])))
            .collect();
        let diagonal = Array2::from_diag_elem(items.len(), MASKED);
        let new = matrix(new.view(), device)?;
        let diagonal = matrix(diagonal.view(), device)?;
        let tau = self.objective.temperature;
        let neighbours = ((new.matmul(&new.t()?)? / tau)? + &diagonal)?;
        let teacher = (matrix(old.view(), device)?.matmul(&self.prototypes.t()?)? / tau)?;
        Ok(Batch {
            queue: matrix(others.view(), device)?,
            weights: matrix(weights.view(), device)?,
            credible: Tensor::from_vec(credible, items.len(), device)?,
            teacher: log_softmax(&teacher)?,
            neighbours: log_softmax(&neighbours)?,
            new,
            diagonal,
        })
    }

    /// The loss and its terms. `vars` are W, then with a hidden layer A, b, B.
    ///
    /// # Errors
    /// candle's.
    pub fn of(&self, vars: &[Var], batch: &Batch) -> Result<(Tensor, Losses)> {
        let Objective {
            temperature: tau,
            discrimination,
            keep,
            near,
            ..
        } = self.objective;
        let mut y = batch.new.matmul(&vars[0])?;
        if let [_, inward, bias, outward] = vars {
            let hidden = batch.new.matmul(inward)?.broadcast_add(bias)?.relu()?;
            y = (y + hidden.matmul(outward)?)?;
        }
        let length = (y.sqr()?.sum_keepdim(D::Minus1)? + f64::from(f32::MIN_POSITIVE))?.sqrt()?;
        let h = y.broadcast_div(&length)?;
        let assessed = batch.credible.sum_all()?.to_scalar::<f32>()?.max(1.0);
        // Of the credible items only.
        let mean =
            |per_item: Tensor| (per_item * &batch.credible)?.sum_all()? / f64::from(assessed);

        let chosen = log_softmax(&(h.matmul(&batch.queue.t()?)? / tau)?)?;
        let embedding = mean((&batch.weights * chosen)?.sum(D::Minus1)?)?.neg()?;
        let student = log_softmax(&(h.matmul(&self.prototypes.t()?)? / tau)?)?;
        let dual = mean(divergence(&batch.teacher, &student)?)?;
        let own = log_softmax(&((h.matmul(&h.t()?)? / tau)? + &batch.diagonal)?)?;
        let transfer = divergence(&batch.neighbours, &own)?.mean_all()?;
        let mut nearness = (vars[0].as_tensor() - &self.start)?.sqr()?.sum_all()?;
        if let Some(outward) = vars.get(3) {
            nearness = (nearness + outward.sqr()?.sum_all()?)?;
        }
        let loss = (&embedding + (&dual * discrimination)?)?;
        let loss = ((loss + (&transfer * keep)?)? + (nearness * near)?)?;
        let losses = Losses {
            embedding: embedding.to_scalar()?,
            discrimination: dual.to_scalar()?,
            keep: transfer.to_scalar()?,
        };
        Ok((loss, losses))
    }
}

/// w_ij, shape (items, queue); `cosines` are those of the old embeddings. Rows without a credible positive are 0.
fn positives(
    pairs: &Pairs,
    objective: &Objective,
    items: &[usize],
    queue: &[usize],
    cosines: Array2<f32>,
) -> Array2<f32> {
    let mut weights = cosines;
    for (mut row, &i) in weights.rows_mut().into_iter().zip(items) {
        for (weight, &j) in row.iter_mut().zip(queue) {
            let is_same = match (&pairs.identity, objective.affinity_temperature) {
                (_, None) => i == j,
                (Some(identity), _) => identity[i] == identity[j],
                (None, _) => true,
            };
            *weight = match objective.affinity_temperature {
                _ if !is_same || !pairs.credible[j] => 0.0,
                Some(tau) => (f64::from(*weight - 1.0) / tau).exp() as f32,
                None => 1.0,
            };
        }
        let sum = row.sum();
        if sum > 0.0 {
            row /= sum;
        }
    }
    weights
}

/// The mean of each sub-cluster's credible old embeddings (of all, where none is), of unit length, shape (sub-clusters, dim).
fn prototypes(pairs: &Pairs, seed: u64) -> Array2<f32> {
    let mut members = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (item, subcluster) in pairs.subcluster.iter().enumerate() {
        if let Some(subcluster) = *subcluster {
            members.entry(subcluster).or_default().push(item);
        }
    }
    let mut groups: Vec<Vec<usize>> = members.into_values().collect();
    if groups.len() > PROTOTYPES {
        groups.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        groups.truncate(PROTOTYPES);
    }
    let mut prototypes = Array2::zeros((groups.len(), pairs.old.ncols()));
    for (mut row, group) in prototypes.rows_mut().into_iter().zip(&groups) {
        let any = group.iter().any(|&item| pairs.credible[item]);
        for &item in group.iter().filter(|&&item| pairs.credible[item] || !any) {
            row += &pairs.old.row(item);
        }
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        if length > 0.0 {
            row /= length;
        }
    }
    prototypes
}

/// A matrix of candle.
///
/// # Errors
/// candle's.
pub fn matrix(values: ArrayView2<'_, f32>, device: &Device) -> Result<Tensor> {
    let shape = values.dim();
    Tensor::from_vec(values.iter().copied().collect::<Vec<f32>>(), shape, device)
}

/// Logarithm of the softmax over the last axis.
fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&total)
}

/// KL(p || q) over the last axis, of logarithms. A masked p counts nothing.
fn divergence(log_p: &Tensor, log_q: &Tensor) -> Result<Tensor> {
    let p = log_p.exp()?;
    (p * (log_p - log_q)?)?.sum(D::Minus1)
}

#[cfg(test)]
pub mod tests {
    use rand::Rng;

    use super::super::head::HeadKind;
    use super::*;

    pub fn units(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut values = Array2::from_shape_fn((rows, columns), |_| rng.gen_range(-1.0_f32..1.0));
        for mut row in values.rows_mut() {
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row /= length;
        }
        values
    }

    pub fn pairs(n: usize) -> Pairs {
        Pairs {
            new: units(n, 5, 1),
            old: units(n, 4, 2),
            identity: Some((0..n as u32).map(|i| i / 3).collect()),
            subcluster: (0..n as u32).map(|i| Some(i / 2)).collect(),
            credible: (0..n).map(|i| i % 4 != 1).collect(),
        }
    }

    pub fn start() -> Head {
        let weights = units(5, 4, 3).mapv(f64::from);
        Head::linear(HeadKind::Orthogonal, &weights)
    }

    fn variable(values: &Array2<f32>) -> Var {
        Var::from_tensor(&matrix(values.view(), &Device::Cpu).expect("made")).expect("made")
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let total: f64 = logits.iter().map(|v| v.exp()).sum();
        logits.iter().map(|v| v.exp() / total).collect()
    }

    /// The loss of the docstring, one number at a time: its three terms.
    fn naive(pairs: &Pairs, head: &Head, objective: &Objective) -> [f64; 3] {
        let n = pairs.new.nrows();
        let tau = objective.temperature;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let row =
            |m: &Array2<f32>, i: usize| m.row(i).iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mut mapped = head.apply(pairs.new.view());
        for mut y in mapped.rows_mut() {
            let length = y.iter().map(|v| v * v).sum::<f32>().sqrt();
            y /= length;
        }
        let prototypes = prototypes(pairs, 0);
        let credible = |i: usize| f64::from(u8::from(pairs.credible[i]));
        let assessed: f64 = (0..n).map(credible).sum();
        let identity = pairs.identity.as_ref().expect("labels");
        let mut losses = [0.0; 3];
        for i in 0..n {
            let (h, o) = (row(&mapped, i), row(&pairs.old, i));
            let over_queue: Vec<f64> = (0..n).map(|j| dot(&h, &row(&pairs.old, j)) / tau).collect();
            let p = softmax(&over_queue);
            let weight = |j: usize| match objective.affinity_temperature {
                Some(width) if identity[i] == identity[j] => {
                    credible(j) * ((dot(&o, &row(&pairs.old, j)) - 1.0) / width).exp()
                }
                None if i == j => credible(j),
                _ => 0.0,
            };
            let total: f64 = (0..n).map(weight).sum();
            for (j, p) in p.iter().enumerate() {
                if total > 0.0 {
                    losses[0] -= credible(i) * weight(j) / total * p.ln() / assessed;
                }
            }
            let to_prototypes = |x: &[f64]| -> Vec<f64> {
                let logits = prototypes.rows().into_iter().enumerate();
                softmax(
                    &logits
                        .map(|(k, _)| dot(x, &row(&prototypes, k)) / tau)
                        .collect::<Vec<_>>(),
                )
            };
            for (p, q) in to_prototypes(&o).iter().zip(to_prototypes(&h)) {
                losses[1] += credible(i) * p * (p / q).ln() / assessed;
            }
            let x = row(&pairs.new, i);
            let others = (0..n).filter(|&j| j != i);
            let [own, now] = [(&pairs.new, &x), (&mapped, &h)].map(|(of, x)| {
                softmax(
                    &others
                        .clone()
                        .map(|j| dot(x, &row(of, j)) / tau)
                        .collect::<Vec<_>>(),
                )
            });
            for (p, q) in own.iter().zip(now) {
                losses[2] += p * (p / q).ln() / n as f64;
            }
        }
        losses
    }

    #[test]
    fn the_loss_is_its_formula() {
        let pairs = pairs(14);
        for affinity_temperature in [Some(0.1), Some(2.0), None] {
            let objective = Objective {
                affinity_temperature,
                ..Objective::default()
            };
            let loss = Loss::new(&pairs, objective, &start(), 0, Device::Cpu).expect("made");
            let all: Vec<usize> = (0..14).collect();
            let batch = loss.batch(&all, &all).expect("made");
            let vars = [variable(&start().weights)];
            let (total, found) = loss.of(&vars, &batch).expect("computed");
            let expected = naive(&pairs, &start(), &objective);
            let found = [found.embedding, found.discrimination, found.keep].map(f64::from);
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-4 * (1.0 + expected),
                    "{found} {expected}"
                );
            }
            let sum = found[0] + objective.discrimination * found[1] + objective.keep * found[2];
            let total = f64::from(total.to_scalar::<f32>().expect("a number"));
            assert!(
                (total - sum).abs() < 1e-4,
                "at the start nothing is far from it"
            );
        }
    }

    #[test]
    fn a_step_goes_down_the_slope_of_finite_differences() {
        let pairs = pairs(14);
        let objective = Objective::default();
        let loss = Loss::new(&pairs, objective, &start(), 0, Device::Cpu).expect("made");
        let all: Vec<usize> = (0..14).collect();
        let batch = loss.batch(&all, &all).expect("made");
        let vars = [
            variable(&start().weights),
            variable(&units(5, 3, 7)),
            variable(&units(1, 3, 8)),
            variable(&units(3, 4, 9)),
        ];
        let (total, _) = loss.of(&vars, &batch).expect("computed");
        let gradients = total.backward().expect("differentiated");
        for var in &vars {
            let gradient: Vec<f32> = gradients
                .get(var)
                .expect("a slope")
                .flatten_all()
                .expect("flat")
                .to_vec1()
                .expect("values");
            let before: Vec<f32> = var.flatten_all().expect("flat").to_vec1().expect("values");
            for place in 0..before.len().min(6) {
                let at = |shift: f32| {
                    let mut values = before.clone();
                    values[place] += shift;
                    var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).expect("made"))
                        .expect("set");
                    let (total, _) = loss.of(&vars, &batch).expect("computed");
                    f64::from(total.to_scalar::<f32>().expect("a number"))
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                at(0.0);
                let found = f64::from(gradient[place]);
                assert!(
                    (slope - found).abs() < 0.02 + 0.02 * found.abs(),
                    "{slope} {found}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_credible_is_no_positive_and_in_no_prototype() {
        let mut pairs = pairs(6);
        pairs.credible = vec![true, false, true, false, false, false];
        let all: Vec<usize> = (0..6).collect();
        let cosines = pairs.old.dot(&pairs.old.t());
        let weights = positives(&pairs, &Objective::default(), &all, &all, cosines);
        assert!(weights.column(1).iter().all(|&weight| weight == 0.0));
        assert!((weights.row(0).sum() - 1.0).abs() < 1e-6);
        assert!(
            weights.row(3).iter().all(|&weight| weight == 0.0),
            "its identity has none"
        );
        let prototypes = prototypes(&pairs, 0);
        // Items 0 and 1, of which 1 is not credible.
        let off = &prototypes.row(0) - &pairs.old.row(0);
        assert!(off.iter().all(|v| v.abs() < 1e-6));
    }
}
