//! What the model file says by itself: its content hash with every external-data file that it names, and the
//! precision of its weights.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use prost::Message;

use super::EmbedError;
use crate::domain::{Adaptation, folder_of};
use crate::onnx::StringStringEntryProto;

// The few fields of onnx.proto3 that lead to external data; prost passes over the others.
// Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    node: Vec<NodeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(message, optional, tag = "6")]
    g: Option<GraphProto>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
    #[prost(message, optional, tag = "22")]
    sparse_tensor: Option<SparseTensorProto>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    indices: Option<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
}

/// TensorProto.DataType of what weights are stored in, and its usual name. Not among them are the wide integers: those
/// are shapes and indices.
const PRECISIONS: [(i32, &str); 12] = [
    (1, "float32"),
    (2, "uint8"),
    (3, "int8"),
    (10, "float16"),
    (11, "float64"),
    (16, "bfloat16"),
    (17, "float8"),
    (18, "float8"),
    (19, "float8"),
    (20, "float8"),
    (21, "uint4"),
    (22, "int4"),
];

/// Key of the metadata entry in which an adapted model tells how it was made: an [`Adaptation`] as JSON.
pub const ADAPTATION_KEY: &str = "compat-audit.adaptation";

/// What is read off a model's file, and the files it names, without running it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// BLAKE3, hex, over the model's bytes and, by name, each external-data file's name and bytes; every part is
    /// preceded by its length, so no two models give the same stream.
    pub hash: String,
    /// Element type that most weights are stored in; `None` for a model without weights.
    pub precision: Option<&'static str>,
    /// How the model was adapted, if it was.
    pub adaptation: Option<Adaptation>,
    /// External-data files, as the model names them.
    pub external: Vec<String>,
}

/// Reads a model's file and its external data.
///
/// # Errors
/// An unreadable file, no ONNX model, external data outside the model's folder.
pub fn read(path: &Path) -> Result<ModelFile, EmbedError> {
    let bytes = std::fs::read(path).map_err(|source| EmbedError::Read {
        path: path.into(),
        source,
    })?;
    let model = ModelProto::decode(bytes.as_slice()).map_err(|error| EmbedError::NotOnnx {
        path: path.into(),
        cause: error.to_string(),
    })?;
    if model.graph.is_none() {
        return Err(EmbedError::NotOnnx {
            path: path.into(),
            cause: "it holds no graph".into(),
        });
    }
    let mut seen = Seen::default();
    model.graph.iter().for_each(|graph| seen.graph(graph));
    model
        .functions
        .iter()
        .for_each(|function| seen.nodes(&function.node));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(&bytes);
    for location in &seen.locations {
        let file = inside(path, location)?;
        hasher.update(&(location.len() as u64).to_le_bytes());
        hasher.update(location.as_bytes());
        // Gigabytes of weights are not held in memory.
        add_file(&mut hasher, &file).map_err(|source| EmbedError::ExternalRead {
            path: path.into(),
            file,
            source,
        })?;
    }
    let said = model
        .metadata_props
        .iter()
        .find(|entry| entry.key == ADAPTATION_KEY);
    let adaptation = said
        .map(|entry| Adaptation::from_metadata(&entry.value))
        .transpose()
        .map_err(|error| EmbedError::Adaptation {
            path: path.into(),
            cause: error.to_string(),
        })?;
    Ok(ModelFile {
        hash: hasher.finalize().to_hex().to_string(),
        precision: seen.precision(),
        adaptation,
        external: seen.locations.into_iter().collect(),
    })
}

/// Length, then bytes.
fn add_file(hasher: &mut blake3::Hasher, path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    hasher.update(&file.metadata()?.len().to_le_bytes());
    hasher.update_reader(file)?;
    Ok(())
}

/// The file that a location names, refused when it leaves the model's folder, by its name or through a link.
fn inside(model: &Path, location: &str) -> Result<PathBuf, EmbedError> {
    let outside = || EmbedError::ExternalOutside {
        path: model.into(),
        location: location.to_owned(),
    };
    let plain = Path::new(location)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(outside());
    }
    let folder = folder_of(model);
    let file = folder.join(location);
    let real = |file: &Path| {
        file.canonicalize()
            .map_err(|source| EmbedError::ExternalRead {
                path: model.into(),
                file: file.into(),
                source,
            })
    };
    // Or beside what the model's own link leads to, as in a cache of linked files.
    let data = real(&file)?;
    let linked = model.canonicalize().ok();
    let linked = linked.as_deref().map(folder_of);
    if data.starts_with(real(folder)?) || linked.is_some_and(|linked| data.starts_with(linked)) {
        Ok(file)
    } else {
        Err(outside())
    }
}

/// What a walk over all tensors of a model has seen.
#[derive(Default)]
struct Seen {
    /// External-data files, as the model names them.
    locations: BTreeSet<String>,
    /// Values by data type.
    values: BTreeMap<i32, u64>,
}

impl Seen {
    fn graph(&mut self, graph: &GraphProto) {
        graph.initializer.iter().for_each(|t| self.tensor(t));
        graph.sparse_initializer.iter().for_each(|s| self.sparse(s));
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &[NodeProto]) {
        for attribute in nodes.iter().flat_map(|node| &node.attribute) {
            let tensors = attribute.t.iter().chain(&attribute.tensors);
            tensors.for_each(|t| self.tensor(t));
            let sparse = attribute
                .sparse_tensor
                .iter()
                .chain(&attribute.sparse_tensors);
            sparse.for_each(|s| self.sparse(s));
            let graphs = attribute.g.iter().chain(&attribute.graphs);
            graphs.for_each(|g| self.graph(g));
        }
    }

    fn sparse(&mut self, sparse: &SparseTensorProto) {
        let tensors = sparse.values.iter().chain(&sparse.indices);
        tensors.for_each(|t| self.tensor(t));
    }

    fn tensor(&mut self, tensor: &TensorProto) {
        let size = tensor.dims.iter().fold(1_u64, |size, &axis| {
            size.saturating_mul(axis.max(0).unsigned_abs())
        });
        let values = self.values.entry(tensor.data_type).or_default();
        *values = values.saturating_add(size);
        let location = tensor
            .external_data
            .iter()
            .find(|entry| entry.key == "location");
        self.locations
            .extend(location.map(|entry| entry.value.clone()));
    }

    /// The type with the most values; of equals the one that ONNX counts first.
    fn precision(&self) -> Option<&'static str> {
        let counted = PRECISIONS
            .iter()
            .filter_map(|&(code, name)| Some((*self.values.get(&code)?, Reverse(code), name)));
        counted.max().map(|(_, _, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(folder: &Path, location: &str) -> PathBuf {
        let entry = StringStringEntryProto {
            key: "location".into(),
            value: location.into(),
        };
        let tensor = TensorProto {
            external_data: vec![entry],
            ..TensorProto::default()
        };
        // Inside a subgraph of a node, where a shallow look would miss it.
        let inner = GraphProto {
            initializer: vec![tensor],
            ..GraphProto::default()
        };
        let attribute = AttributeProto {
            g: Some(inner),
            ..AttributeProto::default()
        };
        let node = NodeProto {
            attribute: vec![attribute],
        };
        let graph = GraphProto {
            node: vec![node],
            ..GraphProto::default()
        };
        let bytes = ModelProto {
            graph: Some(graph),
            metadata_props: vec![],
            functions: vec![],
        }
        .encode_to_vec();
        let path = folder.join("model.onnx");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    #[test]
    fn models_that_differ_only_in_external_data_differ() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = model(folder.path(), "weights.bin");
        std::fs::write(folder.path().join("weights.bin"), b"one").expect("written");
        let first = read(&path).expect("hashed");
        assert_eq!(first, read(&path).expect("hashed"));
        std::fs::write(folder.path().join("weights.bin"), b"two").expect("written");
        assert_ne!(first, read(&path).expect("hashed"));
    }

    #[test]
    fn precision_is_that_of_most_weights() {
        let tensor = |data_type, dims: &[i64]| TensorProto {
            dims: dims.to_vec(),
            data_type,
            ..TensorProto::default()
        };
        // 6 floats, 8 bytes, and more indices than either.
        let graph = GraphProto {
            initializer: vec![tensor(1, &[2, 3]), tensor(3, &[8]), tensor(7, &[100])],
            ..GraphProto::default()
        };
        let mut seen = Seen::default();
        assert_eq!(seen.precision(), None);
        seen.graph(&graph);
        assert_eq!(seen.precision(), Some("int8"));
        // A scalar has no axes and one value; equal counts go to the type that ONNX counts first.
        seen.tensor(&tensor(1, &[]));
        seen.tensor(&tensor(1, &[1]));
        assert_eq!(seen.precision(), Some("float32"));
    }

    #[test]
    fn external_data_stays_in_the_models_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        for location in ["../weights.bin", "/etc/hostname", "a/../../b"] {
            let path = model(folder.path(), location);
            let error = read(&path).expect_err("outside");
            assert!(
                matches!(error, EmbedError::ExternalOutside { .. }),
                "{location}: {error}"
            );
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc", folder.path().join("link")).expect("linked");
            let path = model(folder.path(), "link/hostname");
            assert!(matches!(
                read(&path),
                Err(EmbedError::ExternalOutside { .. })
            ));
        }
    }

    /// As a cache of linked files has them: model and data beside each other, each a link into another folder.
    #[cfg(unix)]
    #[test]
    fn external_data_may_lie_beside_what_the_models_link_leads_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let [blobs, snapshot] = ["blobs", "snapshot"].map(|name| folder.path().join(name));
        for made in [&blobs, &snapshot] {
            std::fs::create_dir(made).expect("made");
        }
        let written = model(&blobs, "weights.bin");
        std::fs::write(blobs.join("weights.bin"), [0; 4]).expect("written");
        let linked = snapshot.join("model.onnx");
        std::os::unix::fs::symlink(&written, &linked).expect("linked");
        let data = snapshot.join("weights.bin");
        std::os::unix::fs::symlink(blobs.join("weights.bin"), data).expect("linked");
        read(&linked).expect("read");
    }

    #[test]
    fn missing_external_data_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = read(&model(folder.path(), "gone.bin"))
            .expect_err("missing")
            .to_string();
        assert!(error.contains("gone.bin"), "{error}");
        assert!(error.contains("model.onnx: its external data"), "{error}");
    }

    #[test]
    fn a_text_file_is_no_model() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, "<html>not found</html>").expect("written");
        let error = read(&path).expect_err("no model").to_string();
        assert!(error.contains("not an ONNX model"), "{error}");
        std::fs::write(&path, b"").expect("written");
        let error = read(&path).expect_err("empty").to_string();
        assert!(error.contains("no graph"), "{error}");
    }
}
