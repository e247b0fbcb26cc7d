//! A workload from YCSB's own files (CoreWorkload's properties).
//!
//! A value here is one piece, so `fieldcount` times `fieldlength` is its size, and reads and updates take all of it. A
//! property that would change what is measured, and that we cannot honour, is an error with its name; others are
//! listed, so that nobody believes they took effect.

use std::collections::BTreeMap;

use super::{Distribution, Kind, Mix};
use crate::protocol::config::VALUE_BYTES_MAX;

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// `recordcount`.
    pub keys: Option<u64>,
    /// `operationcount`.
    pub operations: Option<u64>,
    /// `target`, operations a second.
    pub rate: Option<f64>,
    /// The proportions, made to add up to 1.
    pub mix: Mix,
    /// `requestdistribution`.
    pub distribution: Distribution,
    /// `fieldcount` times `fieldlength`.
    pub value_bytes: usize,
    /// Names that had no effect, in the order of the alphabet.
    pub ignored: Vec<String>,
}

/// Why a file cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    /// A line that is no property.
    #[error("line {number}: {line:?} is no property; one is name=value")]
    Line {
        /// Which line, from 1.
        number: usize,
        /// What it says.
        line: String,
    },
    /// A value that its property cannot have.
    #[error("{name}={value}: {expected} is expected")]
    Value {
        /// The property.
        name: &'static str,
        /// Its value.
        value: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// A property that would change what is measured, and cannot be honoured.
    #[error("{name}={value}: {why}")]
    Unsupported {
        /// The property.
        name: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        why: &'static str,
    },
}

/// The kinds of operation, the proportion of each, and what YCSB takes where the file says nothing.
const PROPORTIONS: [(&str, Kind, f64); 4] = [
    ("readproportion", Kind::Get, 0.95),
    ("updateproportion", Kind::Put, 0.05),
    ("insertproportion", Kind::Insert, 0.0),
    ("readmodifywriteproportion", Kind::ReadModifyWrite, 0.0),
];

/// Properties of which only these values mean what we do, and what the others would mean.
const FIXED: [(&str, &[&str], &str); 5] = [
    ("scanproportion", &["0", "0.0"], "there are no scans"),
    ("fieldlengthdistribution", &["constant"], "all values have the same size"),
    ("dataintegrity", &["false"], "values are random and cannot be checked"),
    ("insertstart", &["0"], "keys are numbered from 0"),
    (
        "workload",
        &["site.ycsb.workloads.CoreWorkload", "com.yahoo.ycsb.workloads.CoreWorkload"],
        "only CoreWorkload is understood",
    ),
];

impl Properties {
    /// Reads a file.
    ///
    /// # Errors
    /// [`PropertiesError`] when it cannot be followed.
    pub fn parse(text: &str) -> Result<Properties, PropertiesError> {
        let mut given = Given { values: lines(text)? };
        given.check_fixed()?;
        let field_bytes = given.number("fieldlength", "a number of bytes")?.unwrap_or(100);
        let fields = given.number("fieldcount", "a number of fields")?.unwrap_or(10);
        Ok(Properties {
            keys: given.number("recordcount", "a number of keys")?,
            operations: given.number("operationcount", "a number of operations")?,
            rate: given.number("target", "operations a second")?.map(|rate: u64| rate as f64),
            mix: given.mix()?,
            distribution: given.distribution()?,
            value_bytes: value_bytes(fields, field_bytes)?,
            ignored: given.values.into_keys().map(str::to_owned).collect(),
        })
    }
}

/// Properties by name, without those that were taken.
struct Given<'a> {
    values: BTreeMap<&'a str, &'a str>,
}

impl Given<'_> {
    fn check_fixed(&mut self) -> Result<(), PropertiesError> {
        for (name, supported, why) in FIXED {
            if let Some(value) = self.values.remove(name)
                && !supported.contains(&value)
            {
                return Err(PropertiesError::Unsupported { name, value: value.to_owned(), why });
            }
        }
        Ok(())
    }

    fn number<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, PropertiesError> {
        let wrong = |value: &str| PropertiesError::Value { name, value: value.to_owned(), expected };
        self.values.remove(name).map(|value| value.parse().map_err(|_| wrong(value))).transpose()
    }

    fn mix(&mut self) -> Result<Mix, PropertiesError> {
        let expected = "a share of 0 or more, and not all of them 0,";
        let mut shares = vec![];
        for (name, kind, default) in PROPORTIONS {
            let share = self.number(name, expected)?.unwrap_or(default);
            if !(0.0..=1e9).contains(&share) {
                return Err(PropertiesError::Value { name, value: share.to_string(), expected });
            }
            if share > 0.0 {
                shares.push((kind, share));
            }
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if sum == 0.0 {
            return Err(PropertiesError::Value { name: "readproportion", value: "0".to_owned(), expected });
        }
        shares.iter_mut().for_each(|(_, share)| *share /= sum);
        Ok(Mix { shares })
    }

    fn distribution(&mut self) -> Result<Distribution, PropertiesError> {
        let name = "requestdistribution";
        let value = self.values.remove(name).unwrap_or("uniform");
        let expected = "uniform, zipfian or latest";
        Distribution::named(value).ok_or_else(|| PropertiesError::Value { name, value: value.to_owned(), expected })
    }
}

fn value_bytes(fields: usize, field_bytes: usize) -> Result<usize, PropertiesError> {
    let bytes = fields.saturating_mul(field_bytes);
    if bytes <= VALUE_BYTES_MAX {
        return Ok(bytes);
    }
    let why = "fieldcount times fieldlength is more than the 10485760 bytes that a value can have";
    Err(PropertiesError::Unsupported { name: "fieldlength", value: field_bytes.to_string(), why })
}

/// As java.util.Properties reads them, without its escapes: `=`, `:` or a space between name and value, comments begin
/// with `#` or `!`, and the last of several lines with one name counts.
fn lines(text: &str) -> Result<BTreeMap<&str, &str>, PropertiesError> {
    let mut found = BTreeMap::new();
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let wrong = || PropertiesError::Line { number: at + 1, line: line.to_owned() };
        let (name, value) = line.split_once(['=', ':', ' ']).ok_or_else(wrong)?;
        found.insert(name.trim(), value.trim_start_matches([' ', '=', ':']));
    }
    Ok(found)
}

const _: () = assert!(VALUE_BYTES_MAX == 10_485_760, "an error above says so");

#[cfg(test)]
mod tests {
    use super::*;

    /// Workload A as YCSB ships it.
    const A: &str = "# Yahoo! Cloud System Benchmark\n\
        recordcount=1000\n\
        operationcount=1000\n\
        workload=site.ycsb.workloads.CoreWorkload\n\
        \n\
        readallfields=true\n\
        \n\
        readproportion=0.5\n\
        updateproportion=0.5\n\
        scanproportion=0\n\
        insertproportion=0\n\
        \n\
        requestdistribution=zipfian\n";

    #[test]
    fn a_file_of_ycsb_is_followed() {
        let a = Properties::parse(A).unwrap();
        assert_eq!((a.keys, a.operations, a.rate), (Some(1_000), Some(1_000), None));
        assert_eq!(a.mix.shares, [(Kind::Get, 0.5), (Kind::Put, 0.5)]);
        assert_eq!((a.distribution, a.value_bytes), (Distribution::Zipfian, 1_000));
        assert_eq!(a.ignored, ["readallfields"]);
    }

    #[test]
    fn what_is_not_said_is_as_in_ycsb() {
        let empty = Properties::parse("").unwrap();
        assert_eq!(empty.mix.shares, [(Kind::Get, 0.95), (Kind::Put, 0.05)]);
        assert_eq!((empty.distribution, empty.value_bytes), (Distribution::Uniform, 1_000));
        assert_eq!((empty.keys, empty.ignored), (None, vec![]));
    }

    #[test]
    fn names_and_values_stand_apart_in_three_ways_and_the_last_line_counts() {
        let text = "  fieldcount = 1\nfieldlength: 7\n! a comment\ntarget 500\nthreadcount=4\nfieldlength=8";
        let read = Properties::parse(text).unwrap();
        assert_eq!((read.value_bytes, read.rate), (8, Some(500.0)));
        assert_eq!(read.ignored, ["threadcount"]);
    }

    #[test]
    fn proportions_are_made_to_add_up() {
        let text = "readproportion=1\nupdateproportion=0\ninsertproportion=2\nreadmodifywriteproportion=1";
        let read = Properties::parse(text).unwrap();
        assert_eq!(read.mix.shares, [(Kind::Get, 0.25), (Kind::Insert, 0.5), (Kind::ReadModifyWrite, 0.25)]);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let cases = [
            ("scanproportion=0.95", "scanproportion=0.95: there are no scans"),
            ("dataintegrity=true", "dataintegrity=true: values are random and cannot be checked"),
            ("fieldlengthdistribution=zipfian", "fieldlengthdistribution=zipfian: all values have the same size"),
            ("insertstart=5", "insertstart=5: keys are numbered from 0"),
            ("workload=my.Own", "workload=my.Own: only CoreWorkload is understood"),
            ("requestdistribution=hotspot", "requestdistribution=hotspot: uniform, zipfian or latest is expected"),
            ("recordcount=many", "recordcount=many: a number of keys is expected"),
            (
                "readproportion=0\nupdateproportion=0",
                "readproportion=0: a share of 0 or more, and not all of them 0, is expected",
            ),
            ("nonsense", "line 1: \"nonsense\" is no property; one is name=value"),
        ];
        for (text, message) in cases {
            assert_eq!(Properties::parse(text).map_err(|error| error.to_string()), Err(message.to_owned()));
        }
        assert!(Properties::parse("readproportion=-1").is_err());
        assert!(Properties::parse("readproportion=NaN").is_err());
        assert!(Properties::parse("fieldlength=99999999").is_err());
    }
}
