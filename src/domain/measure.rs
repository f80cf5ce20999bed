//! What is measured, and what it is held against.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::UnknownName;

/// A number per query whose mean is reported (section 2 of `docs/METRICS.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Mean average precision over the whole gallery.
    MeanAveragePrecision,
    /// Share of queries with a relevant item in the top k.
    CmcAt(u32),
    /// Relevant items in the top k over all relevant items.
    RecallAt(u32),
    /// Mean reciprocal rank of the first relevant item.
    MeanReciprocalRank,
    /// Precision at R, the number of relevant items.
    RPrecision,
    /// Mean inverse negative penalty: R over the rank of the last relevant item.
    MeanInverseNegativePenalty,
    /// Normalised discounted cumulative gain of the top k; gains are the grades, 1 without graded judgements.
    NdcgAt(u32),
}

impl Measure {
    /// The measures of every pairing's table, in their order.
    pub const ALL: [Measure; 11] = [
        Measure::MeanAveragePrecision,
        Measure::CmcAt(1),
        Measure::CmcAt(5),
        Measure::CmcAt(10),
        Measure::RecallAt(1),
        Measure::RecallAt(5),
        Measure::RecallAt(10),
        Measure::MeanReciprocalRank,
        Measure::RPrecision,
        Measure::MeanInverseNegativePenalty,
        Measure::NdcgAt(10),
    ];
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measure::MeanAveragePrecision => f.write_str("mAP"),
            Measure::CmcAt(k) => write!(f, "CMC@{k}"),
            Measure::RecallAt(k) => write!(f, "recall@{k}"),
            Measure::MeanReciprocalRank => f.write_str("MRR"),
            Measure::RPrecision => f.write_str("R-precision"),
            Measure::MeanInverseNegativePenalty => f.write_str("mINP"),
            Measure::NdcgAt(k) => write!(f, "nDCG@{k}"),
        }
    }
}

impl Serialize for Measure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Measure {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("measure", text, Measure::ALL, |measure| measure.to_string())
    }
}

impl<'de> Deserialize<'de> for Measure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Who says what is relevant to a query, and so what every measure is a measure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The probe's labels or judgements: measures say how good retrieval is.
    #[default]
    Labels,
    /// Clusters of the old embeddings: measures say how far retrieval agrees with the old model, never how good it is.
    OldModel,
}

impl Reference {
    /// The measure as it is called under this reference.
    pub fn name(self, measure: Measure) -> NamedMeasure {
        NamedMeasure {
            measure,
            reference: self,
        }
    }

    /// What all measures together are about.
    pub fn quantity(self) -> &'static str {
        match self {
            Reference::Labels => "retrieval quality",
            Reference::OldModel => "agreement with the old model",
        }
    }

    /// A hit that counts, and one that does not.
    pub fn hits(self) -> [&'static str; 2] {
        match self {
            Reference::Labels => ["right", "wrong"],
            Reference::OldModel => ["agreeing", "differing"],
        }
    }

    /// What items with one label are: singular, plural.
    pub fn groups(self) -> [&'static str; 2] {
        match self {
            Reference::Labels => ["identity", "identities"],
            Reference::OldModel => ["cluster", "clusters"],
        }
    }
}

/// Stands before a measure's name where the old model is the reference.
const AGREEMENT: &str = "agreement ";

/// A measure with its reference; shown as `mAP`, or as `agreement mAP` where the old model is the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedMeasure {
    /// The measure.
    pub measure: Measure,
    /// What it is held against.
    pub reference: Reference,
}

impl fmt::Display for NamedMeasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reference {
            Reference::Labels => self.measure.fmt(f),
            Reference::OldModel => write!(f, "{AGREEMENT}{}", self.measure),
        }
    }
}

impl Serialize for NamedMeasure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NamedMeasure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (reference, measure) = match text.strip_prefix(AGREEMENT) {
            Some(measure) => (Reference::OldModel, measure),
            None => (Reference::Labels, text.as_str()),
        };
        let measure = measure.parse().map_err(serde::de::Error::custom)?;
        Ok(reference.name(measure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_says_what_it_is_held_against() {
        let measure = Measure::MeanAveragePrecision;
        assert_eq!(Reference::Labels.name(measure).to_string(), "mAP");
        let agreement = Reference::OldModel.name(measure).to_string();
        assert_eq!(agreement, "agreement mAP");
        for reference in [Reference::Labels, Reference::OldModel] {
            for named in Measure::ALL.map(|measure| reference.name(measure)) {
                let json = serde_json::to_string(&named).unwrap();
                assert_eq!(serde_json::from_str::<NamedMeasure>(&json).unwrap(), named);
            }
        }
    }
}
