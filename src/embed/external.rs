//! The content hash of a model: its file and every external-data file that it names.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use prost::Message;

use super::EmbedError;

// The few fields of onnx.proto3 that lead to external data; prost passes over the others.
// Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
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
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// BLAKE3, hex, over the model's bytes and, by name, each external-data file's name and bytes; every part is preceded
/// by its length, so no two models give the same stream.
///
/// # Errors
/// An unreadable file, no ONNX model, external data outside the model's folder.
pub fn model_hash(path: &Path) -> Result<String, EmbedError> {
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
    let mut locations = BTreeSet::new();
    model
        .graph
        .iter()
        .for_each(|graph| of_graph(graph, &mut locations));
    model
        .functions
        .iter()
        .for_each(|function| of_nodes(&function.node, &mut locations));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(&bytes);
    for location in locations {
        let file = inside(path, &location)?;
        hasher.update(&(location.len() as u64).to_le_bytes());
        hasher.update(location.as_bytes());
        // Gigabytes of weights are not held in memory.
        add_file(&mut hasher, &file).map_err(|source| EmbedError::ExternalRead {
            path: path.into(),
            file,
            source,
        })?;
    }
    Ok(hasher.finalize().to_hex().to_string())
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
    let folder = match model.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let file = folder.join(location);
    let real = |file: &Path| {
        file.canonicalize()
            .map_err(|source| EmbedError::ExternalRead {
                path: model.into(),
                file: file.into(),
                source,
            })
    };
    if real(&file)?.starts_with(real(folder)?) {
        Ok(file)
    } else {
        Err(outside())
    }
}

fn of_graph(graph: &GraphProto, locations: &mut BTreeSet<String>) {
    graph
        .initializer
        .iter()
        .for_each(|tensor| of_tensor(tensor, locations));
    graph
        .sparse_initializer
        .iter()
        .for_each(|sparse| of_sparse(sparse, locations));
    of_nodes(&graph.node, locations);
}

fn of_sparse(sparse: &SparseTensorProto, locations: &mut BTreeSet<String>) {
    sparse
        .values
        .iter()
        .chain(&sparse.indices)
        .for_each(|tensor| of_tensor(tensor, locations));
}

fn of_nodes(nodes: &[NodeProto], locations: &mut BTreeSet<String>) {
    for attribute in nodes.iter().flat_map(|node| &node.attribute) {
        attribute
            .t
            .iter()
            .chain(&attribute.tensors)
            .for_each(|tensor| of_tensor(tensor, locations));
        attribute
            .sparse_tensor
            .iter()
            .chain(&attribute.sparse_tensors)
            .for_each(|sparse| of_sparse(sparse, locations));
        attribute
            .g
            .iter()
            .chain(&attribute.graphs)
            .for_each(|graph| of_graph(graph, locations));
    }
}

fn of_tensor(tensor: &TensorProto, locations: &mut BTreeSet<String>) {
    let location = tensor
        .external_data
        .iter()
        .find(|entry| entry.key == "location");
    locations.extend(location.map(|entry| entry.value.clone()));
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
        let first = model_hash(&path).expect("hashed");
        assert_eq!(first, model_hash(&path).expect("hashed"));
        std::fs::write(folder.path().join("weights.bin"), b"two").expect("written");
        assert_ne!(first, model_hash(&path).expect("hashed"));
    }

    #[test]
    fn external_data_stays_in_the_models_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        for location in ["../weights.bin", "/etc/hostname", "a/../../b"] {
            let path = model(folder.path(), location);
            let error = model_hash(&path).expect_err("outside");
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
                model_hash(&path),
                Err(EmbedError::ExternalOutside { .. })
            ));
        }
    }

    #[test]
    fn missing_external_data_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = model_hash(&model(folder.path(), "gone.bin"))
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
        let error = model_hash(&path).expect_err("no model").to_string();
        assert!(error.contains("not an ONNX model"), "{error}");
        std::fs::write(&path, b"").expect("written");
        let error = model_hash(&path).expect_err("empty").to_string();
        assert!(error.contains("no graph"), "{error}");
    }
}
