//! `sloop config check` and `sloop config show`.

use std::path::PathBuf;

use argh::FromArgs;

use super::{Config, ConfigError, Layers, Machine};
use crate::cli::Said;

/// Look at the configuration that a node here would run with.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "config")]
pub struct Command {
    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Check(Check),
    Show(Show),
}

/// Say whether the configuration can be used.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
struct Check {
    /// a TOML file; without it SLOOP_CONFIG, or no file
    #[argh(option)]
    config: Option<PathBuf>,
}

/// Show every setting as it takes effect, and where it came from.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "show")]
struct Show {
    /// a TOML file; without it SLOOP_CONFIG, or no file
    #[argh(option)]
    config: Option<PathBuf>,
}

impl Command {
    /// # Errors
    /// [`ConfigError`] when there is no configuration.
    pub fn run(self) -> Result<Said, ConfigError> {
        match self.what {
            What::Check(check) => Ok(checked(&effective(check.config)?)),
            What::Show(show) => Ok(shown(&effective(show.config)?)),
        }
    }
}

fn effective(file: Option<PathBuf>) -> Result<Config, ConfigError> {
    Config::resolve(&Layers::around(file)?, &Machine::here())
}

impl Layers {
    /// The file that is named, or that `SLOOP_CONFIG` names, and the environment of this process over it.
    ///
    /// # Errors
    /// As [`Layers::file`].
    pub fn around(file: Option<PathBuf>) -> Result<Layers, ConfigError> {
        let mut layers = Layers::default();
        if let Some(path) = file.or_else(|| std::env::var_os("SLOOP_CONFIG").map(PathBuf::from)) {
            layers.file(&path)?;
        }
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        layers.environment(std::env::vars_os().filter_map(text));
        Ok(layers)
    }
}

fn checked(config: &Config) -> Said {
    let mut said = Said::default();
    config.warnings.iter().for_each(|warning| said.line(&format!("warning: {warning}")));
    said.line("the configuration can be used");
    said
}

/// Lines that can be used as a file themselves.
fn shown(config: &Config) -> Said {
    let mut said = Said::default();
    for (name, value, origin) in config.shown() {
        match value {
            Some(value) => said.line(&format!("{:<40} # {origin}", format!("{name} = {value}"))),
            None if config.origins.contains_key(name) => {
                said.line(&format!("# {name} is set and not shown ({origin})"))
            }
            None => said.line(&format!("# {name} is not set")),
        }
    }
    said
}
