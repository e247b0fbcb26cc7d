//! What a node is told: flags win over the environment, the environment over the file, the file over the defaults.
//!
//! Every setting has one name in all three: `data_dir`, `SLOOP_DATA_DIR`, `--data-dir`. A layer holds texts and
//! where each came from; [`Config::resolve`] reads them, so that a wrong value is refused with its origin whatever
//! layer it stands in. A name that is not a setting is an error in the file, and a warning in the environment, which is
//! shared with others.

mod command;
mod flags;
mod layers;
mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use command::Command;
pub use flags::Serve;
pub use layers::{Given, Layers, Origin};
pub use machine::Machine;

use crate::protocol::config::{
    COMPARE_PERIOD, COPIES_MAX, N_DEFAULT, TOMBSTONE_AGE, TRANSFER_BYTES_PER_SECOND, WEIGHT_MAX, ZONE_BYTES_MAX,
};
use crate::protocol::ring::Wanted;
use crate::runtime::memory::CORE_BYTES_MIN;
use crate::wire::hello::TOKEN_BYTES_MAX;

/// Every setting, in the order in which they are shown: its name, and what it means.
pub const SETTINGS: [(&str, &str); 27] = [
    ("name", "the node's name, as others see it"),
    ("data_dir", "where the node keeps its data"),
    ("listen", "address of the binary protocol"),
    ("http", "address of HTTP"),
    ("advertise", "address at which others reach the node's binary protocol and gossip"),
    ("join", "addresses of members, with commas between them: join their cluster"),
    ("zone", "what fails together with the node: copies stand in different zones"),
    ("weight", "the node's share of the data, beside the others' weights"),
    ("replicas", "copies of a key, in a cluster that this node founds"),
    ("read_quorum", "copies that a read waits for, in a cluster that this node founds"),
    ("write_quorum", "copies that a write waits for, in a cluster that this node founds"),
    ("cluster_secret", "what the nodes of the cluster prove to each other"),
    ("cluster_secret_file", "a file that holds the cluster's secret"),
    ("auto_join", "whether joined nodes get their share by themselves, also when the cluster holds data"),
    ("transfer_rate", "bytes a second that the node fetches at most when it gains partitions"),
    ("compare_period", "how often the node compares what it holds with the other owners"),
    ("tombstone_age", "deletions that are older are forgotten, once every owner has them"),
    ("cores", "data cores"),
    ("pin", "whether each data core stays on one CPU"),
    ("memory", "memory for caches, overlays, the LSM tree and queues together"),
    ("token", "what clients must show, on HTTP and in the hello"),
    ("token_file", "a file that holds the token"),
    ("insecure", "listen beyond this machine without a token or a cluster secret"),
    ("connections_max", "binary connections that may be open"),
    ("idle_timeout", "a binary connection that is silent for this long is closed"),
    ("log_format", "text or json"),
    ("log_level", "error, warn, info, debug or trace; also by module: \"info,sloop::store=debug\""),
];

/// Longest name. It stands in every welcome and beside every version that the node wrote.
const NAME_BYTES_MAX: usize = 64;

/// Most bytes of a token's file: a token and its line's end, with room for a mistake to be shown.
const TOKEN_FILE_BYTES_MAX: u64 = 4 * 1_024;

/// Most bytes of a configuration file: a thousand times what one needs.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// Least rate of a transfer: below it a change of owners would last for weeks.
const TRANSFER_RATE_MIN: u64 = 64 << 10;

/// Memory that a node takes at most unless told otherwise, or unless its cores need more.
const MEMORY_DEFAULT_MAX: u64 = 2 << 30;

/// What a node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub name: String,
    /// Where the node keeps its data.
    pub data_dir: PathBuf,
    /// Address of the binary protocol.
    pub listen: SocketAddr,
    /// Address of HTTP.
    pub http: SocketAddr,
    /// Address at which others reach the binary protocol and gossip, where that is not `listen`.
    pub advertise: Option<SocketAddr>,
    /// Addresses of members of the cluster to join, as they were given; none for a node that founds one.
    pub join: Vec<String>,
    /// What fails together with the node.
    pub zone: Option<String>,
    /// The node's share of the data, beside the others' weights.
    pub weight: Option<u32>,
    /// Copies and quorums of a cluster that the node founds.
    pub wanted: Wanted,
    /// What the nodes of the cluster prove to each other.
    pub cluster_secret: Option<Token>,
    /// Whether joined nodes get their share by themselves, also when the cluster holds data.
    pub auto_join: bool,
    /// Bytes a second that the node fetches at most when it gains partitions.
    pub transfer_rate: u64,
    /// How often the node compares what it holds with the other owners.
    pub compare_period: Duration,
    /// Whether an owner that is away is owed what it misses. No setting: only `--no-hints` says otherwise, for trials.
    pub keeps_hints: bool,
    /// Deletions that are older are forgotten.
    pub tombstone_age: Duration,
    /// Data cores, from 1.
    pub cores: u16,
    /// Whether each data core stays on one CPU.
    pub pin: bool,
    /// Bytes of memory for caches, overlays, the LSM tree and queues together.
    pub memory: u64,
    /// What clients must show.
    pub token: Option<Token>,
    /// Whether to listen beyond this machine without a token.
    pub insecure: bool,
    /// Binary connections that may be open.
    pub connections_max: u32,
    /// A binary connection that is silent for this long is closed.
    pub idle_timeout: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it.
    pub log_level: String,
    /// Where each setting that was given came from; the others have their defaults.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What looks like a mistake and is none for certain, for the log.
    pub warnings: Vec<String>,
}

/// A shared secret; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no configuration. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The file is not TOML.
    #[error("{} line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// The file sets something that is not a setting.
    #[error("{} line {line}: unknown setting \"{name}\": did you mean \"{nearest}\"?", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What it sets.
        name: String,
        /// The setting whose name is nearest.
        nearest: &'static str,
    },
    /// A value that cannot be used.
    #[error("{setting}: {reason} ({origin})")]
    Unusable {
        /// The setting.
        setting: &'static str,
        /// What is wrong with its value.
        reason: String,
        /// Where it came from.
        origin: Origin,
    },
    /// A listener that other nodes can reach, without a secret.
    #[error(
        "listen = \"{address}\" can be reached from other machines and no cluster secret is set: \
         set cluster_secret_file, listen on 127.0.0.1, or say --insecure when the network is trusted"
    )]
    ExposedToNodes {
        /// The address.
        address: SocketAddr,
    },
    /// A listener that others can reach, without a token.
    #[error(
        "{setting} = \"{address}\" can be reached from other machines and no token is set: \
         set token_file, listen on 127.0.0.1, or say --insecure when the network is trusted"
    )]
    Exposed {
        /// `listen` or `http`.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

impl Config {
    /// Reads what the layers say; this is the one place where defaults are spelt.
    ///
    /// # Errors
    /// [`ConfigError`] for a value that cannot be used, and for a listener that would be open to all.
    pub fn resolve(layers: &Layers, machine: &Machine) -> Result<Config, ConfigError> {
        // What is not given follows from what is: fewer cores where memory is short, more memory where cores are many.
        let memory = layers.read("memory", memory)?;
        let room = memory.unwrap_or(machine.memory / 2) / CORE_BYTES_MIN;
        let cores = layers.read("cores", |text| whole(text, 1..=1_024))?;
        let cores = cores.unwrap_or_else(|| u16::try_from(room).unwrap_or(u16::MAX).clamp(1, machine.cores));
        let least = CORE_BYTES_MIN * u64::from(cores);
        let memory = memory.unwrap_or((machine.memory / 2).min(MEMORY_DEFAULT_MAX.max(2 * least)).max(least));
        let config = Config {
            name: layers.read("name", name)?.unwrap_or_else(|| machine.name()),
            data_dir: layers.read("data_dir", path)?.unwrap_or_else(|| "./sloop-data".into()),
            listen: layers.read("listen", address)?.unwrap_or(([127, 0, 0, 1], 7600).into()),
            http: layers.read("http", address)?.unwrap_or(([127, 0, 0, 1], 7601).into()),
            advertise: layers.read("advertise", address)?,
            join: layers.read("join", addresses)?.unwrap_or_default(),
            zone: layers.read("zone", zone)?,
            weight: layers.read("weight", |text| whole(text, 1..=WEIGHT_MAX))?,
            wanted: wanted(layers)?,
            cluster_secret: secret_of(layers, "cluster_secret", "cluster_secret_file")?,
            auto_join: layers.read("auto_join", yes_or_no)?.unwrap_or(false),
            transfer_rate: layers.read("transfer_rate", rate)?.unwrap_or(TRANSFER_BYTES_PER_SECOND),
            compare_period: layers.read("compare_period", time)?.unwrap_or(COMPARE_PERIOD),
            keeps_hints: true,
            tombstone_age: layers.read("tombstone_age", time)?.unwrap_or(TOMBSTONE_AGE),
            cores,
            pin: layers.read("pin", yes_or_no)?.unwrap_or(true),
            memory,
            token: secret_of(layers, "token", "token_file")?,
            insecure: layers.read("insecure", yes_or_no)?.unwrap_or(false),
            connections_max: layers.read("connections_max", |text| whole(text, 1..=65_536))?.unwrap_or(4_096),
            idle_timeout: layers.read("idle_timeout", time)?.unwrap_or(Duration::from_secs(600)),
            log_format: layers.read("log_format", log_format)?.unwrap_or(LogFormat::Text),
            log_level: layers.read("log_level", log_level)?.unwrap_or_else(|| "info".to_owned()),
            origins: layers.origins(),
            warnings: layers.warnings().to_vec(),
        };
        config.joins_somebody()?;
        config.enough(machine)?;
        config.apart()?;
        config.closed_to_strangers()?;
        config.reachable()?;
        Ok(config)
    }

    /// A flag that names nobody, as an empty variable of a script makes it, would found a second cluster. A file may
    /// say so: that is how `config show` spells it.
    fn joins_somebody(&self) -> Result<(), ConfigError> {
        match self.origins.get("join") {
            Some(origin @ Origin::Flag { .. }) if self.join.is_empty() => Err(ConfigError::Unusable {
                setting: "join",
                reason: "it names no address: leave it out to found a cluster".to_owned(),
                origin: origin.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Each setting with its value as the file spells it, and where it came from. A token is not shown.
    pub fn shown(&self) -> Vec<(&'static str, Option<String>, Origin)> {
        let origin = |name| self.origins.get(name).cloned().unwrap_or(Origin::Default);
        let shown = |(name, _)| (name, self.spelt(name), origin(name));
        SETTINGS.into_iter().map(shown).collect()
    }

    fn spelt(&self, setting: &str) -> Option<String> {
        let text = |text: &dyn fmt::Display| Some(toml::Value::String(text.to_string()).to_string());
        match setting {
            "name" => text(&self.name),
            "data_dir" => text(&self.data_dir.display()),
            "listen" => text(&self.listen),
            "http" => text(&self.http),
            "advertise" => self.advertise.as_ref().and_then(|address| text(address)),
            "join" => text(&self.join.join(",")),
            "zone" => self.zone.as_ref().and_then(|zone| text(zone)),
            "weight" => self.weight.map(|weight| weight.to_string()),
            "replicas" => Some(self.wanted.n.to_string()),
            "read_quorum" => Some(self.wanted.r.to_string()),
            "write_quorum" => Some(self.wanted.w.to_string()),
            "auto_join" => Some(self.auto_join.to_string()),
            "transfer_rate" => text(&bytes_shown(self.transfer_rate)),
            "compare_period" => text(&humantime::format_duration(self.compare_period)),
            "tombstone_age" => text(&humantime::format_duration(self.tombstone_age)),
            "cores" => Some(self.cores.to_string()),
            "pin" => Some(self.pin.to_string()),
            "memory" => text(&bytes_shown(self.memory)),
            "insecure" => Some(self.insecure.to_string()),
            "connections_max" => Some(self.connections_max.to_string()),
            "idle_timeout" => text(&humantime::format_duration(self.idle_timeout)),
            "log_format" => text(&match self.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }),
            "log_level" => text(&self.log_level),
            _secret => None,
        }
    }

    fn enough(&self, machine: &Machine) -> Result<(), ConfigError> {
        let least = CORE_BYTES_MIN * u64::from(self.cores);
        let (given, cores) = (bytes_shown(self.memory), self.cores);
        let reason = if self.memory < least {
            let least = bytes_shown(least);
            format!("{given} is too little for cores = {cores}: at least {least}, or fewer cores")
        } else if self.memory > machine.memory && self.origins.contains_key("memory") {
            format!("{given} is more than the {} that this process may use", bytes_shown(machine.memory))
        } else {
            return Ok(());
        };
        let origin = self.origins.get("memory").cloned().unwrap_or(Origin::Default);
        Err(ConfigError::Unusable { setting: "memory", reason, origin })
    }

    /// Said here, because the port would seem to be taken by another program.
    fn apart(&self) -> Result<(), ConfigError> {
        if self.listen != self.http || self.listen.port() == 0 {
            return Ok(());
        }
        Err(ConfigError::Unusable {
            setting: "http",
            reason: format!("{} is the address of the binary protocol too", self.http),
            origin: self.origins.get("http").cloned().unwrap_or(Origin::Default),
        })
    }

    /// Others cannot reach an address that stands for all of this machine's.
    fn reachable(&self) -> Result<(), ConfigError> {
        let (setting, address) = self.advertise.map_or(("listen", self.listen), |address| ("advertise", address));
        if !address.ip().is_unspecified() {
            return Ok(());
        }
        let reason = format!("{address} is no address that other nodes could reach: set advertise to one that is");
        let origin = self.origins.get(setting).cloned().unwrap_or(Origin::Default);
        Err(ConfigError::Unusable { setting, reason, origin })
    }

    fn closed_to_strangers(&self) -> Result<(), ConfigError> {
        let listeners = [("listen", self.listen), ("http", self.http)];
        let exposed = listeners.into_iter().find(|(_, address)| !address.ip().is_loopback());
        match exposed {
            Some((setting, address)) if self.token.is_none() && !self.insecure => {
                Err(ConfigError::Exposed { setting, address })
            }
            _ if !self.listen.ip().is_loopback() && self.cluster_secret.is_none() && !self.insecure => {
                Err(ConfigError::ExposedToNodes { address: self.listen })
            }
            _ => Ok(()),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is not a name: 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores"))
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("an empty path".to_owned()),
        _ => Ok(text.into()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &dyn fmt::Display| format!("\"{text}\" is not an address such as 127.0.0.1:7600: {why}");
    let mut found = text.to_socket_addrs().map_err(|error| wrong(&error))?;
    found.next().ok_or_else(|| wrong(&"the name has no address"))
}

/// Addresses that are looked up when they are needed: their names may not be known yet.
fn addresses(text: &str) -> Result<Vec<String>, String> {
    let part = |part: &str| {
        let is_whole =
            part.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if is_whole { Ok(part.to_owned()) } else { Err(format!("\"{part}\" is not an address such as 10.0.0.5:7600")) }
    };
    text.split(',').map(str::trim).filter(|address| !address.is_empty()).map(part).collect()
}

fn zone(text: &str) -> Result<String, String> {
    match text.len() {
        0..=ZONE_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(format!("a zone has at most {ZONE_BYTES_MAX} bytes, not {bytes}")),
    }
}

/// Copies and quorums. A quorum that is not given is the smallest that sees every write: a majority.
fn wanted(layers: &Layers) -> Result<Wanted, ConfigError> {
    let n = layers.read("replicas", |text| whole(text, 1..=COPIES_MAX))?.unwrap_or(N_DEFAULT);
    let r = layers.read("read_quorum", |text| whole(text, 1..=n))?.unwrap_or(n / 2 + 1);
    let w = layers.read("write_quorum", |text| whole(text, 1..=n))?.unwrap_or(n / 2 + 1);
    Ok(Wanted { n, r, w })
}

fn whole<T>(text: &str, allowed: std::ops::RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + fmt::Display,
{
    let refused = || format!("\"{text}\" is not a whole number from {} to {}", allowed.start(), allowed.end());
    let number = text.parse().map_err(|_| refused())?;
    if allowed.contains(&number) { Ok(number) } else { Err(refused()) }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

fn memory(text: &str) -> Result<u64, String> {
    let found: bytesize::ByteSize =
        text.parse().map_err(|_| format!("\"{text}\" is not a size such as \"64MiB\" or \"2GiB\""))?;
    Ok(found.0)
}

fn rate(text: &str) -> Result<u64, String> {
    match memory(text)? {
        found @ TRANSFER_RATE_MIN.. => Ok(found),
        found => {
            Err(format!("{} a second is too little: at least {}", bytes_shown(found), bytes_shown(TRANSFER_RATE_MIN)))
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let found = humantime::parse_duration(text)
        .map_err(|error| format!("\"{text}\" is not a time such as \"20ms\" or \"10m\": {error}"))?;
    if found.is_zero() {
        return Err("a time of nothing".to_owned());
    }
    Ok(found)
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("\"{text}\" is neither text nor json")),
    }
}

/// `EnvFilter` takes a misspelt level for the name of a module and logs nothing: levels are checked here.
fn log_level(text: &str) -> Result<String, String> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let known = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or(directive);
        levels.contains(&level)
    };
    if text.split(',').all(known) && tracing_subscriber::EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is not one of {}, alone or by module", levels.join(", ")))
    }
}

/// A secret from whichever of its two settings stands higher.
fn secret_of(layers: &Layers, setting: &'static str, setting_file: &'static str) -> Result<Option<Token>, ConfigError> {
    let rank = |setting| layers.get(setting).map(|given| given.origin.rank());
    match (rank(setting), rank(setting_file)) {
        (Some(text), Some(file)) if text == file => {
            let given = layers.get(setting).expect("it has a rank");
            Err(ConfigError::Unusable {
                setting,
                reason: format!("{setting} and {setting_file} are both given: give one"),
                origin: given.origin.clone(),
            })
        }
        (text, file) if text > file => layers.read(setting, secret),
        _ => layers.read(setting_file, |path| {
            let text = read_text(Path::new(path), TOKEN_FILE_BYTES_MAX).map_err(|error| format!("{path}: {error}"))?;
            secret(text.trim_end_matches(['\r', '\n']))
        }),
    }
}

/// Reads a small file whole; one that does not end within its bound is an error, whatever it is.
fn read_text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(std::io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

fn secret(text: &str) -> Result<Token, String> {
    let sendable = text.chars().all(|c| c.is_ascii_graphic());
    if (1..=TOKEN_BYTES_MAX).contains(&text.len()) && sendable {
        Ok(Token(text.to_owned()))
    } else {
        Err(format!("a token has 1 to {TOKEN_BYTES_MAX} visible ASCII characters, this one has {} bytes", text.len()))
    }
}

/// The largest unit that tells the number exactly.
fn bytes_shown(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}
