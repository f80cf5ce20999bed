//! The head as nodes and weights of ONNX.

use ndarray::Array2;

use super::graph::Appended;
use super::head::Head;
use crate::config::Pooling;
use crate::onnx::element::{FLOAT, INT64};
use crate::onnx::{AttributeProto, NodeProto, TensorProto};

/// The last node, whose value is the output.
const LAST: &str = "normalised";

/// Collects the nodes of the head, whose values all begin with one prefix.
pub struct HeadGraph<'a> {
    prefix: &'a str,
    /// The output, which keeps its name.
    output: &'a str,
    /// Its nodes, each after those that it reads.
    pub nodes: Vec<NodeProto>,
    /// Its weights.
    pub weights: Vec<TensorProto>,
}

impl<'a> HeadGraph<'a> {
    /// The nodes between the value `input`, which the model makes, and its output. Their names begin with `input`.
    pub fn new(input: &'a str, appended: &Appended<'a>) -> Self {
        let mut graph = Self {
            prefix: input,
            output: appended.output,
            nodes: Vec::new(),
            weights: Vec::new(),
        };
        let x = graph.pooled(input, appended.pooling, appended.mask);
        graph.head(&x, appended.head);
        graph
    }

    fn name(&self, what: &str) -> String {
        format!("{}/{what}", self.prefix)
    }

    /// A node; the name of the value that it makes.
    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        what: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = self.name(what);
        let output = match what {
            LAST => self.output.to_owned(),
            _ => name.clone(),
        };
        self.nodes.push(NodeProto {
            name,
            ..NodeProto::new(op, inputs, &output, attribute)
        });
        output
    }

    /// A weight; its name.
    fn weight(&mut self, what: &str, dims: &[usize], values: impl Iterator<Item = f32>) -> String {
        let name = self.name(what);
        self.weights.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: FLOAT,
            name: name.clone(),
            raw_data: values.flat_map(f32::to_le_bytes).collect(),
        });
        name
    }

    fn matrix(&mut self, what: &str, values: &Array2<f32>) -> String {
        let (rows, columns) = values.dim();
        self.weight(what, &[rows, columns], values.iter().copied())
    }

    fn cast(&mut self, value: &str, what: &str) -> String {
        let to = vec![AttributeProto::integer("to", i64::from(FLOAT))];
        self.node("Cast", &[value], what, to)
    }

    /// Rows of unit length. Not by LpNormalization: ONNX Runtime 1.24 has no kernel for it at operator set 22,
    /// and axes of reductions moved from attribute to input at 18.
    fn unit(&mut self, value: &str, dim: usize, part: &str, what: &str) -> String {
        let ones = self.weight(&format!("{part}_ones"), &[dim, 1], (0..dim).map(|_| 1.0));
        // Keeps a row of zeros from becoming NaN.
        let tiny = self.weight(
            &format!("{part}_tiny"),
            &[1],
            std::iter::once(f32::MIN_POSITIVE),
        );
        let squares = self.node("Mul", &[value, value], &format!("{part}_squares"), vec![]);
        let sum = self.node("MatMul", &[&squares, &ones], &format!("{part}_sum"), vec![]);
        let sum = self.node("Add", &[&sum, &tiny], &format!("{part}_positive"), vec![]);
        let length = self.node("Sqrt", &[&sum], &format!("{part}_length"), vec![]);
        self.node("Div", &[value, &length], what, vec![])
    }

    /// One vector an item, of float32: a model of half precision gives half precision.
    fn pooled(&mut self, value: &str, pooling: Pooling, mask: Option<&str>) -> String {
        let value = self.cast(value, "float");
        match pooling {
            // Some give (batch, dim, 1, 1).
            Pooling::None => self.node("Flatten", &[&value], "flat", vec![]),
            Pooling::Cls => {
                let first = self.name("first");
                self.weights.push(TensorProto {
                    dims: vec![],
                    data_type: INT64,
                    name: first.clone(),
                    raw_data: 0_i64.to_le_bytes().to_vec(),
                });
                let axis = vec![AttributeProto::integer("axis", 1)];
                self.node("Gather", &[&value, &first], "pooled", axis)
            }
            Pooling::Mean => {
                // The mean's divisor goes with the length, which the next nodes make 1.
                let sum = |equation| vec![AttributeProto::text("equation", equation)];
                match mask {
                    Some(mask) => {
                        let mask = self.cast(mask, "mask");
                        self.node("Einsum", &[&mask, &value], "pooled", sum("bt,btd->bd"))
                    }
                    None => self.node("Einsum", &[&value], "pooled", sum("btd->bd")),
                }
            }
        }
    }

    fn head(&mut self, x: &str, head: &Head) -> String {
        let (new_dim, old_dim) = head.weights.dim();
        let x = self.unit(x, new_dim, "in", "unit");
        let weights = self.matrix("weights", &head.weights);
        let mut y = self.node("MatMul", &[&x, &weights], "mapped", vec![]);
        if let Some(hidden) = &head.hidden {
            let inward = self.matrix("hidden_weights", &hidden.inward);
            let bias = self.weight(
                "hidden_bias",
                &[hidden.bias.len()],
                hidden.bias.iter().copied(),
            );
            let outward = self.matrix("out_weights", &hidden.outward);
            let product = self.node("MatMul", &[&x, &inward], "hidden_product", vec![]);
            let sum = self.node("Add", &[&product, &bias], "hidden_sum", vec![]);
            let active = self.node("Relu", &[&sum], "hidden", vec![]);
            let residual = self.node("MatMul", &[&active, &outward], "residual", vec![]);
            y = self.node("Add", &[&y, &residual], "sum", vec![]);
        }
        self.unit(&y, old_dim, "out", LAST)
    }
}
