//! The flags of `sloop serve`, one for each setting.

use std::path::PathBuf;

use argh::FromArgs;

use super::{Config, ConfigError, Layers, Machine};

/// Run a node. Every option may also stand in the file (data_dir = "..") or the environment (SLOOP_DATA_DIR);
/// `sloop config show` tells what takes effect.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "serve")]
pub struct Serve {
    /// a TOML file; without it SLOOP_CONFIG, or no file
    #[argh(option)]
    config: Option<PathBuf>,
    /// the node's name (the host's)
    #[argh(option)]
    name: Option<String>,
    /// where the node keeps its data (./sloop-data)
    #[argh(option)]
    data_dir: Option<String>,
    /// address of the binary protocol (127.0.0.1:7600)
    #[argh(option)]
    listen: Option<String>,
    /// address of HTTP (127.0.0.1:7601)
    #[argh(option)]
    http: Option<String>,
    /// address at which others reach the binary protocol and gossip (that of --listen)
    #[argh(option)]
    advertise: Option<String>,
    /// addresses of members, with commas between them: join their cluster
    #[argh(option)]
    join: Option<String>,
    /// what fails together with the node: copies stand in different zones
    #[argh(option)]
    zone: Option<String>,
    /// the node's share of the data, beside the others' weights (1)
    #[argh(option)]
    weight: Option<String>,
    /// copies of a key, in a cluster that this node founds (3)
    #[argh(option)]
    replicas: Option<String>,
    /// copies that a read waits for, in a cluster that this node founds (a majority)
    #[argh(option)]
    read_quorum: Option<String>,
    /// copies that a write waits for, in a cluster that this node founds (a majority)
    #[argh(option)]
    write_quorum: Option<String>,
    /// what the nodes of the cluster prove to each other; better --cluster-secret-file
    #[argh(option)]
    cluster_secret: Option<String>,
    /// a file that holds the cluster's secret
    #[argh(option)]
    cluster_secret_file: Option<String>,
    /// whether joined nodes get their share by themselves, also when the cluster holds data: true or false (false)
    #[argh(option)]
    auto_join: Option<String>,
    /// bytes a second that the node fetches at most when it gains partitions (64MiB)
    #[argh(option)]
    transfer_rate: Option<String>,
    /// how often the node compares what it holds with the other owners (5s)
    #[argh(option)]
    compare_period: Option<String>,
    /// deletions that are older are forgotten, once every owner has them (1h)
    #[argh(option)]
    tombstone_age: Option<String>,
    /// data cores (all)
    #[argh(option)]
    cores: Option<String>,
    /// whether each data core stays on one CPU: true or false (true)
    #[argh(option)]
    pin: Option<String>,
    /// memory for caches, overlays, the LSM tree and queues together (2GiB, or half of what there is)
    #[argh(option)]
    memory: Option<String>,
    /// what clients must show; better --token-file, since others see command lines
    #[argh(option)]
    token: Option<String>,
    /// a file that holds the token
    #[argh(option)]
    token_file: Option<String>,
    /// listen beyond this machine without a token or a cluster secret
    #[argh(switch)]
    insecure: bool,
    /// binary connections that may be open (4096)
    #[argh(option)]
    connections_max: Option<String>,
    /// a binary connection that is silent for this long is closed (10m)
    #[argh(option)]
    idle_timeout: Option<String>,
    /// text or json (text)
    #[argh(option)]
    log_format: Option<String>,
    /// error, warn, info, debug or trace; also by module (info)
    #[argh(option)]
    log_level: Option<String>,
    /// stop as after SIGTERM when standard input ends: `sloop dev` holds its other end, and so leaves no node behind
    #[argh(switch, hidden_help)]
    end_with_stdin: bool,
    /// keep no hints but those that counted towards W, and remember nothing of it: trials of what trees find alone
    #[argh(switch, hidden_help)]
    no_hints: bool,
}

impl Serve {
    /// Whether the node stops when its standard input ends.
    pub fn ends_with_stdin(&self) -> bool {
        self.end_with_stdin
    }

    /// The configuration that the node runs with.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none.
    pub fn config(self) -> Result<Config, ConfigError> {
        let mut layers = Layers::around(self.config)?;
        let flags = [
            ("name", self.name),
            ("data_dir", self.data_dir),
            ("listen", self.listen),
            ("http", self.http),
            ("advertise", self.advertise),
            ("join", self.join),
            ("zone", self.zone),
            ("weight", self.weight),
            ("replicas", self.replicas),
            ("read_quorum", self.read_quorum),
            ("write_quorum", self.write_quorum),
            ("cluster_secret", self.cluster_secret),
            ("cluster_secret_file", self.cluster_secret_file),
            ("auto_join", self.auto_join),
            ("transfer_rate", self.transfer_rate),
            ("compare_period", self.compare_period),
            ("tombstone_age", self.tombstone_age),
            ("cores", self.cores),
            ("pin", self.pin),
            ("memory", self.memory),
            ("token", self.token),
            ("token_file", self.token_file),
            ("insecure", self.insecure.then(|| "true".to_owned())),
            ("connections_max", self.connections_max),
            ("idle_timeout", self.idle_timeout),
            ("log_format", self.log_format),
            ("log_level", self.log_level),
        ];
        for (setting, text) in flags {
            if let Some(text) = text {
                layers.flag(setting, text);
            }
        }
        let config = Config::resolve(&layers, &Machine::here())?;
        Ok(Config { keeps_hints: !self.no_hints, ..config })
    }
}
