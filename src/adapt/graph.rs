//! Appends a head to an ONNX model, byte by byte: what is not touched stays as it was, whatever version of ONNX wrote it.
//!
//! The chosen output keeps its name, so the new model takes the old one's place; the value that bore it is renamed. Only
//! the few fields that matter are read. Field numbers: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3>

use prost::Message;

use super::head::Head;
use super::head_graph::HeadGraph;
use super::wire::{Field, Malformed, fields, put};
use crate::config::Pooling;
use crate::embed::ADAPTATION_KEY;
use crate::onnx::element::FLOAT;
use crate::onnx::{Dimension, OperatorSetIdProto, StringStringEntryProto, ValueInfoProto};

/// The first operator set with `Einsum`, which sums token states under the mask.
const EINSUM: i64 = 12;
/// The first operator set whose `Add` broadcasts by itself.
const BROADCAST: i64 = 7;

/// The first version of the format in which weights need not be inputs too.
const WEIGHTS_ALONE: u64 = 4;

/// What is appended, and to which output.
pub struct Appended<'a> {
    /// The head.
    pub head: &'a Head,
    /// The output that it reads.
    pub output: &'a str,
    /// How the output becomes one vector an item.
    pub pooling: Pooling,
    /// The mask that mean pooling reads; without one all tokens count.
    pub mask: Option<&'a str>,
    /// Text of the metadata entry.
    pub metadata: String,
}

/// Why a head cannot be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The bytes are no protocol buffer of a model.
    #[error("not an ONNX model: {0}")]
    Malformed(#[from] Malformed),
    /// The output is not made by a node of the graph.
    #[error("the output `{0}` is one of the model's inputs or weights")]
    NotComputed(String),
    /// The head would average the padding too.
    #[error(
        "the model gives one vector a token and has no input `attention_mask`: a head inside it cannot tell the tokens from the padding"
    )]
    NoMask,
    /// The format is too old.
    #[error("the model uses version {found} of the ONNX format; a head needs {needed} or newer")]
    IrVersion {
        /// Version found; 0 where none is named.
        found: u64,
        /// Version needed.
        needed: u64,
    },
    /// The operator set is too old, or is not ONNX's own.
    #[error("the model uses operator set {found} of ONNX; a head needs {needed} or newer")]
    OperatorSet {
        /// Version found; 0 where none is imported.
        found: i64,
        /// Version needed.
        needed: i64,
    },
}

/// The model with the head at its end.
///
/// # Errors
/// See [`GraphError`].
pub fn append(model: &[u8], appended: &Appended<'_>) -> Result<Vec<u8>, GraphError> {
    let fields = fields(model)?;
    let found = opset(&fields)?;
    let version = fields
        .iter()
        .find(|field| field.number == model_field::IR_VERSION);
    let version = version.map_or(0, |field| field.value);
    if version < WEIGHTS_ALONE {
        return Err(GraphError::IrVersion {
            found: version,
            needed: WEIGHTS_ALONE,
        });
    }
    let needed = if appended.pooling == Pooling::Mean {
        EINSUM
    } else {
        BROADCAST
    };
    if found < needed {
        return Err(GraphError::OperatorSet { found, needed });
    }
    // A message may be written in parts that add up; the additions go into the last.
    let last = fields
        .iter()
        .rposition(|field| field.number == model_field::GRAPH);
    let last = last.ok_or(Malformed("it holds no graph"))?;
    let graphs = fields
        .iter()
        .filter(|field| field.number == model_field::GRAPH);
    let parts: Vec<&[u8]> = graphs.map(|field| field.payload).collect();
    let inner = unused_name(&parts, appended.output)?;
    let mut written = Vec::with_capacity(model.len() + 4096);
    let mut is_renamed = false;
    for (index, field) in fields.iter().enumerate() {
        if field.number != model_field::GRAPH {
            written.extend_from_slice(field.raw);
            continue;
        }
        let mut graph = Vec::with_capacity(field.payload.len() + 4096);
        for part in self::fields(field.payload)? {
            match part.number {
                graph_field::OUTPUT if name_of(&part)? == appended.output => {
                    let dims = first_dim(part.payload)?;
                    put(&mut graph, graph_field::OUTPUT, &output(appended, dims)?);
                }
                graph_field::NODE => {
                    let node = rename_node(part.payload, appended.output, &inner, &mut is_renamed)?;
                    put(&mut graph, graph_field::NODE, &node);
                }
                graph_field::VALUE_INFO => {
                    let info = rename_value(part.payload, appended.output, &inner)?;
                    put(&mut graph, graph_field::VALUE_INFO, &info);
                }
                _ => graph.extend_from_slice(part.raw),
            }
        }
        if index == last {
            let head = HeadGraph::new(&inner, appended);
            for node in head.nodes {
                put(&mut graph, graph_field::NODE, &node.encode_to_vec());
            }
            for tensor in head.weights {
                let tensor = tensor.encode_to_vec();
                put(&mut graph, graph_field::INITIALIZER, &tensor);
            }
        }
        put(&mut written, model_field::GRAPH, &graph);
    }
    if !is_renamed {
        return Err(GraphError::NotComputed(appended.output.to_owned()));
    }
    let entry = StringStringEntryProto {
        key: ADAPTATION_KEY.to_owned(),
        value: appended.metadata.clone(),
    };
    put(&mut written, model_field::METADATA, &entry.encode_to_vec());
    Ok(written)
}

/// The output's new description: float32, shape (what the batch was, the head's dimensions).
fn output(appended: &Appended<'_>, batch: Option<Dimension>) -> Result<Vec<u8>, GraphError> {
    let dim = Dimension::from(appended.head.weights.ncols() as i64);
    let info = ValueInfoProto::tensor(appended.output, FLOAT, vec![batch.unwrap_or_default(), dim]);
    Ok(info.encode_to_vec())
}

/// The first dimension of a value's description, where it has a shape.
fn first_dim(info: &[u8]) -> Result<Option<Dimension>, GraphError> {
    let info = ValueInfoProto::decode(info)
        .map_err(|_| Malformed("an output's description cannot be read"))?;
    let tensor = info.r#type.and_then(|kind| kind.tensor_type);
    Ok(tensor.and_then(|tensor| tensor.shape?.dim.into_iter().next()))
}

/// A name for the value that the head reads, which nothing in the graph bears.
fn unused_name(graphs: &[&[u8]], output: &str) -> Result<String, GraphError> {
    let mut taken = Vec::new();
    for graph in graphs {
        for part in fields(graph)? {
            match part.number {
                graph_field::NODE => {
                    let outputs = fields(part.payload)?;
                    let outputs = outputs
                        .iter()
                        .filter(|field| field.number == node_field::OUTPUT);
                    taken.extend(outputs.map(|field| field.payload.to_vec()));
                }
                graph_field::INITIALIZER => {
                    let names = fields(part.payload)?;
                    let names = names
                        .iter()
                        .filter(|field| field.number == tensor_field::NAME);
                    taken.extend(names.map(|field| field.payload.to_vec()));
                }
                graph_field::INPUT => taken.push(name_of(&part)?.as_bytes().to_vec()),
                _ => {}
            }
        }
    }
    let is_taken = |name: &str| {
        let prefix = format!("{name}/");
        taken
            .iter()
            .any(|taken| taken == name.as_bytes() || taken.starts_with(prefix.as_bytes()))
    };
    let mut name = format!("{output}/before_head");
    while is_taken(&name) {
        name.push('_');
    }
    Ok(name)
}

/// A node with one value renamed, in its subgraphs too: they see the names around them, and ONNX forbids to use one twice.
fn rename_node(
    bytes: &[u8],
    from: &str,
    to: &str,
    is_made_here: &mut bool,
) -> Result<Vec<u8>, GraphError> {
    let mut written = Vec::with_capacity(bytes.len());
    for field in fields(bytes)? {
        match field.number {
            node_field::INPUT | node_field::OUTPUT if field.payload == from.as_bytes() => {
                *is_made_here |= field.number == node_field::OUTPUT;
                put(&mut written, field.number, to.as_bytes());
            }
            node_field::ATTRIBUTE => {
                let mut attribute = Vec::with_capacity(field.payload.len());
                for part in fields(field.payload)? {
                    match part.number {
                        attribute_field::GRAPH | attribute_field::GRAPHS => {
                            put(
                                &mut attribute,
                                part.number,
                                &rename_graph(part.payload, from, to)?,
                            );
                        }
                        _ => attribute.extend_from_slice(part.raw),
                    }
                }
                put(&mut written, node_field::ATTRIBUTE, &attribute);
            }
            _ => written.extend_from_slice(field.raw),
        }
    }
    Ok(written)
}

fn rename_graph(bytes: &[u8], from: &str, to: &str) -> Result<Vec<u8>, GraphError> {
    let mut written = Vec::with_capacity(bytes.len());
    for field in fields(bytes)? {
        match field.number {
            graph_field::NODE => {
                let node = rename_node(field.payload, from, to, &mut false)?;
                put(&mut written, graph_field::NODE, &node);
            }
            graph_field::OUTPUT | graph_field::VALUE_INFO => {
                let value = rename_value(field.payload, from, to)?;
                put(&mut written, field.number, &value);
            }
            _ => written.extend_from_slice(field.raw),
        }
    }
    Ok(written)
}

/// A value's description under its new name.
fn rename_value(bytes: &[u8], from: &str, to: &str) -> Result<Vec<u8>, GraphError> {
    let mut written = Vec::with_capacity(bytes.len());
    for field in fields(bytes)? {
        if field.number == value_field::NAME && field.payload == from.as_bytes() {
            put(&mut written, value_field::NAME, to.as_bytes());
        } else {
            written.extend_from_slice(field.raw);
        }
    }
    Ok(written)
}

fn name_of(info: &Field<'_>) -> Result<String, GraphError> {
    let name = fields(info.payload)?
        .into_iter()
        .find(|field| field.number == value_field::NAME);
    Ok(name.map_or_else(String::new, |name| {
        String::from_utf8_lossy(name.payload).into_owned()
    }))
}

/// The version of ONNX's own operator set; 0 where none is imported.
fn opset(model: &[Field<'_>]) -> Result<i64, GraphError> {
    let mut version = 0;
    for field in model
        .iter()
        .filter(|field| field.number == model_field::OPSET)
    {
        let opset = OperatorSetIdProto::decode(field.payload)
            .map_err(|_| Malformed("an operator set cannot be read"))?;
        if ["", "ai.onnx"].contains(&opset.domain.as_str()) {
            version = opset.version;
        }
    }
    Ok(version)
}

// Numbers of the fields that are looked at, by message.
mod model_field {
    pub const IR_VERSION: u32 = 1;
    pub const GRAPH: u32 = 7;
    pub const OPSET: u32 = 8;
    pub const METADATA: u32 = 14;
}
mod graph_field {
    pub const NODE: u32 = 1;
    pub const INITIALIZER: u32 = 5;
    pub const INPUT: u32 = 11;
    pub const OUTPUT: u32 = 12;
    pub const VALUE_INFO: u32 = 13;
}
mod node_field {
    pub const INPUT: u32 = 1;
    pub const OUTPUT: u32 = 2;
    pub const ATTRIBUTE: u32 = 5;
}
mod attribute_field {
    pub const GRAPH: u32 = 6;
    pub const GRAPHS: u32 = 11;
}
mod tensor_field {
    pub const NAME: u32 = 8;
}
mod value_field {
    pub const NAME: u32 = 1;
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::super::head::{HeadKind, Hidden};
    use super::*;

    fn head(hidden: bool) -> Head {
        Head {
            kind: HeadKind::Linear,
            weights: array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            hidden: hidden.then(|| Hidden {
                inward: array![[1.0], [1.0], [1.0]],
                bias: array![0.5],
                outward: array![[1.0, 0.0]],
            }),
        }
    }

    fn message(parts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        parts
            .iter()
            .for_each(|(number, payload)| put(&mut bytes, *number, payload));
        bytes
    }

    fn value(name: &str) -> Vec<u8> {
        message(&[(value_field::NAME, name.as_bytes())])
    }

    /// A model: input x, nodes a -> `y` -> z (whose subgraph reads `y`), outputs y and z, and a field that nobody knows.
    fn model(version: i64) -> Vec<u8> {
        let inner = message(&[(node_field::INPUT, b"y"), (node_field::OUTPUT, b"inner")]);
        let subgraph = message(&[
            (graph_field::NODE, &inner),
            (graph_field::OUTPUT, &value("inner")),
        ]);
        let attribute = message(&[(1, b"then_branch"), (attribute_field::GRAPH, &subgraph)]);
        let first = message(&[
            (node_field::INPUT, b"x"),
            (node_field::OUTPUT, b"y"),
            (4, b"Identity"),
        ]);
        let second = message(&[
            (node_field::INPUT, b"y"),
            (node_field::OUTPUT, b"z"),
            (node_field::ATTRIBUTE, &attribute),
        ]);
        let graph = message(&[
            (graph_field::NODE, &first),
            (graph_field::NODE, &second),
            (2, b"name"),
            (11, &value("x")),
            (graph_field::OUTPUT, &value("y")),
            (graph_field::OUTPUT, &value("z")),
            (graph_field::VALUE_INFO, &value("y")),
        ]);
        let opset = OperatorSetIdProto {
            domain: String::new(),
            version,
        }
        .encode_to_vec();
        // ir_version 8 as a number, then what a later ONNX may add.
        let mut bytes = vec![1 << 3, 8];
        bytes.extend(message(&[
            (model_field::GRAPH, &graph),
            (model_field::OPSET, &opset),
            (999, b"later"),
        ]));
        bytes
    }

    fn appended(head: &Head) -> Appended<'_> {
        Appended {
            head,
            output: "y",
            pooling: Pooling::None,
            mask: None,
            metadata: "{}".into(),
        }
    }

    fn payloads(bytes: &[u8], number: u32) -> Vec<&[u8]> {
        let found = fields(bytes).expect("well-formed");
        found
            .iter()
            .filter(|field| field.number == number)
            .map(|field| field.payload)
            .collect()
    }

    #[test]
    fn the_output_keeps_its_name_and_its_readers_keep_their_value() {
        let head = head(true);
        let written = append(&model(17), &appended(&head)).expect("appended");
        let graph = payloads(&written, model_field::GRAPH)[0];
        let nodes = payloads(graph, graph_field::NODE);
        let names = |node: &[u8], number| -> Vec<String> {
            let names = payloads(node, number).into_iter();
            names
                .map(|name| String::from_utf8(name.to_vec()).expect("a text"))
                .collect()
        };
        assert_eq!(names(nodes[0], node_field::OUTPUT), ["y/before_head"]);
        assert_eq!(names(nodes[1], node_field::INPUT), ["y/before_head"]);
        let attribute = payloads(nodes[1], node_field::ATTRIBUTE)[0];
        let subgraph = payloads(attribute, attribute_field::GRAPH)[0];
        let inner = payloads(subgraph, graph_field::NODE)[0];
        assert_eq!(names(inner, node_field::INPUT), ["y/before_head"]);
        let last = nodes[nodes.len() - 1];
        assert_eq!(names(last, node_field::OUTPUT), ["y"]);
        let outputs = payloads(graph, graph_field::OUTPUT);
        assert_eq!(outputs.len(), 2);
        let first = ValueInfoProto::decode(outputs[0]).expect("a value");
        assert_eq!(first.name, "y");
        let shape = first
            .r#type
            .and_then(|kind| kind.tensor_type?.shape)
            .expect("a shape");
        assert_eq!(shape.dim[1].dim_value, Some(2));
        assert_eq!(outputs[1], value("z"));
        assert_eq!(
            payloads(graph, graph_field::VALUE_INFO)[0],
            value("y/before_head")
        );
        // Each weight is there, and what nobody knows is where it was.
        let tensors: Vec<_> = payloads(graph, graph_field::INITIALIZER);
        assert_eq!(tensors.len(), 8);
        assert_eq!(payloads(&written, 999), [b"later"]);
        assert!(written.starts_with(&[8, 8]));
    }

    #[test]
    fn what_is_appended_can_be_appended_to() {
        let head = head(false);
        let once = append(&model(17), &appended(&head)).expect("appended");
        // Two heads may not share the names of their values.
        let twice = append(&once, &appended(&head)).expect("appended");
        let graph = payloads(&twice, model_field::GRAPH)[0].to_vec();
        let mut made: Vec<Vec<u8>> = payloads(&graph, graph_field::NODE)
            .into_iter()
            .flat_map(|node| payloads(node, node_field::OUTPUT))
            .map(<[u8]>::to_vec)
            .collect();
        let n = made.len();
        made.sort();
        made.dedup();
        assert_eq!(made.len(), n);
    }

    #[test]
    fn what_cannot_take_a_head_says_why() {
        let head = head(false);
        let refused =
            |bytes: &[u8], appended: &Appended<'_>| append(bytes, appended).expect_err("refused");
        let plain = appended(&head);
        assert_eq!(
            refused(&model(6), &plain),
            GraphError::OperatorSet {
                found: 6,
                needed: 7
            }
        );
        let mean = Appended {
            pooling: Pooling::Mean,
            ..appended(&head)
        };
        assert_eq!(
            refused(&model(11), &mean),
            GraphError::OperatorSet {
                found: 11,
                needed: 12
            }
        );
        let input = Appended {
            output: "x",
            ..appended(&head)
        };
        assert_eq!(
            refused(&model(17), &input),
            GraphError::NotComputed("x".into())
        );
        let whole = model(17);
        for cut in 1..whole.len() {
            // Cut anywhere, it is refused or still a model; it never panics.
            let _ = append(&whole[..cut], &plain);
        }
        assert!(matches!(
            refused(&whole[..whole.len() - 1], &plain),
            GraphError::Malformed(_)
        ));
        assert!(matches!(
            refused(&[0xff; 20], &plain),
            GraphError::Malformed(_)
        ));
    }
}
