//! The texts of a configuration before anyone has read them, each with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{ConfigError, FILE_BYTES_MAX, SETTINGS, read_text};

/// Begins the name of every variable that sets something.
const VARIABLE_PREFIX: &str = "SLOOP_";

/// Variables that others read: the commands that talk to a node, the tests, and this module.
const VARIABLES_OF_OTHERS: [&str; 3] = ["SLOOP_ADDR", "SLOOP_HTTP_ADDR", "SLOOP_CONFIG"];

/// What was given, the strongest layer over the others.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    given: BTreeMap<&'static str, Given>,
    warnings: Vec<String>,
}

/// One value that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The value as it was written.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag.
    Flag {
        /// Its name with the dashes.
        flag: String,
    },
}

impl Origin {
    /// Higher wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Environment { .. } => 2,
            Origin::Flag { .. } => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Environment { variable } => write!(f, "environment {variable}"),
            Origin::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

impl Layers {
    /// Takes what a file says.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read, is not TOML, or sets something unknown.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = read_text(path, FILE_BYTES_MAX)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), cause: error.to_string() })?;
        self.toml(path, &text)
    }

    /// Takes what the text of a file says.
    ///
    /// # Errors
    /// As [`Layers::file`].
    pub fn toml(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let line = |at: usize| 1 + text[..at].matches('\n').count();
        let table = DeTable::parse(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            line: line(error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })?;
        for (key, value) in table.get_ref() {
            let line = line(key.span().start);
            let Some(setting) = setting_named(key.get_ref()) else {
                return Err(ConfigError::Unknown {
                    path: path.to_owned(),
                    line,
                    name: key.get_ref().to_string(),
                    nearest: nearest(key.get_ref()),
                });
            };
            let origin = Origin::File { path: path.to_owned(), line };
            match plain(value.get_ref()) {
                Some(text) => self.give(setting, text, origin),
                None => {
                    return Err(ConfigError::Unusable {
                        setting,
                        reason: format!("a value cannot be a {}", value.get_ref().type_str()),
                        origin,
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes what the environment says. A variable that looks like a setting and is none is worth a warning: the
    /// environment is shared, so it is no error.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix(VARIABLE_PREFIX).map(str::to_ascii_lowercase) else {
                continue;
            };
            match setting_named(&name) {
                Some(setting) => self.give(setting, text, Origin::Environment { variable }),
                None if VARIABLES_OF_OTHERS.contains(&variable.as_str()) => {}
                None => self.warnings.push(format!(
                    "the variable {variable} sets nothing: did you mean {VARIABLE_PREFIX}{}?",
                    nearest(&name).to_ascii_uppercase()
                )),
            }
        }
    }

    /// Takes what a flag says.
    ///
    /// # Panics
    /// When there is no such setting: flags are spelt by the program.
    pub fn flag(&mut self, setting: &'static str, text: String) {
        assert!(setting_named(setting).is_some(), "{setting} is not a setting");
        let flag = format!("--{}", setting.replace('_', "-"));
        self.give(setting, text, Origin::Flag { flag });
    }

    /// What was given for a setting.
    pub fn get(&self, setting: &str) -> Option<&Given> {
        self.given.get(setting)
    }

    /// What looks like a mistake.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn origins(&self) -> BTreeMap<&'static str, Origin> {
        let origin = |(setting, given): (&&'static str, &Given)| (*setting, given.origin.clone());
        self.given.iter().map(origin).collect()
    }

    pub(super) fn read<T>(
        &self,
        setting: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.given.get(setting) else {
            return Ok(None);
        };
        read(&given.text).map(Some).map_err(|reason| ConfigError::Unusable {
            setting,
            reason,
            origin: given.origin.clone(),
        })
    }

    fn give(&mut self, setting: &'static str, text: String, origin: Origin) {
        match self.given.get(setting) {
            Some(stronger) if stronger.origin.rank() > origin.rank() => {}
            _ => {
                self.given.insert(setting, Given { text, origin });
            }
        }
    }
}

fn setting_named(name: &str) -> Option<&'static str> {
    SETTINGS.iter().map(|(setting, _)| *setting).find(|setting| *setting == name)
}

fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// The setting whose name takes the fewest changes.
fn nearest(name: &str) -> &'static str {
    let settings = SETTINGS.iter().map(|(setting, _)| *setting);
    settings.min_by_key(|setting| edits(name, setting)).expect("there are settings")
}

/// Letters to insert, remove or replace, to make one text of the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, right) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    *row.last().expect("a row has at least one place")
}
