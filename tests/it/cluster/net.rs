//! A network of our own for three nodes: a namespace each, a bridge between them. Needs root.
//!
//! ```text
//!   n0 eth0 ─┐
//!   n1 eth0 ─┼─ bridge, 198.18.x.254: the tests' own end
//!   n2 eth0 ─┘
//! ```
//! A way is cut by telling its sender an address of the link layer that nobody has: packets go out and reach no one,
//! and nobody is told. The other direction goes on.

use std::process::{Command, Stdio};

use crate::harness::Home;

/// A link-layer address that nobody has.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The network, taken down when it is dropped.
pub(super) struct Net {
    mark: String,
    /// The third of four parts of its addresses, 198.18.x.y: a range for tests of networks (RFC 2544).
    subnet: u32,
}

impl Net {
    /// For three nodes; none without the right or the means to make one. `number` tells the tests of one run apart.
    pub(super) fn for_three(number: u32) -> Option<Net> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make network namespaces");
            return None;
        }
        let process = std::process::id();
        let net = Net { mark: format!("sl{}{number}", process % 1_000_000), subnet: (process * 4 + number) % 256 };
        if net.build() {
            return Some(net);
        }
        println!("skipped: no network namespaces can be made here (Debian: iproute2)");
        None
    }

    fn build(&self) -> bool {
        let bridge = self.bridge();
        let here = format!("198.18.{}.254/24", self.subnet);
        ip(&["link", "add", &bridge, "type", "bridge"])
            && ip(&["addr", "add", &here, "dev", &bridge])
            && ip(&["link", "set", &bridge, "up"])
            && (0..3).all(|node| self.add(node))
    }

    fn add(&self, node: usize) -> bool {
        let (space, bridge, end) = (self.space(node), self.bridge(), self.end(node));
        let address = format!("{}/24", self.address(node));
        ip(&["netns", "add", &space])
            && ip(&["link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", &space])
            && ip(&["link", "set", &end, "master", &bridge, "up"])
            && ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])
            && ip(&["-n", &space, "link", "set", "eth0", "up"])
            && ip(&["-n", &space, "link", "set", "lo", "up"])
    }

    fn bridge(&self) -> String {
        format!("{}b", self.mark)
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.mark)
    }

    fn end(&self, node: usize) -> String {
        format!("{}v{node}", self.mark)
    }

    pub(super) fn address(&self, node: usize) -> String {
        format!("198.18.{}.{}", self.subnet, node + 1)
    }

    /// A home whose nodes are on this network.
    pub(super) fn home(&self, node: usize) -> Home {
        Home::new().run_with(&["ip", "netns", "exec", &self.space(node)])
    }

    /// Nothing of what one node sends to another arrives any more.
    pub(super) fn cut(&self, from: usize, to: usize) {
        let (space, to) = (self.space(from), self.address(to));
        let cut = ip(&["-n", &space, "neigh", "replace", &to, "lladdr", NOBODY, "nud", "permanent", "dev", "eth0"]);
        assert!(cut, "a way can be cut");
    }

    /// It arrives again.
    pub(super) fn heal(&self, from: usize, to: usize) {
        let healed = ip(&["-n", &self.space(from), "neigh", "del", &self.address(to), "dev", "eth0"]);
        assert!(healed, "a way can be healed");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in 0..3 {
            // A namespace lives on while a node of a failed test is in it; its way out does not.
            ip(&["link", "del", &self.end(node)]);
            ip(&["netns", "del", &self.space(node)]);
        }
        ip(&["link", "del", &self.bridge()]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let ran = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}
