//! What is compared: an operation over so many connections, with so many requests under way on each.

use std::fmt;
use std::str::FromStr;

use sloop::lab::workload::{Distribution, Workload};

/// One comparison, as `put-64` or `get-64-p16`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// A workload that has a name: put, get, a, b and so on.
    pub workload: String,
    /// Connections.
    pub connections: usize,
    /// Requests under way on each.
    pub pipeline: u16,
}

impl Case {
    /// What is asked.
    pub fn workload(&self, distribution: Distribution, keys: u64, value_bytes: usize) -> Workload {
        let workload = Workload::named(&self.workload, keys, value_bytes).expect("checked when it was read");
        Workload { distribution, ..workload }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let wrong = || format!("{text:?} is no case: one is put-64 or get-64-p16, connections and requests from 1 on");
        let mut parts = text.split('-');
        let workload = parts.next().filter(|name| Workload::named(name, 1, 0).is_some()).ok_or_else(wrong)?;
        let connections = parts.next().and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
        let pipeline = match parts.next() {
            None => 1,
            Some(depth) => depth.strip_prefix('p').and_then(|number| number.parse().ok()).ok_or_else(wrong)?,
        };
        if connections == 0 || pipeline == 0 || parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Case { workload: workload.to_owned(), connections, pipeline })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.workload, self.connections)?;
        if self.pipeline == 1 { Ok(()) } else { write!(f, "-p{}", self.pipeline) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_shown() {
        for text in ["put-1", "put-64", "get-64-p16", "a-256"] {
            assert_eq!(text.parse::<Case>().map(|case| case.to_string()), Ok(text.to_owned()));
        }
        for text in ["put", "put-0", "put-x", "put-1-16", "put-1-p0", "put-1-p2-3", "scan-1", ""] {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }
}
