//! One GET over HTTP/1.1, to see how a server is. Nothing that is measured goes this way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Time to connect, and to each answer's next byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What stands behind the head of an answer of status 200.
///
/// # Errors
/// A sentence that says what came instead.
pub fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let answer = exchange(address, path).map_err(|error| format!("{path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path}: no HTTP: {answer:?}"))?;
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{path}: {status}: {body}")),
    }
}

fn exchange(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![];
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn only_a_status_of_200_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = ["200 OK\r\nA: b\r\n\r\nwell", "503 Service Unavailable\r\n\r\nwait", "nonsense"];
        let serve = move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = BufReader::new(socket.try_clone().unwrap());
                let mut line = String::new();
                while request.read_line(&mut line).unwrap() > 2 {}
                assert!(line.starts_with("GET /health HTTP/1.1\r\n"), "{line}");
                write!(socket, "HTTP/1.1 {answer}").unwrap();
            }
        };
        let server = thread::Builder::new().spawn(serve).unwrap();
        assert_eq!(get(address, "/health"), Ok("well".to_owned()));
        assert_eq!(get(address, "/health"), Err("/health: HTTP/1.1 503 Service Unavailable: wait".to_owned()));
        assert!(get(address, "/health").is_err());
        server.join().unwrap();
    }
}
