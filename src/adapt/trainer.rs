//! The training of a head, step by step: Adam on the loss of [`super::nccl`].

use candle_core::{Device, Result, Tensor, Var};
use ndarray::{Array1, Array2};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::head::{Head, HeadKind, Hidden};
use super::nccl::{Batch, Loss, Losses, Objective, Pairs, matrix};
use crate::runtime;

/// How it is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// Items a step, at most.
    pub batch: usize,
    /// Old embeddings that a step contrasts with, at most.
    pub queue: usize,
    /// Width of the hidden layer; 0 for a linear head.
    pub hidden: usize,
    /// Seed of batches and of the hidden layer's start.
    pub seed: u64,
    /// Number of the CUDA device that computes; without one the CPU does.
    pub gpu: Option<u32>,
}

impl Training {
    /// The GPU to train on: the one that models run on, in a build with `adapt-cuda`; else none.
    pub fn gpu(models: runtime::Device) -> Option<u32> {
        match models {
            _ if !cfg!(feature = "adapt-cuda") => None,
            runtime::Device::Cpu => None,
            runtime::Device::Auto => Device::new_cuda(0).is_ok().then_some(0),
            runtime::Device::Cuda(number) | runtime::Device::TensorRt(number) => Some(number),
        }
    }
}

impl Default for Training {
    fn default() -> Self {
        Self {
            batch: 1024,
            queue: 4096,
            hidden: 0,
            seed: 0,
            gpu: None,
        }
    }
}

/// Step size of Adam (Kingma and Ba, ICLR 2015); its other constants are the paper's.
const LEARNING_RATE: f64 = 5e-3;
const BETA: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// A training that can be stopped, written down and taken up again.
pub struct Trainer<'a> {
    loss: Loss<'a>,
    /// Items there are to learn from.
    n_items: usize,
    training: Training,
    device: Device,
    /// W, then with a hidden layer A, b, B.
    vars: Vec<Var>,
    /// First and second moments, one of each a variable.
    moments: Vec<[Tensor; 2]>,
    steps: usize,
    /// The step's tensors where every step sees everything.
    whole: Option<Batch>,
}

impl<'a> Trainer<'a> {
    /// Starts at `start`, a linear head.
    ///
    /// # Errors
    /// candle's: a GPU that is not there, or one without `adapt-cuda`.
    pub fn new(
        pairs: &'a Pairs,
        start: &Head,
        objective: Objective,
        training: Training,
    ) -> Result<Self> {
        let device = match training.gpu {
            Some(number) => Device::new_cuda(number as usize)?,
            None => Device::Cpu,
        };
        let mut vars = vec![Var::from_tensor(&matrix(start.weights.view(), &device)?)?];
        if training.hidden > 0 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(training.seed);
            let (d, h) = (pairs.new.ncols(), training.hidden);
            // Units of one scale whose kinks lie where the data do; the outward weights start at 0, so the start is kept.
            let inward = Array2::from_shape_fn((d, h), |_| rng.gen_range(-1.0_f32..1.0) * 2.0);
            let bias = Array2::from_shape_fn((1, h), |_| rng.gen_range(-1.0_f32..1.0));
            vars.push(Var::from_tensor(&matrix(inward.view(), &device)?)?);
            vars.push(Var::from_tensor(&matrix(bias.view(), &device)?)?);
            vars.push(Var::zeros(
                (h, pairs.old.ncols()),
                candle_core::DType::F32,
                &device,
            )?);
        }
        let zeros = |var: &Var| Ok([var.zeros_like()?, var.zeros_like()?]);
        let moments = vars.iter().map(zeros).collect::<Result<_>>()?;
        let loss = Loss::new(pairs, objective, start, training.seed, device.clone())?;
        let n_items = pairs.new.nrows();
        let whole = if n_items <= training.batch.min(training.queue) {
            let all: Vec<usize> = (0..n_items).collect();
            Some(loss.batch(&all, &all)?)
        } else {
            None
        };
        Ok(Self {
            loss,
            n_items,
            training,
            device,
            vars,
            moments,
            steps: 0,
            whole,
        })
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// One step of Adam.
    ///
    /// # Errors
    /// candle's.
    pub fn step(&mut self) -> Result<Losses> {
        let drawn;
        let batch = match &self.whole {
            Some(batch) => batch,
            None => {
                let (items, queue) = self.draw();
                drawn = self.loss.batch(&items, &queue)?;
                &drawn
            }
        };
        let (loss, losses) = self.loss.of(&self.vars, batch)?;
        let gradients = loss.backward()?;
        self.steps += 1;
        let correction = BETA.map(|beta| 1.0 - beta.powi(self.steps as i32));
        for (var, moments) in self.vars.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let gradient = gradient.detach();
            let [first, second] = &*moments;
            let first = ((first * BETA[0])? + (&gradient * (1.0 - BETA[0]))?)?;
            let second = ((second * BETA[1])? + (gradient.sqr()? * (1.0 - BETA[1]))?)?;
            let scale = ((&second / correction[1])?.sqrt()? + EPSILON)?;
            let step = ((&first / correction[0])?.div(&scale)? * LEARNING_RATE)?;
            var.set(&var.sub(&step)?.detach())?;
            *moments = [first.detach(), second.detach()];
        }
        Ok(losses)
    }

    /// The head as it is now.
    ///
    /// # Errors
    /// candle's.
    pub fn head(&self) -> Result<Head> {
        let part = |var: &Var| -> Result<Array2<f32>> {
            let (rows, columns) = var.dims2()?;
            let values = var.flatten_all()?.to_vec1()?;
            Ok(Array2::from_shape_vec((rows, columns), values)
                .expect("as many values as its shape says"))
        };
        let hidden = match self.vars.as_slice() {
            [_, inward, bias, outward] => Some(Hidden {
                inward: part(inward)?,
                bias: Array1::from_iter(part(bias)?),
                outward: part(outward)?,
            }),
            _ => None,
        };
        Ok(Head {
            kind: if hidden.is_some() {
                HeadKind::Mlp
            } else {
                HeadKind::Linear
            },
            weights: part(&self.vars[0])?,
            hidden,
        })
    }

    /// What a later [`Trainer::restore`] needs: the steps, then variables and moments, each flat.
    ///
    /// # Errors
    /// candle's.
    pub fn state(&self) -> Result<(usize, Vec<Vec<f32>>)> {
        let mut state = Vec::new();
        for (var, [first, second]) in self.vars.iter().zip(&self.moments) {
            for tensor in [var.as_tensor(), first, second] {
                state.push(tensor.flatten_all()?.to_vec1()?);
            }
        }
        Ok((self.steps, state))
    }

    /// Goes on from [`Trainer::state`]: the steps that follow are those that would have followed then.
    ///
    /// # Errors
    /// A state of other shapes; nothing is changed then.
    pub fn restore(&mut self, steps: usize, state: &[Vec<f32>]) -> Result<()> {
        let shapes = self.vars.iter().flat_map(|var| {
            [
                var.shape().clone(),
                var.shape().clone(),
                var.shape().clone(),
            ]
        });
        let tensors = shapes
            .zip(state)
            .map(|(shape, values)| Tensor::from_vec(values.clone(), shape, &self.device))
            .collect::<Result<Vec<_>>>()?;
        if tensors.len() != 3 * self.vars.len() {
            candle_core::bail!("{} tensors of {}", tensors.len(), 3 * self.vars.len());
        }
        for ((var, moments), found) in self
            .vars
            .iter()
            .zip(&mut self.moments)
            .zip(tensors.chunks(3))
        {
            var.set(&found[0])?;
            *moments = [found[1].clone(), found[2].clone()];
        }
        self.steps = steps;
        Ok(())
    }

    /// Items of the next step and its queue: the items first, then others. The step decides, not what was drawn before.
    fn draw(&self) -> (Vec<usize>, Vec<usize>) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(self.training.seed);
        rng.set_stream(self.steps as u64 + 1);
        let mut order: Vec<usize> = (0..self.n_items).collect();
        let wanted = self
            .training
            .queue
            .max(self.training.batch)
            .min(order.len());
        let (chosen, _) = order.partial_shuffle(&mut rng, wanted);
        let mut items = chosen[..self.training.batch.min(wanted)].to_vec();
        let mut queue = chosen.to_vec();
        items.sort_unstable();
        queue.sort_unstable();
        (items, queue)
    }
}

#[cfg(test)]
mod tests {
    use super::super::nccl::tests::{pairs, start};
    use super::*;

    #[test]
    fn a_training_taken_up_again_is_the_same_training() {
        let pairs = pairs(40);
        // Fewer than there are: each step draws.
        let training = Training {
            batch: 8,
            queue: 16,
            hidden: 2,
            seed: 5,
            gpu: None,
        };
        let make = || Trainer::new(&pairs, &start(), Objective::default(), training).expect("made");
        let mut whole = make();
        assert_eq!(
            whole.head().expect("a head").weights,
            start().weights,
            "it starts at the start"
        );
        for _ in 0..5 {
            whole.step().expect("a step");
        }
        let (steps, state) = whole.state().expect("a state");
        let mut again = make();
        assert!(
            again.restore(steps, &state[1..]).is_err(),
            "a part is missing"
        );
        again.restore(steps, &state).expect("restored");
        for _ in 0..5 {
            assert_eq!(whole.step().expect("a step"), again.step().expect("a step"));
        }
        assert_eq!(whole.head().expect("a head"), again.head().expect("a head"));
        assert_ne!(whole.head().expect("a head").weights, start().weights);
    }

    #[test]
    fn a_step_contrasts_its_items_with_themselves_and_others() {
        let pairs = pairs(40);
        let training = Training {
            batch: 8,
            queue: 16,
            ..Training::default()
        };
        let trainer = Trainer::new(&pairs, &start(), Objective::default(), training).expect("made");
        let (items, queue) = trainer.draw();
        assert_eq!((items.len(), queue.len()), (8, 16));
        assert!(items.iter().all(|item| queue.contains(item)));
        let mut distinct = queue.clone();
        distinct.dedup();
        assert_eq!(distinct.len(), 16);
    }
}
