//! Which nodes there are to be, where each listens, and the command line of each.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use super::Dev;
use crate::cli::Failed;
use crate::cli::config::{Config, Layers, Machine};
use crate::store::home::Home;

/// Nodes unless there is a word or data that says otherwise.
const NODES_DEFAULT: u16 = 3;

/// Most nodes: so many processes are a mistake on one machine.
const NODES_MAX: u16 = 64;

/// From the ports of one node to those of the next.
const PORTS_APART: u16 = 10;

/// Memory for each core unless told otherwise: several nodes share the machine.
const MEMORY_MIB: u64 = 256;

/// Variables that would make all nodes alike where they must differ, or that the flags stand for.
pub(super) const VARIABLES_DROPPED: [&str; 3] = ["SLOOP_CONFIG", "SLOOP_JOIN", "SLOOP_ADVERTISE"];

/// A cluster to be run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) data_dir: PathBuf,
    pub(super) nodes: Vec<Planned>,
    /// What the nodes ask for, as the environment tells them.
    pub(super) token: Option<String>,
    /// Flags that all nodes have in common.
    common: Vec<String>,
}

/// A node to be run.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) binary: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) data_dir: PathBuf,
}

impl Plan {
    /// What the options ask for, if it can be had. Nothing is started or changed.
    ///
    /// # Errors
    /// [`Failed`] of wrong use, and for data of other nodes.
    pub(super) fn of(dev: Dev) -> Result<Plan, Failed> {
        let data_dir = PathBuf::from(&dev.data_dir);
        let nodes = count(&dev, present(&data_dir)?)?;
        let last = dev.base_port.checked_add((nodes - 1) * PORTS_APART + 1);
        if dev.base_port == 0 || last.is_none() {
            let most = u16::MAX - (nodes - 1) * PORTS_APART - 1;
            let port = dev.base_port;
            return Err(Failed::wrong_use(format!(
                "--base-port {port}: for {nodes} nodes it is a port from 1 to {most}"
            )));
        }
        let planned = |at: u16| {
            let (name, port) = (name(at), dev.base_port + at * PORTS_APART);
            let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Planned { data_dir: data_dir.join(&name), name, binary: on(port), http: on(port + 1) }
        };
        let nodes: Vec<Planned> = (0..nodes).map(planned).collect();
        let cores: u64 = dev.cores.parse().unwrap_or(1);
        let memory = dev.memory.unwrap_or_else(|| format!("{}MiB", MEMORY_MIB.saturating_mul(cores)));
        let settings = [
            ("cores", dev.cores),
            ("pin", dev.pin),
            ("memory", memory),
            ("log_level", dev.log_level),
            ("auto_join", "true".to_owned()),
        ];
        let token = config(&nodes[0], &settings)?.token.map(|token| token.reveal().to_owned());
        let flag = |(setting, value): (&str, String)| [format!("--{}", setting.replace('_', "-")), value];
        Ok(Plan { data_dir, nodes, token, common: settings.into_iter().flat_map(flag).collect() })
    }

    /// Whether all ports are free, said before anything starts.
    ///
    /// # Errors
    /// [`Failed`] with the first that is not.
    pub(super) fn check_ports(&self) -> Result<(), Failed> {
        for node in &self.nodes {
            let refused = |what: &str, address: SocketAddr, error: std::io::Error| {
                let (name, port) = (&node.name, address.port());
                let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
                let why = if in_use { "it is taken".to_owned() } else { error.to_string() };
                Failed::refused(format!(
                    "{name} needs port {port} for {what}, and {why}: stop who has it (another sloop dev?), or choose \
                     others with --base-port; nothing was started"
                ))
            };
            TcpListener::bind(node.binary).map_err(|error| refused("clients", node.binary, error))?;
            UdpSocket::bind(node.binary).map_err(|error| refused("gossip (UDP)", node.binary, error))?;
            TcpListener::bind(node.http).map_err(|error| refused("HTTP", node.http, error))?;
        }
        Ok(())
    }

    /// The arguments that start a node, for a shell as for us.
    pub(super) fn arguments(&self, at: usize) -> Vec<String> {
        let Planned { name, binary, http, data_dir } = &self.nodes[at];
        let mut arguments = vec!["serve".to_owned()];
        let mut flag = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        flag("--name", name.clone());
        flag("--data-dir", data_dir.display().to_string());
        flag("--listen", binary.to_string());
        flag("--http", http.to_string());
        if 0 < at {
            flag("--join", self.nodes[0].binary.to_string());
        }
        arguments.extend(self.common.iter().cloned());
        arguments
    }
}

fn name(at: u16) -> String {
    format!("n{}", at + 1)
}

/// How many nodes have data here: n1 to that one.
fn present(data_dir: &std::path::Path) -> Result<u16, Failed> {
    let is_there = |at: &u16| Ok(Home::peek(&data_dir.join(name(*at)))?.is_some());
    let there = (0..NODES_MAX).map(|at| is_there(&at)).collect::<Result<Vec<bool>, Failed>>()?;
    let count = there.iter().rposition(|is_there| *is_there).map_or(0, |last| last + 1);
    match there[..count].iter().position(|is_there| !is_there) {
        None => Ok(u16::try_from(count).expect("at most NODES_MAX")),
        Some(gap) => {
            let (dir, gap, last) = (data_dir.display(), gap + 1, count);
            Err(Failed::refused(format!(
                "{dir} has data of n{last} and none of n{gap}: put n{gap} back, or begin anew with another --data-dir"
            )))
        }
    }
}

/// How many nodes are to run.
fn count(dev: &Dev, present: u16) -> Result<u16, Failed> {
    match dev.nodes {
        None => Ok(if present == 0 { NODES_DEFAULT } else { present }),
        Some(nodes) if !(1..=NODES_MAX).contains(&nodes) => {
            Err(Failed::wrong_use(format!("--nodes {nodes}: from 1 to {NODES_MAX} nodes")))
        }
        Some(nodes) if nodes < present => Err(Failed::refused(format!(
            "--nodes {nodes}: {} has the data of {present} nodes, and the cluster would miss the others; start all of \
             them, or choose another --data-dir",
            dev.data_dir
        ))),
        Some(nodes) => Ok(nodes),
    }
}

/// The configuration of a node as it will be: a value that cannot be used is refused here, and once.
fn config(node: &Planned, settings: &[(&'static str, String)]) -> Result<Config, Failed> {
    let mut layers = Layers::default();
    let variables = std::env::vars().filter(|(name, _)| !VARIABLES_DROPPED.contains(&&**name));
    layers.environment(variables);
    layers.flag("name", node.name.clone());
    layers.flag("listen", node.binary.to_string());
    layers.flag("http", node.http.to_string());
    for (setting, value) in settings {
        layers.flag(setting, value.clone());
    }
    Config::resolve(&layers, &Machine::here()).map_err(Failed::wrong_use)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(folder: &std::path::Path) -> Dev {
        Dev {
            nodes: None,
            base_port: 7_600,
            data_dir: folder.display().to_string(),
            cores: "1".to_owned(),
            pin: "false".to_owned(),
            memory: None,
            log_level: "info".to_owned(),
        }
    }

    fn refusal(dev: Dev) -> (u8, String) {
        let failed = Plan::of(dev).unwrap_err();
        (failed.code, failed.message)
    }

    #[test]
    fn three_nodes_stand_ten_ports_apart_and_two_of_them_join_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::of(dev(folder.path())).unwrap();
        let shown: Vec<_> = plan
            .nodes
            .iter()
            .map(|node| format!("{} {} {}", node.name, node.binary.port(), node.http.port()))
            .collect();
        assert_eq!(shown, ["n1 7600 7601", "n2 7610 7611", "n3 7620 7621"]);
        let line = |at| plan.arguments(at).join(" ");
        assert!(!line(0).contains("--join"), "{}", line(0));
        assert!(line(2).contains("--name n3 ") && line(2).contains(" --join 127.0.0.1:7600 "), "{}", line(2));
        assert!(line(2).contains(" --cores 1 --pin false --memory 256MiB "), "{}", line(2));
        assert!(line(2).ends_with(" --auto-join true"), "{}", line(2));
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_use() {
        let folder = tempfile::tempdir().unwrap();
        let dev = || dev(folder.path());
        for (wrong, why) in [
            (Dev { nodes: Some(0), ..dev() }, "--nodes 0: from 1 to 64 nodes"),
            (Dev { nodes: Some(65), ..dev() }, "--nodes 65: from 1 to 64 nodes"),
            (Dev { base_port: 65_530, ..dev() }, "for 3 nodes it is a port from 1 to 65514"),
            (Dev { base_port: 0, ..dev() }, "a port from 1"),
            (Dev { cores: "many".to_owned(), ..dev() }, "cores: \"many\" is not a whole number"),
            (Dev { memory: Some("1MiB".to_owned()), ..dev() }, "memory: 1MiB is too little"),
            (Dev { log_level: "loud".to_owned(), ..dev() }, "log_level: \"loud\" is not one of"),
        ] {
            let (code, message) = refusal(wrong);
            assert!(code == 2 && message.contains(why), "{code} {message}");
        }
        assert!(Plan::of(Dev { base_port: 65_514, ..dev() }).is_ok(), "the last port is 65535");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_node() {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = Plan::of(Dev { nodes: Some(2), ..dev(folder.path()) }).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for node in &mut plan.nodes {
            (node.binary, node.http) = (free(), free());
        }
        plan.check_ports().unwrap();
        let taken = UdpSocket::bind(plan.nodes[1].binary).unwrap();
        let failed = plan.check_ports().unwrap_err();
        let port = taken.local_addr().unwrap().port();
        assert!(failed.message.starts_with(&format!("n2 needs port {port} for gossip")), "{}", failed.message);
        assert_eq!(failed.code, 1);
    }
}
