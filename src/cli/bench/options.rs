//! What a command line, and a YCSB file that it names, come to.

use std::fs;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value as Json, json};

use super::{Bench, Failed};
use crate::cli::data::env;
use crate::lab::driver::{Limit, Plan};
use crate::lab::workload::{Distribution, KEYS_MAX, Properties, Workload};
use crate::protocol::config::VALUE_BYTES_MAX;
use crate::wire::hello::Token;

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;
const SECONDS: f64 = 10.0;

/// Of a run that is measured by time; one that counts operations has none unless it is asked for.
const WARMUP_SECONDS: f64 = 1.0;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setup {
    pub(super) workload: Workload,
    /// Without addresses.
    pub(super) plan: Plan,
    /// Properties of a file that have no effect.
    pub(super) ignored: Vec<String>,
}

impl Bench {
    /// Reads all options but where to ask.
    pub(super) fn setup(&self) -> Result<Setup, Failed> {
        let Some(named) = Workload::named(&self.workload, self.keys.unwrap_or(KEYS), VALUE_BYTES) else {
            return self.setup_of(properties(&self.workload)?);
        };
        let (limit, rate) = (self.limit(None)?, self.rate);
        Ok(Setup { workload: self.adjusted(named)?, plan: self.plan(limit, rate)?, ignored: vec![] })
    }

    /// As a file says, where no option says otherwise.
    fn setup_of(&self, file: Properties) -> Result<Setup, Failed> {
        let workload = Workload {
            name: self.workload.clone(),
            mix: file.mix,
            distribution: file.distribution,
            keys: self.keys.or(file.keys).unwrap_or(KEYS),
            value_bytes: file.value_bytes,
        };
        let plan = self.plan(self.limit(file.operations)?, self.rate.or(file.rate))?;
        Ok(Setup { workload: self.adjusted(workload)?, plan, ignored: file.ignored })
    }

    fn adjusted(&self, mut workload: Workload) -> Result<Workload, Failed> {
        within("--keys", workload.keys, 1, KEYS_MAX)?;
        if let Some(text) = &self.value_size {
            workload.value_bytes = value_size(text)?;
        }
        if let Some(name) = &self.distribution {
            let known = Distribution::NAMES.map(|(name, _)| name).join(", ");
            workload.distribution = Distribution::named(name)
                .ok_or_else(|| Failed::wrong_use(format!("--distribution {name}: there are {known}")))?;
        }
        Ok(workload)
    }

    fn limit(&self, of_file: Option<u64>) -> Result<Limit, Failed> {
        match (self.seconds, self.operations) {
            (Some(_), Some(_)) => Err(Failed::wrong_use("--seconds and --operations: choose one")),
            (Some(seconds), None) => Ok(Limit::Time(time("--seconds", seconds)?)),
            (None, operations) => match operations.or(of_file) {
                Some(operations) => Ok(Limit::Operations(operations)),
                None => Ok(Limit::Time(time("--seconds", SECONDS)?)),
            },
        }
    }

    fn plan(&self, limit: Limit, rate: Option<f64>) -> Result<Plan, Failed> {
        within("--threads", self.threads as u64, 1, 256)?;
        within("--connections", self.connections as u64, self.threads as u64, 60_000)?;
        within("--pipeline", self.pipeline.into(), 1, 10_000)?;
        if let Some(rate) = rate
            && !(0.001..=1e9).contains(&rate)
        {
            return Err(Failed::wrong_use(format!(
                "--rate {rate}: it is from 0.001 to 1000000000 operations a second"
            )));
        }
        let warmup = self.warmup.unwrap_or(if matches!(limit, Limit::Time(_)) { WARMUP_SECONDS } else { 0.0 });
        Ok(Plan {
            addresses: vec![],
            connections: self.connections,
            pipeline: self.pipeline,
            warmup: time("--warmup", warmup)?,
            limit,
            rate,
        })
    }

    pub(super) fn token(&self) -> Result<Token, Failed> {
        let text = self.token.clone().or_else(|| env("SLOOP_TOKEN")).unwrap_or_default();
        Token::new(text).map_err(Failed::wrong_use)
    }

    /// What was chosen, beside what came of it.
    pub(super) fn fields(&self, setup: &Setup) -> Json {
        let Setup { workload, plan, .. } = setup;
        json!({
            "workload": workload.name,
            "distribution": workload.distribution.name(),
            "keys": workload.keys,
            "value_bytes": workload.value_bytes,
            "connections": plan.connections,
            "pipeline": plan.pipeline,
            "threads": self.threads,
            "rate": plan.rate,
            "warmup": plan.warmup.as_secs_f64(),
            "seed": self.seed,
        })
    }
}

fn properties(path: &str) -> Result<Properties, Failed> {
    let text = fs::read_to_string(path).map_err(|error| {
        let names = Workload::names().collect::<Vec<_>>().join(", ");
        Failed::wrong_use(format!("--workload {path}: there are {names}, and files with YCSB's properties: {error}"))
    })?;
    Properties::parse(&text).map_err(|error| Failed::wrong_use(format!("--workload {path}: {error}")))
}

fn within(what: &str, found: u64, min: u64, max: u64) -> Result<(), Failed> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Failed::wrong_use(format!("{what} {found}: it is from {min} to {max}")))
}

fn time(what: &str, seconds: f64) -> Result<Duration, Failed> {
    let day = 86_400.0;
    if (0.0..=day).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(Failed::wrong_use(format!("{what} {seconds}: it is from 0 to {day} seconds")))
}

fn value_size(text: &str) -> Result<usize, Failed> {
    let wrong = |error: String| Failed::wrong_use(format!("--value-size {text}: {error}"));
    let size: ByteSize = text.parse().map_err(wrong)?;
    within("--value-size", size.as_u64(), 0, VALUE_BYTES_MAX as u64)?;
    Ok(size.as_u64() as usize)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use argh::FromArgs;

    use super::*;

    fn setup(words: &[&str]) -> Result<Setup, Failed> {
        Bench::from_args(&["sloop", "bench"], words).expect("options that there are").setup()
    }

    #[test]
    fn without_options_there_is_something_useful_to_do() {
        let Setup { workload, plan, .. } = setup(&[]).unwrap();
        assert_eq!((workload.name.as_str(), workload.keys, workload.value_bytes), ("put", 1_000_000, 100));
        assert_eq!((plan.connections, plan.pipeline, plan.rate), (64, 1, None));
        assert_eq!((plan.warmup, plan.limit), (Duration::from_secs(1), Limit::Time(Duration::from_secs(10))));
    }

    #[test]
    fn options_say_how_much_and_how_hard() {
        let words = ["--workload", "a", "--distribution", "latest", "--keys", "7", "--value-size", "4KiB"];
        let Setup { workload, plan, .. } = setup(&[&words[..], &["--operations", "5"]].concat()).unwrap();
        assert_eq!((workload.distribution, workload.keys, workload.value_bytes), (Distribution::Latest, 7, 4_096));
        assert_eq!((plan.warmup, plan.limit), (Duration::ZERO, Limit::Operations(5)));
    }

    #[test]
    fn a_file_is_followed_where_no_option_says_otherwise() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "recordcount=50\noperationcount=60\nfieldcount=1\nrequestdistribution=zipfian\ntarget=9\nthreadcount=3";
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let Setup { workload, plan, ignored } = setup(&["--workload", path]).unwrap();
        assert_eq!((workload.distribution, workload.keys, workload.value_bytes), (Distribution::Zipfian, 50, 100));
        assert_eq!((plan.rate, plan.limit), (Some(9.0), Limit::Operations(60)));
        assert_eq!(ignored, ["threadcount"]);

        let words = ["--workload", path, "--keys", "8", "--seconds", "2", "--rate", "10", "--value-size", "1"];
        let Setup { workload, plan, .. } = setup(&words).unwrap();
        assert_eq!((workload.keys, workload.value_bytes), (8, 1));
        assert_eq!((plan.rate, plan.limit), (Some(10.0), Limit::Time(Duration::from_secs(2))));
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_use_with_its_numbers() {
        let cases: [(&[&str], &str); 10] = [
            (&["--workload", "e"], "--workload e: there are put, get, a, b, c, d, f, and files with YCSB's properties"),
            (&["--distribution", "even"], "--distribution even: there are uniform, zipfian, latest"),
            (&["--keys", "0"], "--keys 0: it is from 1 to 500000000000"),
            (&["--value-size", "11MiB"], "--value-size 11534336: it is from 0 to 10485760"),
            (&["--value-size", "much"], "--value-size much: "),
            (&["--seconds", "1", "--operations", "1"], "--seconds and --operations: choose one"),
            (&["--seconds", "-1"], "--seconds -1: it is from 0 to 86400 seconds"),
            (&["--connections", "3", "--threads", "4"], "--connections 3: it is from 4 to 60000"),
            (&["--pipeline", "0"], "--pipeline 0: it is from 1 to 10000"),
            (&["--rate", "0"], "--rate 0: it is from 0.001 to 1000000000 operations a second"),
        ];
        for (words, message) in cases {
            let failed = setup(words).unwrap_err();
            assert!(failed.message.starts_with(message) && failed.code == 2, "{words:?}: {failed:?}");
        }
    }
}
