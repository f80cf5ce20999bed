//! One probe item, kept small: there may be tens of millions.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use compact_str::CompactString;

use super::Role;

/// Where an item's model input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image file (absolute, or relative to the working directory).
    Image(Box<Path>),
    /// A text, verbatim.
    Text(Box<str>),
    /// A row of the probe's tensor file.
    TensorRow(usize),
}

/// One probe item.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Unique, stable name (the manifest's `id`, else the relative path with `/`). Up to 24 bytes lie here and not on the
    /// heap.
    pub id: CompactString,
    /// Sorted indices into [`Probe::labels`](super::Probe::labels); empty for junk (identity -1).
    pub labels: Labels,
    /// Index into [`Probe::identities`](super::Probe::identities): the label, or with several labels an item the connected
    /// component of the labels. None for junk. This is the unit that statistics resample.
    pub identity: OptionalIndex,
    /// Index into [`Probe::cameras`](super::Probe::cameras) (camera, source or session).
    pub camera: OptionalIndex,
    /// Query, gallery or both.
    pub role: Role,
    /// Its row in the manifest, as errors name rows (1-based: in csv and jsonl the line of the file); none from a folder.
    pub row: OptionalIndex,
    /// The model input. `None`: it is gone, or both embeddings are stored.
    pub source: Option<Box<Source>>,
    /// What stands beside the input; `None` where nothing does.
    pub beside: Option<Box<Beside>>,
}

/// What a manifest says of an item beside its input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beside {
    /// A text beside another kind of input (of a tensor row, of an image): it is shown in the report,
    /// and tokenised where a model is given a tokenizer. `None` for [`Source::Text`].
    pub text: Option<Box<str>>,
    /// A picture or recording of a tensor row's item, which the report shows; no model reads it.
    pub shown: Option<Box<Path>>,
    /// Values of the slice columns, parallel to [`Probe::slice_columns`](super::Probe::slice_columns); equal ones are shared.
    pub slices: Box<[Option<Arc<str>>]>,
}

/// Recordings that browsers play: extension and media type.
const SOUNDS: [(&str, &str); 7] = [
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("flac", "audio/flac"),
    ("m4a", "audio/mp4"),
];

/// The media type of a recording, by its extension.
pub fn sound_type(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_string_lossy().to_lowercase();
    let known = SOUNDS.iter().find(|(known, _)| *known == extension);
    known.map(|(_, kind)| *kind)
}

impl Item {
    /// An item of one label, its identity, or of none: junk. It has no camera and no input.
    pub fn new(id: impl Into<CompactString>, identity: Option<u32>, role: Role) -> Self {
        Self {
            id: id.into(),
            labels: identity.into_iter().collect(),
            identity: identity.into(),
            camera: OptionalIndex::NONE,
            role,
            row: OptionalIndex::NONE,
            source: None,
            beside: None,
        }
    }

    /// Whether the two items share a label (the definition of "relevant" without [`Qrels`](super::Qrels)).
    pub fn is_relevant_to(&self, other: &Item) -> bool {
        match (&*self.labels, &*other.labels) {
            ([a], [b]) => a == b,
            (a, b) => a.iter().any(|label| b.binary_search(label).is_ok()),
        }
    }

    /// The item's text: its input, or what stands beside its input.
    pub fn text(&self) -> Option<&str> {
        match self.source.as_deref() {
            Some(Source::Text(text)) => Some(text),
            _ => self.beside.as_ref()?.text.as_deref(),
        }
    }

    /// The value of a slice column, by its index in [`Probe::slice_columns`](super::Probe::slice_columns).
    pub fn slice(&self, column: usize) -> Option<&str> {
        self.beside.as_ref()?.slices.get(column)?.as_deref()
    }
}

/// An index, or none, in the four bytes of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalIndex(u32);

impl OptionalIndex {
    /// No index. Nothing is numbered so high: items themselves are counted in 32 bits.
    pub const NONE: Self = Self(u32::MAX);

    /// The index.
    pub fn get(self) -> Option<u32> {
        (self != Self::NONE).then_some(self.0)
    }

    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl From<u32> for OptionalIndex {
    fn from(index: u32) -> Self {
        assert_ne!(index, u32::MAX, "this number stands for none");
        Self(index)
    }
}

impl From<Option<u32>> for OptionalIndex {
    fn from(index: Option<u32>) -> Self {
        index.map_or(Self::NONE, Self::from)
    }
}

/// An item's labels, as a slice; nearly always one, which then needs no heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Few);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Few {
    One(u32),
    // Never of one label, so that equal labels are equal here.
    Other(Box<[u32]>),
}

impl Default for Labels {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<u32>> for Labels {
    fn from(labels: Vec<u32>) -> Self {
        Self(match labels.as_slice() {
            &[label] => Few::One(label),
            _ => Few::Other(labels.into()),
        })
    }
}

impl FromIterator<u32> for Labels {
    fn from_iter<I: IntoIterator<Item = u32>>(labels: I) -> Self {
        labels.into_iter().collect::<Vec<u32>>().into()
    }
}

impl Deref for Labels {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            Few::One(label) => std::slice::from_ref(label),
            Few::Other(labels) => labels,
        }
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_slice_however_many() {
        for labels in [vec![], vec![7], vec![1, 2, 3]] {
            let few: Labels = labels.clone().into();
            assert_eq!(&*few, labels.as_slice());
            assert_eq!(few, labels.iter().copied().collect());
        }
        assert_ne!(Labels::from(vec![1]), Labels::default());
    }

    #[test]
    fn an_index_or_none() {
        for index in [None, Some(0), Some(u32::MAX - 1)] {
            let optional = OptionalIndex::from(index);
            assert_eq!(optional.get(), index);
            assert_eq!(
                (optional.is_some(), optional.is_none()),
                (index.is_some(), index.is_none())
            );
        }
    }

    /// Ten million items take 0.7 GiB at this size, a third of what a small machine has.
    #[test]
    fn an_item_stays_small() {
        assert!(size_of::<Item>() <= 72, "{}", size_of::<Item>());
    }
}
