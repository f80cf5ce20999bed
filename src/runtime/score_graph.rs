//! The graph that scores are first looked through with, on a GPU where there is one.

use std::sync::{Mutex, PoisonError};

use ort::ep::{CPU, ExecutionProvider};
use ort::session::Session;
use ort::value::TensorRef;
use prost::Message;

use crate::onnx::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto, element,
};
use crate::topk::{FirstPass, Reached};

/// The graph, ready to run.
pub struct ScoreGraph {
    session: Mutex<Session>,
    provider: String,
}

impl ScoreGraph {
    /// A session of [`model`], and the execution provider that runs it.
    pub(super) fn new(session: Session, provider: String) -> Self {
        Self {
            session: Mutex::new(session),
            provider,
        }
    }

    /// Whether the CPU leaves the work to another device.
    pub fn is_on_gpu(&self) -> bool {
        self.provider != CPU::NAME
    }

    fn run(
        &self,
        queries: &[f32],
        block: &[f32],
        floors: &[f32],
        most: usize,
    ) -> ort::Result<Reached> {
        let n_queries = floors.len();
        let dim = queries.len() / n_queries;
        let n_items = block.len() / dim;
        let most = [most as f32];
        let inputs = ort::inputs! {
            "queries" => TensorRef::from_array_view(([n_queries, dim], queries))?,
            "block" => TensorRef::from_array_view(([n_items, dim], block))?,
            "floors" => TensorRef::from_array_view(([n_queries, 1], floors))?,
            "most" => TensorRef::from_array_view(([1], most.as_slice()))?,
        };
        // A panic in a run leaves the session whole.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(inputs)?;
        let (_, counts) = outputs["counts"].try_extract_tensor::<f32>()?;
        let (_, pairs) = outputs["pairs"].try_extract_tensor::<i64>()?;
        // First the pairs' queries, then their items.
        let items = &pairs[pairs.len() / 2..];
        Ok(Reached {
            counts: counts.iter().map(|&count| count as usize).collect(),
            items: items.iter().map(|&item| item as u32).collect(),
        })
    }
}

impl FirstPass for ScoreGraph {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn reached(
        &self,
        queries: &[f32],
        block: &[f32],
        floors: &[f32],
        most: usize,
    ) -> Result<Reached, String> {
        let reached = self.run(queries, block, floors, most);
        reached.map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        })
    }
}

/// An ONNX model, f32. Reads `queries` (Q, dim), `block` (N, dim), `floors` (Q, 1) and `most` (1); makes `counts` (Q, 1), how many
/// scores reach the query's floor, and `pairs` (2, n), query and item of those, query by query, for the queries of which there
/// are at most `most`. Of a pair of query and item at most ten bytes lie on the device meanwhile.
pub(super) fn model() -> Vec<u8> {
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto::new(op, inputs, output, vec![]);
    let transposed = vec![AttributeProto::integer("transB", 1)];
    let float = vec![AttributeProto::integer("to", i64::from(element::FLOAT))];
    let value = |name: &str, element, dims: [Dimension; 2]| {
        ValueInfoProto::tensor(name, element, dims.to_vec())
    };
    let (q, n, dim) = (|| "queries".into(), || "items".into(), || "dim".into());
    let graph = GraphProto {
        node: vec![
            NodeProto::new("Gemm", &["queries", "block"], "scores", transposed),
            node("GreaterOrEqual", &["scores", "floors"], "reached"),
            // Exact up to 2^24 items a block.
            NodeProto::new("Cast", &["reached"], "ones", float),
            node("ReduceSum", &["ones", "axis"], "counts"),
            node("LessOrEqual", &["counts", "most"], "few"),
            node("And", &["reached", "few"], "named"),
            node("NonZero", &["named"], "pairs"),
        ],
        name: "first pass".to_owned(),
        initializer: vec![TensorProto {
            dims: vec![1],
            data_type: element::INT64,
            name: "axis".to_owned(),
            raw_data: 1_i64.to_le_bytes().to_vec(),
        }],
        input: vec![
            value("queries", element::FLOAT, [q(), dim()]),
            value("block", element::FLOAT, [n(), dim()]),
            value("floors", element::FLOAT, [q(), 1.into()]),
            ValueInfoProto::tensor("most", element::FLOAT, vec![1.into()]),
        ],
        output: vec![
            value("counts", element::FLOAT, [q(), 1.into()]),
            value("pairs", element::INT64, [2.into(), "pairs".into()]),
        ],
    };
    let model = ModelProto {
        // What goes with operator set 13, the first that has the reduction's axes as an input.
        ir_version: 7,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 13,
        }],
    };
    model.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> ScoreGraph {
        let graph = super::super::test_runtime().score_graph();
        graph.expect("a model that ONNX Runtime takes")
    }

    #[test]
    fn pairs_are_counted_and_named_where_they_are_few() {
        let queries = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        // Scores of the third query: 3, 3, 1, -3, 5.
        let block = [3.0, 0.0, 1.0, 2.0, 0.0, 1.0, -1.0, -2.0, 2.0, 3.0];
        let found = |floors: [f32; 3], most| {
            let reached = graph()
                .reached(&queries, &block, &floors, most)
                .expect("run");
            (reached.counts, reached.items)
        };
        // A floor that is met counts.
        assert_eq!(found([2.0, 3.0, 3.0], 2), (vec![2, 1, 3], vec![0, 4, 4]));
        assert_eq!(
            found([2.0, 3.0, 3.0], 3),
            (vec![2, 1, 3], vec![0, 4, 4, 0, 1, 4])
        );
        assert_eq!(found([9.0; 3], 5), (vec![0; 3], vec![]));
        assert_eq!(found([f32::NEG_INFINITY; 3], 0), (vec![5; 3], vec![]));
    }

    #[test]
    fn the_cpu_is_no_gpu_and_a_failure_is_one_line() {
        let graph = graph();
        assert!(!graph.is_on_gpu());
        assert_eq!(graph.provider(), CPU::NAME);
        // Seven values are no rows of three.
        let failed = graph.reached(&[1.0; 7], &[1.0; 6], &[0.0; 2], 1);
        let why = failed.map(|reached| reached.counts).expect_err("no rows");
        assert!(!why.is_empty() && !why.contains('\n'), "{why}");
    }
}
